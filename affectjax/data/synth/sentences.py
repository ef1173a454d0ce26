"""What the cartoon says: clauses for each emotion, and the sentences that they are joined into."""

import dataclasses

import numpy as np

CLASSES = ("neutral", "happy", "sad", "angry", "fear", "disgust", "surprise")

MAX_WORDS = 12

# The star marks the word that carries the emotion, which is the one that a voice can stress.
CLAUSES = {
    "neutral": (
        "the *bus leaves at noon",
        "i put the *form there",
        "we have a *meeting today",
        "the *table is over here",
        "this *page has two sides",
        "the *shop opens at ten",
    ),
    "happy": (
        "we won the *prize",
        "i got a *present today",
        "the *party is tonight",
        "my *friend is back",
        "this *song is lovely",
        "we go on *holiday now",
    ),
    "sad": (
        "my *grandma is gone",
        "i *miss you so much",
        "the *goodbye was long",
        "i am so *lonely here",
        "we *lost the old house",
        "there were only *tears",
    ),
    "angry": (
        "you *lied to me",
        "they *stole my bike",
        "he *broke it on purpose",
        "that is so *unfair",
        "stop that *shouting now",
        "she *cheated again",
    ),
    "fear": (
        "there is a *shadow outside",
        "someone is *following us",
        "the *ghost came nearer",
        "we are in *danger here",
        "that *monster is awake",
        "i heard a *scream",
    ),
    "disgust": (
        "the milk was *rotten",
        "there is *slime on it",
        "it smells like *vomit",
        "i found *maggots in there",
        "the *sewer is leaking",
        "his socks are *mouldy",
    ),
    "surprise": (
        "it *vanished just now",
        "the *twins look the same",
        "i never *expected that",
        "out came a *rabbit",
        "what a *miracle that was",
        "you came *unannounced",
    ),
}

JOINERS = ("and", "but", "then", "while")
OPENERS = ("oh", "well", "sure", "look")

FAVOURITES = 4


@dataclasses.dataclass(frozen=True)
class Sentence:
    """One spoken sentence.

    Attributes:
      words: its words, lower case.
      key: for each clause, the position of the word that carries the clause's emotion.
      joint: the position at which the second clause starts; the number of words if there is none.
    """

    words: tuple[str, ...]
    key: tuple[int, ...]
    joint: int


def affect_words() -> dict[str, str]:
    """Returns the emotion that each starred word belongs to, by word."""
    return {
        word[1:]: emotion
        for emotion, clauses in CLAUSES.items()
        for clause in clauses
        for word in clause.split()
        if word.startswith("*")
    }


def vocabulary() -> tuple[str, ...]:
    """Returns every word that a sentence can hold, sorted."""
    clauses = (clause for several in CLAUSES.values() for clause in several)
    words = {word.lstrip("*") for clause in clauses for word in clause.split()}
    return tuple(sorted(words | set(JOINERS) | set(OPENERS)))


def favourites(rng: np.random.Generator) -> np.ndarray:
    """Returns which clauses a speaker uses.

    Args:
      rng: the speaker's own stream of numbers.

    Returns:
      `[7, 4]` clause numbers, a row an emotion.
    """
    return np.stack([rng.permutation(len(CLAUSES[name]))[:FAVOURITES] for name in CLASSES])


def compose(
    emotions: tuple[int, ...], choice: np.ndarray, liked: np.ndarray, opener: bool
) -> Sentence:
    """Joins one clause an emotion into a sentence.

    Args:
      emotions: one or two class numbers, in the order in which they are spoken.
      choice: `[4]` numbers in [0, 1) that pick the two clauses, the joining word and the opener.
      liked: `[7, 4]` the clauses that this speaker uses, as `favourites` gives them.
      opener: whether the sentence starts with a word such as "oh".

    Returns:
      The sentence.
    """
    words = [OPENERS[int(choice[3] * len(OPENERS))]] if opener else []
    key, joint = [], None
    for place, emotion in enumerate(emotions):
        if place:
            joint = len(words)
            words.append(JOINERS[int(choice[2] * len(JOINERS))])
        number = liked[emotion, int(choice[place] * FAVOURITES)]
        for word in CLAUSES[CLASSES[emotion]][number].split():
            if word.startswith("*"):
                key.append(len(words))
            words.append(word.lstrip("*"))
    return Sentence(tuple(words), tuple(key), len(words) if joint is None else joint)
