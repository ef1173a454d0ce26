"""The shared space: which examples count, how far groups lie apart, and the picture of it."""

import json

import matplotlib.colors
import matplotlib.image
import numpy as np
import pytest

from affectjax.emotions import SEVEN, THREE
from affectjax.errors import InputError
from affectjax.reports import embeddings, figures

WIDTHS = {"feature": 6, "emotion": 5, "non_emotion": 4}


def write_space(folder, labels, seed=0):
    """Writes features.npz of random features for the labels of each modality; returns its arrays.

    The first number of each "emotion" feature is that of its row in the modality.
    """
    rng = np.random.default_rng(seed)
    arrays = {f"{m}/label": np.array(own) for m, own in labels.items()}
    for m, own in labels.items():
        for kind, width in WIDTHS.items():
            arrays[f"{m}/{kind}"] = rng.standard_normal((len(own), width)).astype("f4")
        arrays[f"{m}/emotion"][:, 0] = np.arange(len(own))
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / embeddings.FEATURES, **arrays)
    return arrays


def labels(sizes=(40, 63, 35)):
    """Returns the labels of texts, in three classes, and of sounds and images, in seven."""
    schemes = {"text": THREE, "audio": SEVEN, "vision": SEVEN}
    return {
        m: [classes[i % len(classes)] for i in range(size)]
        for (m, classes), size in zip(schemes.items(), sizes, strict=True)
    }


def silhouette(x, groups):
    """Returns the mean silhouette by cosine distance, example by example (Rousseeuw 1987)."""
    x = [row / np.sqrt((row**2).sum()) for row in np.asarray(x, np.float64)]
    scores = []
    for i in range(len(x)):
        apart = {}
        for j in range(len(x)):
            if j != i:
                apart.setdefault(groups[j], []).append(1 - x[i] @ x[j])
        own = np.mean(apart.pop(groups[i]))
        nearest = min(np.mean(others) for others in apart.values())
        scores.append((nearest - own) / max(nearest, own))
    return np.mean(scores)


@pytest.mark.parametrize("kind", embeddings.KINDS)
def test_silhouettes_of_three_classes(tmp_path, kind):
    # As many of each modality, so none is left out but surprise: 42 sounds have six of it.
    own = labels((36, 42, 42))
    arrays = write_space(tmp_path, own)
    found = embeddings.silhouettes(tmp_path)["three"]
    merged = dict.fromkeys(("anger", "disgust", "fear", "sadness"), "negative")
    merged |= {"happiness": "positive"} | {name: name for name in THREE}
    rows = [(m, i, merged[n]) for m in own for i, n in enumerate(own[m]) if n in merged]
    x = [arrays[f"{m}/{kind}"][i] for m, i, _ in rows]
    by_emotion, by_modality = ([row[k] for row in rows] for k in (2, 0))
    assert found[kind] == {
        "emotion": {"value": pytest.approx(silhouette(x, by_emotion), abs=1e-5), "reason": None},
        "modality": {"value": pytest.approx(silhouette(x, by_modality), abs=1e-5), "reason": None},
    }
    assert found["examples"] == {
        "text": {"negative": 12, "neutral": 12, "positive": 12},
        "audio": {"negative": 24, "neutral": 6, "positive": 6},
        "vision": {"negative": 24, "neutral": 6, "positive": 6},
    }


def test_silhouettes_of_seven_classes_leave_texts_out(tmp_path):
    own = labels((36, 42, 42))
    arrays = write_space(tmp_path, own)
    found = embeddings.silhouettes(tmp_path)["seven"]
    assert found["examples"] == {m: dict.fromkeys(SEVEN, 6) for m in ("audio", "vision")}
    x = np.concatenate([arrays["audio/emotion"], arrays["vision/emotion"]])
    value = silhouette(x, own["audio"] + own["vision"])
    assert found["emotion"]["emotion"]["value"] == pytest.approx(value, abs=1e-5)


def test_a_sample_has_as_many_of_each_modality(tmp_path):
    own = labels()
    arrays = write_space(tmp_path, own)
    whole = embeddings.load(tmp_path)
    # 35 images, 5 of each emotion: 30 without surprise.
    some = embeddings.sample(whole, "three")
    sizes = {m: int((some.modality == m).sum()) for m in own}
    assert sizes == {"text": 30, "audio": 30, "vision": 30}
    few = embeddings.sample(whole, "three", most=50)
    assert {m: sum(counts.values()) for m, counts in few.counts().items()} == dict.fromkeys(own, 16)
    for m, name, x in zip(few.modality, few.emotion, few.features["emotion"], strict=True):
        row = int(x[0])
        np.testing.assert_array_equal(x, arrays[f"{m}/emotion"][row])
        assert own[m][row] in (name, "anger", "disgust", "fear", "sadness", "happiness")
    # No example twice, the same ones again, and others with another seed.
    assert len(np.unique(few.features["emotion"], axis=0)) == 48
    for seed, same in ((0, True), (1, False)):
        again = embeddings.sample(whole, "three", most=50, seed=seed).features["emotion"]
        assert np.array_equal(again, few.features["emotion"]) == same


def test_what_cannot_be_measured_has_a_reason(tmp_path):
    write_space(tmp_path, {"audio": [*SEVEN[:5] * 3, "surprise"]})
    found = embeddings.silhouettes(tmp_path)
    none = {"value": None, "reason": "there is one modality alone: audio"}
    assert found["three"]["feature"]["modality"] == none
    assert isinstance(found["three"]["feature"]["emotion"]["value"], float)
    none = {"value": None, "reason": "there is one example alone of surprise"}
    assert found["seven"]["emotion"]["emotion"] == none
    write_space(tmp_path, {"text": ["neutral"] * 4})
    found = embeddings.silhouettes(tmp_path)
    none = {"value": None, "reason": "there is one emotion alone: neutral"}
    assert found["three"]["emotion"]["emotion"] == none
    assert found["seven"]["examples"] == {}
    none = {"value": None, "reason": "there is no example"}
    assert found["seven"]["emotion"] == {"emotion": none, "modality": none}
    json.dumps(found, allow_nan=False)


def test_dead_features_have_a_silhouette(tmp_path):
    arrays = write_space(tmp_path, labels())
    arrays["text/emotion"][:] = arrays["audio/emotion"][:] = arrays["vision/emotion"][:] = 0
    np.savez(tmp_path / embeddings.FEATURES, **arrays)
    assert embeddings.silhouettes(tmp_path)["three"]["emotion"]["emotion"]["value"] == 0


BROKEN = {
    "no kind": (lambda a: a.pop("audio/emotion"), "it has no 'audio/emotion'"),
    "no modality": (lambda a: [a.pop(f"{m}/label") for m in labels()], "it has no 'text/label'"),
    "too few": (
        lambda a: a.update({"text/feature": np.ones((3, 6))}),
        r"\(3, 6\) is not \[40, D\]",
    ),
    "not finite": (
        lambda a: a["vision/feature"].__setitem__(0, np.nan),
        "'vision/feature' .* is not .* finite",
    ),
    "width": (lambda a: a.update({"text/emotion": np.ones((40, 3))}), "width of 'emotion'"),
    "pickle": (
        lambda a: a.update({"text/label": np.array([[]] * 40 + [None], object)[:40]}),
        "text/label is an array of Python objects",
    ),
}


@pytest.mark.parametrize(("change", "message"), BROKEN.values(), ids=BROKEN.keys())
def test_damaged_features(tmp_path, change, message):
    arrays = write_space(tmp_path, labels())
    change(arrays)
    np.savez(tmp_path / embeddings.FEATURES, **arrays)
    with pytest.raises(InputError, match=message):
        embeddings.load(tmp_path)


def test_no_features(tmp_path):
    with pytest.raises(InputError, match="has the run learned concepts"):
        embeddings.load(tmp_path)
    (tmp_path / embeddings.FEATURES).write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(InputError, match="is not a NumPy archive of plain arrays"):
        embeddings.load(tmp_path)


# ---- the picture --------------------------------------------------------------------------------


def test_neighbours_stay_neighbours():
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(3), 20)
    # Groups differ in direction alone; lengths are all over the place.
    x = (np.eye(3, 8)[group] + 0.05 * rng.standard_normal((60, 8))) * rng.uniform(0.1, 9, (60, 1))
    xy = embeddings.embed(x)
    assert xy.shape == (60, 2)
    apart = np.linalg.norm(xy[:, None] - xy, axis=-1) + np.diag([np.inf] * 60)
    assert (group[apart.argmin(1)] == group).all()
    np.testing.assert_array_equal(embeddings.embed(x), xy)


@pytest.mark.parametrize("x", [np.ones((9, 4)), np.zeros((9, 4)), np.eye(2), np.zeros((0, 4))])
def test_nothing_to_embed(x):
    np.testing.assert_array_equal(embeddings.embed(x), np.zeros((len(x), 2)))


@pytest.mark.parametrize("count", [3, 4, 31])
def test_few_are_embedded(count):
    assert np.isfinite(embeddings.embed(np.random.default_rng(0).standard_normal((count, 5)))).all()


def colours_of(path):
    """Returns the colours of a picture as hexadecimal numbers."""
    pixels = matplotlib.image.imread(path)[..., :3].reshape(-1, 3)
    return {matplotlib.colors.to_hex(pixel).upper() for pixel in np.unique(pixels, axis=0)}


def test_a_figure_shows_the_classes_that_there_are(tmp_path):
    rng = np.random.default_rng(0)
    groups = {
        "emotion": np.array(["negative", "positive"] * 10),
        "modality": np.repeat(["text", "vision"], 10),
    }
    points = {"one": rng.standard_normal((20, 2)), "two": np.zeros((20, 2))}
    titles = {(column, row): f"{column} {row}" for column in points for row in groups}
    figures.clouds(points, groups, titles, tmp_path / "a.png")
    shown = colours_of(tmp_path / "a.png")
    # Vermillion, blue, purple and green of Okabe and Ito, and no sound's orange.
    assert {"#D55E00", "#0072B2", "#CC79A7", "#009E73"} <= shown
    assert "#E69F00" not in shown
    figures.clouds(points, groups, titles, tmp_path / "b.png")
    assert (tmp_path / "b.png").read_bytes() == (tmp_path / "a.png").read_bytes()
