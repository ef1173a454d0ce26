"""Tables from the words of data sets to seven, three and two classes."""

import numpy as np
import pytest

from affectjax import emotions
from affectjax.data.raw import sets
from affectjax.errors import InputError

# GoEmotions' ekman_mapping.json, its joy being happiness here.
EKMAN = {
    "anger": "anger annoyance disapproval",
    "disgust": "disgust",
    "fear": "fear nervousness",
    "happiness": "joy amusement approval excitement gratitude love optimism relief pride "
    "admiration desire caring",
    "sadness": "sadness disappointment embarrassment grief remorse",
    "surprise": "surprise realization confusion curiosity",
    "neutral": "neutral",
}
NEGATIVE = ("anger", "disgust", "fear", "sadness")


def test_each_set_in_seven():
    wanted = {
        "rafdb": ("surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral"),
        "affectnet": (
            *("neutral", "happiness", "sadness", "surprise", "fear", "disgust", "anger"),
            None,
        ),
        "meld": ("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise"),
        "fer2013": ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral"),
        "ravdess": (
            *("neutral", None, "happiness", "sadness", "anger", "fear", "disgust"),
            "surprise",
        ),
        "imagen": ("anger", "neutral", "happiness"),
        "mafw": (
            *("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise"),
            *(None,) * 4,
        ),
    }
    for name, targets in wanted.items():
        classes = sets.get(name).labels.classes
        found = emotions.table("seven", classes)
        assert tuple(found.get(c) for c in classes) == targets, name
        assert emotions.classes_of(found) == emotions.SEVEN or name == "imagen"


def test_goemotions_in_seven():
    classes = sets.get("goemotions").labels.classes
    wanted = {word: group for group, words in EKMAN.items() for word in words.split()}
    assert emotions.table("seven", classes) == wanted and len(wanted) == 28
    three = emotions.table("three", classes)
    assert three == {
        word: "negative" if group in NEGATIVE else "positive" if group == "happiness" else "neutral"
        for word, group in wanted.items()
        if group != "surprise"
    }


@pytest.mark.parametrize("word", ["disappointment", "love", "confusion", "relief"])
def test_a_word_of_goemotions_alone_means_nothing(word):
    assert emotions.table("seven", ("anger", word)) == {"anger": "anger"}


def test_seven_in_three_and_two():
    three = dict.fromkeys(NEGATIVE, "negative") | {"happiness": "positive", "neutral": "neutral"}
    assert emotions.table("three", emotions.SEVEN) == three
    assert emotions.classes_of(three) == ("negative", "neutral", "positive")
    two = dict.fromkeys(NEGATIVE, "negative") | {"happiness": "positive"}
    assert emotions.table("two", emotions.SEVEN) == two
    assert emotions.classes_of(two) == ("negative", "positive")
    assert emotions.table("two", emotions.THREE) == {
        "negative": "negative",
        "positive": "positive",
    }
    assert emotions.table("three", emotions.THREE) == {name: name for name in emotions.THREE}
    # Capitals and blanks are no other word.
    assert emotions.table("three", (" Happy", "SAD")) == {" Happy": "positive", "SAD": "negative"}


def test_pairs():
    assert emotions.table("glad:happiness, low : sadness,odd:", ("glad", "low", "odd")) == {
        "glad": "happiness",
        "low": "sadness",
    }
    assert emotions.classes_of({"glad": "happiness", "low": "sadness"}) == emotions.SEVEN
    # Of no scheme: as they come, each once.
    assert emotions.classes_of({"a": "up", "b": "down", "c": "up"}) == ("up", "down")
    assert emotions.classes_of({"a": "negative", "b": "positive"}) == emotions.TWO


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("seven", "is 'seven', but none of odd, even belongs to anger, disgust"),
        ("eight", "allowed: seven, three, two, or pairs as in"),
        ("odd:a,even", "allowed: seven, three, two, or pairs as in"),
        ("odd:a:b,even:c", "allowed: seven, three, two, or pairs as in"),
        ("odd:a", "must name each of odd, even once; look at 'even'"),
        ("odd:a,even:b,prime:c", "must name each of odd, even once; look at 'prime'"),
        ("odd:a,even:b,odd:c", "must name each of odd, even once; look at 'odd'"),
        ("odd:,even:", "leaves every class out"),
    ],
)
def test_tables_that_are_refused(said, words):
    with pytest.raises(InputError, match=words):
        emotions.table(said, ("odd", "even"))


def test_related_labels_and_pools():
    labels, classes = ("angry", "happiness", "neutral"), ("negative", "anger", "positive", "fear")
    np.testing.assert_array_equal(
        emotions.related(labels, classes), [[1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    )
    # Between two emotions that share a coarser class there is no relation of their own.
    np.testing.assert_array_equal(
        emotions.related(
            ("negative", "positive", "surprise"), ("anger", "fear", "joy", "surprise")
        ),
        [[1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]],
    )


def test_to_scheme():
    classes = ("happy", "surprise", "neutral", "sad", "calm", "excited")
    found = emotions.to_scheme(classes, emotions.THREE)
    np.testing.assert_array_equal(found, [2, -1, 1, 0, -1, -1])
    assert found.dtype == np.int32
