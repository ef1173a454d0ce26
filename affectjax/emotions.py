"""Emotions: their names, the words that data sets have for them, and tables to coarser classes.

A data set keeps its own words when it is prepared. `config.data.class_map` then names one of the
`SCHEMES`, or gives pairs of its own, and everything behind it speaks of those classes alone.

Letters: Y labels of a task, C classes of a pool of concepts.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from affectjax.errors import InputError

SEVEN = ("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise")
THREE = ("negative", "neutral", "positive")
TWO = ("negative", "positive")
SCHEMES: dict[str, tuple[str, ...]] = {"seven": SEVEN, "three": THREE, "two": TWO}

# What data sets write for the seven; a word that is not here belongs to none of them, as RAVDESS's
# "calm" and IEMOCAP's "excited", which the counts of Table 8 of the supramodal paper leave out too.
WORDS: dict[str, str] = {name: name for name in SEVEN} | {
    "angry": "anger",
    "disgusted": "disgust",
    "fearful": "fear",
    "happy": "happiness",
    "joy": "happiness",
    "sad": "sadness",
    "surprised": "surprise",
}

# GoEmotions' own grouping (its ekman_mapping.json), for sets that have all of these words: one
# alone, as MAFW's disappointment, may be a class beside the seven.
EKMAN: dict[str, str] = {
    "admiration": "happiness",
    "amusement": "happiness",
    "annoyance": "anger",
    "approval": "happiness",
    "caring": "happiness",
    "confusion": "surprise",
    "curiosity": "surprise",
    "desire": "happiness",
    "disappointment": "sadness",
    "disapproval": "anger",
    "embarrassment": "sadness",
    "excitement": "happiness",
    "gratitude": "happiness",
    "grief": "sadness",
    "love": "happiness",
    "nervousness": "fear",
    "optimism": "happiness",
    "pride": "happiness",
    "realization": "surprise",
    "relief": "happiness",
    "remorse": "sadness",
}

# Section 4.1 of the supramodal paper: surprise is neither good nor bad, and is left out.
SEVEN_TO_THREE: dict[str, str] = {
    "anger": "negative",
    "disgust": "negative",
    "fear": "negative",
    "happiness": "positive",
    "neutral": "neutral",
    "sadness": "negative",
}
THREE_TO_TWO: dict[str, str] = {"negative": "negative", "positive": "positive"}
SEVEN_TO_TWO: dict[str, str] = {
    name: THREE_TO_TWO[coarse] for name, coarse in SEVEN_TO_THREE.items() if coarse in THREE_TO_TWO
}
_COARSER = {
    (SEVEN, THREE): SEVEN_TO_THREE,
    (THREE, TWO): THREE_TO_TWO,
    (SEVEN, TWO): SEVEN_TO_TWO,
}


def table(said: str, classes: Sequence[str]) -> dict[str, str]:
    """Returns what becomes of each class of a data set; those that are left out are not in it.

    Args:
      said: a name of `SCHEMES`, or pairs as in "angry:anger,happy:happiness,sad:", where nothing
        after the colon leaves a class out.
      classes: of the data set.

    Raises:
      InputError: no such scheme, pairs that are none, a class of the data set that the pairs do not
        name, or a scheme that none of the classes belongs to.
    """
    if said in SCHEMES:
        found = _to_scheme(SCHEMES[said], classes)
        if not found:
            raise InputError(
                f'"config.data.class_map" is {said!r}, but none of {", ".join(classes)} belongs to '
                f"{', '.join(SCHEMES[said])}; give pairs, as in angry:anger,happy:happiness"
            )
        return found
    pairs = [pair.split(":") for pair in said.split(",")]
    if any(len(pair) != 2 for pair in pairs):
        raise InputError(
            f'"config.data.class_map" is {said!r}; allowed: {", ".join(SCHEMES)}, or pairs as in '
            "angry:anger,happy:happiness"
        )
    sources = [source.strip() for source, _ in pairs]
    wrong = [n for n in sources if n not in classes or sources.count(n) > 1]
    for name in (*wrong, *(c for c in classes if c not in sources)):
        raise InputError(
            f'"config.data.class_map" must name each of {", ".join(classes)} once; look at {name!r}'
        )
    found = {source.strip(): target.strip() for source, target in pairs if target.strip()}
    if not found:
        raise InputError(f'"config.data.class_map" is {said!r}, which leaves every class out')
    return found


def _to_scheme(scheme: tuple[str, ...], classes: Sequence[str]) -> dict[str, str]:
    """Returns by class of a data set that of a scheme, by the words and then by the tables."""
    found = {}
    words = WORDS | EKMAN if set(EKMAN) <= set(classes) else WORDS
    for name in classes:
        word = name.strip().lower()
        emotion = words.get(word, word)
        for fine in (SEVEN, THREE):
            coarser = _COARSER.get((fine, scheme), {})
            if emotion in fine and emotion in coarser:
                found.setdefault(name, coarser[emotion])
        if emotion in scheme:
            found[name] = emotion
    return found


def classes_of(found: Mapping[str, str]) -> tuple[str, ...]:
    """Returns the classes, in order, that the targets of a `table` belong to.

    They are those of the smallest scheme that has all of them, else the targets as they come.
    """
    targets = tuple(dict.fromkeys(found.values()))
    fitting = [scheme for scheme in SCHEMES.values() if set(targets) <= set(scheme)]
    return min(fitting, key=len, default=targets)


def related(labels: Sequence[str], classes: Sequence[str]) -> np.ndarray:
    """Returns `[Y, C]` bool: whether a pool of class c has concepts for label y.

    It has where both are the same emotion, or one is what the other becomes in a coarser scheme: a
    pool of "negative" serves "anger", and pools of "anger" and "fear" serve "negative".

    Args:
      labels: Y names, of a task; words of `WORDS` count as what they mean.
      classes: C names, of the pools.
    """
    meant = [
        [WORDS.get(n.strip().lower(), n.strip().lower()) for n in ns] for ns in (labels, classes)
    ]
    coarser = {(a, b) for found in _COARSER.values() for a, b in found.items()}
    return np.array(
        [[y == c or (y, c) in coarser or (c, y) in coarser for c in meant[1]] for y in meant[0]]
    )


def to_scheme(classes: Sequence[str], scheme: Sequence[str]) -> np.ndarray:
    """Returns `[C]` int32: the number in `scheme` of each class, -1 for those that are left out."""
    found = _to_scheme(tuple(scheme), classes)
    return np.array([scheme.index(found[n]) if n in found else -1 for n in classes], np.int32)
