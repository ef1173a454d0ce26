"""Concept banks: what they keep, how they are stored, what is drawn of them, and how it guides."""

import itertools
import json
import shutil

import chex
import jax
import jax.numpy as jnp
import numpy as np
import numpy_concepts as loops
import pytest
from absl import logging
from conftest import FOUR, QUICK
from jax import lax
from numpy_mcr import quick
from safetensors.numpy import load_file, save_file
from scipy import stats

from affectjax.emotions import SEVEN, THREE
from affectjax.errors import InputError
from affectjax.ops import concept_sampling
from affectjax.runtime import manifest
from affectjax.runtime.parallel import AXIS, Engine
from affectjax.tasks.supramodal import concept_bank
from affectjax.tasks.supramodal.concept_bank import CARD, TENSORS, ConceptBank

ANGER, FEAR, HAPPINESS, NEUTRAL = (SEVEN.index(n) for n in SEVEN if n in
                                   ("anger", "fear", "happiness", "neutral"))  # fmt: skip
# Members of each class; vision has no surprise and little fear.
POOLS = {
    "text": (9, 3, 12),
    "audio": (4, 2, 5, 9, 8, 10, 3),
    "vision": (11, 8, 1, 14, 9, 10, 0),
}
CLASSES = {"text": THREE, "audio": SEVEN, "vision": SEVEN}


def make_bank(pools=POOLS, width=5, seed=0, **more):
    """Returns a bank whose pools have these sizes; members stand in random order."""
    rng = np.random.default_rng(seed)
    labels = {m: rng.permutation(np.repeat(np.arange(len(n)), n)) for m, n in pools.items()}
    return ConceptBank(
        features={m: rng.standard_normal((sum(n), width)) for m, n in pools.items()},
        labels=labels,
        classes={m: CLASSES[m] for m in pools},
        thresholds={m: [0.5 + 0.01 * c if c else np.nan for c in n] for m, n in pools.items()},
        **more,
    )


def plain(sizes):
    """Returns `Arrays` in which member p of a modality is the unit vector p: means show them.

    Args:
      sizes: by modality the size of the pool of each label.
    """
    width = max(sum(n) for n in sizes.values())
    arrays = {}
    for m, each in sizes.items():
        rows, first = np.zeros((len(each), max(each)), np.int32), 0
        for y, n in enumerate(each):
            rows[y, :n] = np.arange(first, first + n)
            first += n
        arrays[m] = {"features": np.eye(width, dtype=np.float32), "rows": rows}
        arrays[m]["count"] = np.array(each, np.int32)
    return arrays


def counted(concept, count):
    """Returns how often each member was drawn, from concepts of one modality of `plain`."""
    times = np.asarray(concept) * count
    np.testing.assert_allclose(times, np.round(times), atol=1e-5)
    return np.round(times).astype(int)


draw = quick(concept_bank.draw, static_argnames=("count", "axis_name", "generalize"))


# ---- select -------------------------------------------------------------------------------------


def predictions(seed, count=400, classes=4):
    """Returns probabilities on a coarse grid, so that many are equal, and labels; some are -1."""
    rng = np.random.default_rng(seed)
    label = rng.integers(-1, classes, count)
    probability = rng.integers(0, 20, (count, classes)) / 20
    # Of equal greatest ones the loops take any as right: they are told apart.
    probability += rng.permuted(np.arange(classes) * 1e-3 + np.zeros((count, 1)), axis=1)
    return probability, label


@pytest.mark.parametrize("correct_only", [True, False])
@pytest.mark.parametrize("top", [0.05, 0.2, 0.29, 1.0])
def test_select_is_the_loop(top, correct_only):
    for seed in range(4):
        given = predictions(seed)
        ours = concept_bank.select(*given, top, correct_only)
        expected = loops.select(*given, top, correct_only)
        assert [rows.tolist() for rows in ours] == expected


def test_pools_hold_exactly_the_top_fifth_of_the_correct_ones():
    probability, label = predictions(9)
    for c, rows in enumerate(concept_bank.select(probability, label)):
        correct = np.flatnonzero((probability.argmax(1) == label) & (label == c))
        assert len(correct) >= 10 and len(rows) == len(correct) // 5
        others = np.setdiff1d(correct, rows)
        assert set(rows) <= set(correct)
        assert probability[rows, c].min() >= probability[others, c].max()


def test_select_by_hand():
    sure = np.array([0.9, 0.6, 0.6, 0.7, 0.3, 0.6])
    probability = np.stack([sure, 1 - sure], 1)
    # Row 4 is wrong; of the five others two fifths are two: row 0, and row 3.
    assert concept_bank.select(probability, np.zeros(6, int), 0.4)[0].tolist() == [0, 3]
    # Three fifths: of the rows 1, 2 and 5, which are equal, the first.
    kept, none = concept_bank.select(probability, np.zeros(6, int), 0.6)
    assert kept.tolist() == [0, 1, 3] and none.tolist() == []
    # A part that is less than one example is one.
    assert concept_bank.select(probability, np.zeros(6, int), 0.01)[0].tolist() == [0]
    assert concept_bank.select(probability, np.ones(6, int), 0.01)[1].tolist() == [4]


def test_without_selectivity_everything_is_kept():
    probability, label = predictions(2)
    kept = concept_bank.select(probability, label, top=1.0, correct_only=False)
    for c, rows in enumerate(kept):
        np.testing.assert_array_equal(rows, np.flatnonzero(label == c))


WRONG = {
    "shapes": ((np.ones((4, 2)), np.zeros(3, int)), "allowed: [N, C] and [N]"),
    "label": ((np.ones((2, 2)), np.array([0, 2])), "none of the 2 classes"),
    "top": ((np.ones((2, 2)), np.zeros(2, int), 0.0), "top is 0.0"),
    "probability": ((np.full((2, 2), np.nan), np.zeros(2, int)), "not finite"),
}


@pytest.mark.parametrize(("arguments", "message"), WRONG.values(), ids=WRONG.keys())
def test_what_cannot_be_selected_from(arguments, message):
    with pytest.raises(InputError) as raised:
        concept_bank.select(*arguments)
    assert message in str(raised.value)


def test_collect_keeps_what_select_chose():
    rng = np.random.default_rng(0)
    given = {m: predictions(seed, classes=len(CLASSES[m])) for seed, m in enumerate(POOLS)}
    features = {m: rng.standard_normal((400, 3)).astype(np.float32) for m in POOLS}
    bank = concept_bank.collect(
        features,
        {m: p for m, (p, _) in given.items()},
        {m: y for m, (_, y) in given.items()},
        CLASSES,
        ids={m: [f"{m}-{n}" for n in range(400)] for m in POOLS},
        source="runs/x",
        top=0.3,
    )
    assert (bank.source, bank.top, bank.correct_only, bank.width) == ("runs/x", 0.3, True, 3)
    for m, (probability, label) in given.items():
        pools = loops.select(probability, label, 0.3)
        assert bank.counts[m] == dict(zip(CLASSES[m], map(len, pools), strict=True))
        for c, rows in enumerate(pools):
            mine = bank.labels[m] == c
            np.testing.assert_array_equal(bank.features[m][mine], features[m][rows])
            assert [bank.ids[m][n] for n in np.flatnonzero(mine)] == [f"{m}-{r}" for r in rows]
            least = min(probability[r, c] for r in rows)
            np.testing.assert_allclose(bank.thresholds[m][c], least, rtol=1e-6)


def test_collect_of_a_class_without_a_correct_example():
    probability = {"text": np.array([[0.8, 0.1, 0.1], [0.6, 0.3, 0.1]])}
    bank = concept_bank.collect(
        {"text": np.ones((2, 4))}, probability, {"text": np.array([0, 1])}, {"text": THREE}
    )
    assert bank.counts == {"text": {"negative": 1, "neutral": 0, "positive": 0}}
    np.testing.assert_allclose(bank.thresholds["text"], [0.8, np.nan, np.nan])


# ---- save and load ------------------------------------------------------------------------------


def assert_same_bank(ours, theirs, modalities):
    assert tuple(ours.features) == tuple(modalities)
    for m in modalities:
        for name in ("features", "labels", "thresholds"):
            a, b = (getattr(bank, name)[m] for bank in (ours, theirs))
            np.testing.assert_array_equal(a, b)
            assert a.dtype == b.dtype
        assert ours.classes[m] == theirs.classes[m]
        assert ours.counts[m] == theirs.counts[m]
        assert ours.ids.get(m) == theirs.ids.get(m)
    for name in ("source", "top", "correct_only", "width"):
        assert getattr(ours, name) == getattr(theirs, name)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A bank and the folder that it was saved to."""
    folder = tmp_path_factory.mktemp("banks") / "made" / "here"
    ids = {"audio": [f"a{n}" for n in range(sum(POOLS["audio"]))]}
    bank = make_bank(ids=ids, source="runs/x, Straße 3", top=0.25, correct_only=False)
    bank.save(folder)
    return bank, folder


def test_a_bank_comes_back_as_it_was(saved):
    bank, folder = saved
    assert sorted(f.name for f in folder.iterdir()) == [manifest.FILE, CARD, TENSORS]
    assert_same_bank(concept_bank.load(folder), bank, ("text", "audio", "vision"))
    assert_same_bank(concept_bank.load(str(folder)), bank, ("text", "audio", "vision"))


@pytest.mark.parametrize("wanted", [("text",), ("vision", "text"), ("audio",)])
def test_a_subset_of_the_modalities_is_loaded_by_name(saved, wanted):
    bank, folder = saved
    found = concept_bank.load(folder, wanted)
    assert_same_bank(found, bank, [m for m in ("text", "audio", "vision") if m in wanted])


def test_the_card_says_what_a_person_wants_to_know(saved):
    _, folder = saved
    card = json.loads((folder / CARD).read_text())
    assert (card["width"], card["top"], card["source"]) == (5, 0.25, "runs/x, Straße 3")
    said = card["modalities"]["vision"]["classes"]
    assert [c["name"] for c in said] == list(SEVEN)
    assert [c["count"] for c in said] == list(POOLS["vision"])
    assert said[SEVEN.index("surprise")]["threshold"] is None
    assert said[FEAR]["threshold"] == pytest.approx(0.51)


def test_saving_again_replaces(saved, tmp_path):
    make_bank(seed=1).save(tmp_path)
    new = make_bank({"text": (1, 0, 2)}, seed=2)
    new.save(tmp_path)
    assert_same_bank(concept_bank.load(tmp_path), new, ("text",))


def test_features_of_any_layout_are_saved(tmp_path):
    rng = np.random.default_rng(0)
    features = np.asfortranarray(rng.standard_normal((3, 4)).astype(np.float32))
    bank = ConceptBank({"text": features}, {"text": [2, 0, 0]}, {"text": THREE}, {"text": [0] * 3})
    bank.save(tmp_path)
    np.testing.assert_array_equal(concept_bank.load(tmp_path).features["text"], features)


def edit_card(change):
    """Returns what changes the object in concepts.json of a folder."""

    def edit(folder):
        card = json.loads((folder / CARD).read_text())
        change(card)
        (folder / CARD).write_text(json.dumps(card))

    return edit


def edit_tensors(change):
    """Returns what changes the tensors of a folder."""

    def edit(folder):
        tensors = load_file(folder / TENSORS)
        change(tensors)
        save_file(tensors, folder / TENSORS)

    return edit


def cut(name):
    """Returns what leaves of a file of a folder its first half."""
    return lambda folder: (folder / name).write_bytes(
        (content := (folder / name).read_bytes())[: len(content) // 2]
    )


DAMAGES = {
    "no card": (lambda f: (f / CARD).unlink(), f"{CARD} cannot be read"),
    "no tensors": (lambda f: (f / TENSORS).unlink(), f"{TENSORS} is no whole safetensors"),
    "half a card": (cut(CARD), f"{CARD} cannot be read as JSON"),
    "half of the tensors": (cut(TENSORS), f"{TENSORS} is no whole safetensors file"),
    "no object": (lambda f: (f / CARD).write_text("[3]"), "it has no 'width'"),
    "no width": (edit_card(lambda c: c.pop("width")), "it has no 'width'"),
    "another width": (edit_card(lambda c: c.update(width=6)), "has 5 features, but"),
    "no modalities": (edit_card(lambda c: c.update(modalities=[])), "it has no 'modalities'"),
    "no classes": (edit_card(lambda c: c["modalities"]["text"].pop("classes")), "'classes'"),
    "no count": (
        edit_card(lambda c: c["modalities"]["text"]["classes"][1].pop("count")),
        f"{CARD} is damaged",
    ),
    "a class of another kind": (
        edit_card(lambda c: c["modalities"]["text"].update(classes=[3])),
        f"{CARD} is damaged",
    ),
    "a threshold in words": (
        edit_card(lambda c: c["modalities"]["text"]["classes"][1].update(threshold="high")),
        f"{CARD} is damaged",
    ),
    "another count": (
        edit_card(lambda c: c["modalities"]["text"]["classes"][1].update(count=4)),
        "concepts of text, but",
    ),
    "a class less": (
        edit_card(lambda c: c["modalities"]["text"]["classes"].pop()),
        "a label is none of its 2 classes",
    ),
    "a class twice": (
        edit_card(lambda c: c["modalities"]["text"]["classes"][1].update(name="negative")),
        "one of them twice",
    ),
    "an id less": (
        edit_card(lambda c: c["modalities"]["audio"]["ids"].pop()),
        "40 ids for 41 features",
    ),
    "an unknown modality": (
        edit_card(lambda c: c["modalities"].update(smell=c["modalities"].pop("text"))),
        "but concepts.json says",
    ),
    "a modality less": (edit_card(lambda c: c["modalities"].pop("text")), "but concepts.json says"),
    "no labels": (edit_tensors(lambda t: t.pop("text/labels")), "but concepts.json says"),
    "a label less": (
        edit_tensors(lambda t: t.update({"text/labels": t["text/labels"][1:]})),
        "24 features for 23 labels",
    ),
    "width of one": (
        edit_tensors(lambda t: t.update({"audio/features": t["audio/features"][:, :4].copy()})),
        "4 features, those of others 5",
    ),
    "flat": (
        edit_tensors(lambda t: t.update({"text/features": t["text/features"].ravel()})),
        "not [P, D]",
    ),
    "not finite": (
        edit_tensors(lambda t: t.update({"text/features": t["text/features"] * np.inf})),
        "not finite",
    ),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_folder_is_refused_in_one_sentence(saved, tmp_path, damage, message):
    """Without checksums, as a folder of an older program."""
    folder = shutil.copytree(saved[1], tmp_path / "bank")
    (folder / manifest.FILE).unlink()
    damage(folder)
    with pytest.raises(InputError) as raised:
        concept_bank.load(folder)
    assert message in str(raised.value) and str(folder) in str(raised.value)
    assert "\n" not in str(raised.value)


SILENT = {
    "permuted labels": edit_tensors(
        lambda t: t.update({"text/labels": t["text/labels"][::-1].copy()})
    ),
    "other features": edit_tensors(lambda t: t.update({"text/features": -t["text/features"]})),
    "renamed classes": edit_card(
        lambda c: c["modalities"]["text"]["classes"][0].update(name="else")
    ),
}


@pytest.mark.parametrize("damage", SILENT.values(), ids=SILENT.keys())
def test_what_only_checksums_tell_is_refused(saved, tmp_path, damage):
    folder = shutil.copytree(saved[1], tmp_path / "bank")
    damage(folder)
    with pytest.raises(InputError, match=f"{folder}/concepts.* is damaged: .* back from a copy"):
        concept_bank.load(folder)


def test_an_unknown_modality_is_refused(saved):
    with pytest.raises(InputError, match="no concepts of 'image'; it has: text, audio, vision"):
        concept_bank.load(saved[1], ("text", "image"))


BANKS = {
    "modality": ({"features": {"image": np.ones((1, 2))}}, "concepts are of image; allowed"),
    "none": ({"features": {}}, "concepts are of no modality"),
    "others": ({"labels": {"audio": [0]}}, "features and labels of the concepts"),
    "thresholds": ({"thresholds": {"text": [0.5]}}, "1 thresholds for 3 classes"),
}


@pytest.mark.parametrize(("changes", "message"), BANKS.values(), ids=BANKS.keys())
def test_what_a_bank_cannot_be(changes, message):
    given = {
        "features": {"text": np.ones((1, 2))},
        "labels": {"text": [0]},
        "classes": {"text": THREE},
        "thresholds": {"text": [0.5] * 3},
    }
    with pytest.raises(InputError) as raised:
        ConceptBank(**(given | changes))
    assert message in str(raised.value)


# ---- guide --------------------------------------------------------------------------------------

# Which classes have concepts for a label, by hand: text knows three, audio and vision seven.
RELATED = {
    "angry": {"text": ["negative"], "audio": ["anger"], "vision": ["anger"]},
    "happy": {"text": ["positive"], "audio": ["happiness"], "vision": ["happiness"]},
    "surprise": {"text": [], "audio": ["surprise"], "vision": ["surprise"]},
    "neutral": {"text": ["neutral"], "audio": ["neutral"], "vision": ["neutral"]},
    "negative": {"text": ["negative"]}
    | {m: ["anger", "disgust", "fear", "sadness"] for m in ("audio", "vision")},
}


def test_the_pool_of_a_label_is_that_of_all_related_classes():
    bank = make_bank()
    guide = bank.guide(tuple(RELATED))
    assert guide.labels == tuple(RELATED) and guide.count == 8
    for m, arrays in guide.arrays.items():
        np.testing.assert_array_equal(arrays["features"], bank.features[m])
        assert arrays["rows"].dtype == arrays["count"].dtype == np.int32
        assert arrays["rows"].shape == (5, arrays["count"].max())
        for y, label in enumerate(RELATED):
            expected = [
                n for n, c in enumerate(bank.labels[m]) if CLASSES[m][c] in RELATED[label][m]
            ]
            assert arrays["rows"][y, : arrays["count"][y]].tolist() == expected
            assert not arrays["rows"][y, arrays["count"][y] :].any()


def test_a_label_without_a_concept_is_refused_by_name_or_left_out():
    bank = make_bank()
    with pytest.raises(InputError, match="no modality has a concept for label 'contempt'"):
        bank.guide(("happy", "contempt"))
    guide = bank.guide(("happy", "contempt"), allow_missing=("contempt",))
    concept, present = draw(guide.arrays, jnp.array([0, 1, 1, 0]), jax.random.key(0))
    assert present.tolist() == [True, False, False, True]
    assert (np.abs(concept).max(1) > 0).tolist() == present.tolist()
    # Only text, and only vision: neither has a surprise. A class without a member is not one.
    for pools in ({"text": POOLS["text"]}, {"vision": POOLS["vision"]}):
        with pytest.raises(InputError, match="for label 'surprise'") as raised:
            make_bank(pools).guide(("surprise",))
        assert "surprise," not in str(raised.value)
    with pytest.raises(InputError, match="no label has a concept"):
        bank.guide(("contempt",), allow_missing=("contempt",))


def test_what_a_guide_cannot_be():
    with pytest.raises(InputError, match="allow_missing has 'sda'; the labels are happy, sad"):
        make_bank().guide(("happy", "sad"), allow_missing=("sda",))
    with pytest.raises(InputError, match="count of drawn concepts is 0"):
        make_bank().guide(("happy",), count=0)


def test_small_pools_are_logged_one_line_each(monkeypatch):
    lines = []
    monkeypatch.setattr(logging, "info", lambda text, *values: lines.append(text % values))
    make_bank().guide(("happy", "fear", "surprise"), count=8)
    # Audio has 5 of fear and 3 of surprise; vision 1 and none; text has no surprise.
    said = [line.split(":")[0] + line.split(":")[1] for line in lines]
    assert said == [
        "concepts of text for surprise 0 members, fewer than 8",
        "concepts of audio for fear 5 members, fewer than 8",
        "concepts of audio for surprise 3 members, fewer than 8",
        "concepts of vision for fear 1 members, fewer than 8",
        "concepts of vision for surprise 0 members, fewer than 8",
    ]
    lines.clear()
    make_bank().guide(("happy", "anger"), count=4)
    assert lines == []


# ---- draw ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 3, 8])
def test_a_concept_is_the_mean_over_members_and_then_over_modalities(count):
    """The members are found with unit vectors, and the loops then average the real ones."""
    sizes = {"text": (9, 0, 2), "audio": (12, 8, 5), "vision": (30, 1, 0)}
    shown, rng = plain(sizes), np.random.default_rng(0)
    width = shown["text"]["features"].shape[1]
    members = {m: rng.standard_normal((width, 4)).astype(np.float32) for m in sizes}
    real = {m: shown[m] | {"features": members[m]} for m in sizes}
    label, key = rng.integers(0, 3, 40), jax.random.key(3)
    ours, present = draw(real, label, key, count=count)
    assert present.all() and ours.shape == (40, 4)
    drawn = {m: [] for m in sizes}
    for m in sizes:
        concept, some = draw({m: shown[m]}, label, key, count=count)
        for times, y, there in zip(counted(concept, count), label, some, strict=True):
            assert there == (sizes[m][y] > 0)
            drawn[m].append(np.repeat(np.arange(width), times))
    for n, y in enumerate(label):
        own = {}
        for m in sizes:
            if sizes[m][y]:
                own[m] = members[m][sum(sizes[m][:y]) :][: sizes[m][y]]
        numbers = {m: drawn[m][n] - sum(sizes[m][:y]) for m in own}
        np.testing.assert_allclose(ours[n], loops.concept(own, numbers), atol=1e-6)


def test_members_are_drawn_once_where_there_are_enough_and_of_the_own_pool():
    arrays = plain({"audio": (8, 20, 3, 9)})
    first = np.cumsum([0, 8, 20, 3, 9])
    label = np.tile(np.arange(4), 200)
    times = counted(draw(arrays, label, jax.random.key(0))[0], 8)
    for y in range(4):
        own = times[label == y]
        assert (own.sum(1) == 8).all()
        assert own[:, first[y] : first[y + 1]].sum() == own.sum()
        # Of a pool of exactly eight each is drawn; of a pool of three some more than once.
        assert own.max() == 1 if y != 2 else own.max() > 3


def subsets(size, count, draws, seed):
    """Returns how often each subset of a pool was drawn, and the single examples' members."""
    arrays = plain({"vision": (size,)})
    concept, _ = draw(arrays, np.zeros(draws, int), jax.random.key(seed), count=count)
    chosen = counted(concept, count)
    numbers = {s: n for n, s in enumerate(itertools.combinations(range(size), count))}
    found = [numbers[tuple(np.flatnonzero(row))] for row in chosen]
    return np.bincount(found, minlength=len(numbers)), np.array(found)


@pytest.mark.parametrize(("size", "count"), [(6, 3), (5, 4), (9, 2), (7, 1)])
def test_every_subset_is_as_likely_as_any_other(size, count):
    for seed in (0, 1):
        times, _ = subsets(size, count, 8000, seed)
        assert stats.chisquare(times).pvalue > 1e-3


def test_neighbouring_rows_and_keys_draw_independently():
    _, first = subsets(5, 2, 8001, 4)
    _, second = subsets(5, 2, 8001, 5)
    for a, b in ((first[1:], first[:-1]), (first, second)):
        table = np.zeros((10, 10))
        np.add.at(table, (a, b), 1)
        assert stats.chi2_contingency(table).pvalue > 1e-3
    keys = jax.random.split(jax.random.key(0), 4000)
    one = jax.vmap(lambda k: draw(plain({"text": (7,)}), jnp.zeros(1, int), k, count=2)[0])(keys)
    assert stats.chisquare(counted(one[:, 0], 2).sum(0), ddof=0).pvalue > 1e-3


def test_modalities_draw_independently():
    arrays = plain({"text": (5,), "audio": (5,), "vision": (5,)})
    zeros, key = np.zeros(8000, int), jax.random.key(6)
    found = [counted(draw({m: arrays[m]}, zeros, key, count=1)[0], 1).argmax(1) for m in arrays]
    for a, b in itertools.combinations(found, 2):
        table = np.zeros((5, 5))
        np.add.at(table, (a, b), 1)
        assert stats.chi2_contingency(table).pvalue > 1e-3


def test_members_of_a_large_pool_are_as_likely_each():
    size, count, draws = 10_000, 8, 5000
    arrays = plain({"text": (4,)})
    # Features of one number, the member's own: no unit vectors of 10,000.
    rows = np.arange(size, dtype=np.int32)[None]
    arrays["text"] = {"features": rows.T.astype(np.float32), "rows": rows}
    arrays["text"]["count"] = np.array([size], np.int32)
    places = jax.vmap(concept_sampling._places, (0, None, None))
    drawn = np.asarray(places(jax.random.split(jax.random.key(1), draws), size, count))
    assert all(len(set(row)) == count for row in drawn.tolist())
    assert drawn.min() >= 0 and drawn.max() < size
    assert stats.chisquare(np.bincount(drawn.ravel() // 100, minlength=100)).pvalue > 1e-3
    means = np.asarray(draw(arrays, np.zeros(draws, int), jax.random.key(2))[0])[:, 0]
    error = np.sqrt((size**2 - 1) / 12 / count * (size - count) / (size - 1))
    assert abs(means.mean() - (size - 1) / 2) < 4 * error / np.sqrt(draws)
    assert means.std() == pytest.approx(error, rel=0.05)


def test_with_replacement_members_are_as_likely_each():
    times = counted(draw(plain({"text": (5,)}), np.zeros(2000, int), jax.random.key(0))[0], 8)
    assert stats.chisquare(times.sum(0)).pvalue > 1e-3
    # The first member's times are binomial.
    expected = 2000 * stats.binom.pmf(np.arange(9), 8, 0.2)
    found = np.bincount(times[:, 0], minlength=9)
    pooled = [np.append(x[:5], x[5:].sum()) for x in (found, expected)]
    assert stats.chisquare(*pooled).pvalue > 1e-3


def test_without_generalisation_one_member_of_one_modality_is_taken():
    sizes = {"text": (3, 0), "audio": (6, 4), "vision": (6, 4)}
    arrays = plain(sizes)
    for number, m in enumerate(sizes):  # a column more says the modality
        features = arrays[m]["features"]
        arrays[m]["features"] = np.hstack([features, np.eye(3)[[number] * len(features)]])
    label = np.arange(6000) % 2
    concept, present = draw(arrays, label, jax.random.key(0), generalize=False)
    concept = np.asarray(concept)
    assert present.all() and set(np.unique(concept)) == {0.0, 1.0}
    assert (concept.sum(1) == 2).all()
    for y, chances in enumerate(([1 / 3] * 3, [0, 1 / 2, 1 / 2])):
        own = concept[label == y]
        times = own[:, -3:].sum(0)
        some = np.array(chances) > 0
        assert not times[~some].any()
        assert stats.chisquare(times[some], 3000 * np.array(chances)[some]).pvalue > 1e-3
        for number, m in enumerate(sizes):
            members = own[own[:, -3 + number] == 1][:, :-3].sum(0)
            pool = members[sum(sizes[m][:y]) :][: sizes[m][y]]
            assert pool.sum() == members.sum()
            assert not len(pool) or stats.chisquare(pool).pvalue > 1e-3


def test_labels_that_are_none_have_no_concept():
    guide = make_bank().guide(("happy", "sad"))
    label = jnp.array([0, -1, 1, 2, 100])
    for generalize in (True, False):
        concept, present = draw(guide.arrays, label, jax.random.key(0), generalize=generalize)
        assert present.tolist() == [True, False, True, False, False]
        assert not np.asarray(concept)[[1, 3, 4]].any()


def test_a_modality_draws_the_same_without_the_others():
    bank = make_bank()
    label, key = jnp.arange(6) % 2, jax.random.key(5)
    each = [draw({m: a}, label, key)[0] for m, a in bank.guide(("angry", "happy")).arrays.items()]
    both = draw(bank.guide(("angry", "happy")).arrays, label, key)[0]
    np.testing.assert_allclose(both, np.mean(each, 0), atol=1e-6)


@pytest.mark.parametrize("generalize", [True, False])
def test_draws_are_the_same_jitted_scanned_and_mapped(generalize):
    arrays = make_bank().guide(RELATED).arrays
    label = jnp.array([[0, 1, 2, 3], [4, 4, 0, 1], [2, -1, 3, 3]])
    keys = jax.random.split(jax.random.key(0), 3)
    one = lambda label, key: concept_bank.draw(arrays, label, key, generalize=generalize)  # noqa: E731
    alone = quick(one)
    expected = [alone(y, k) for y, k in zip(label, keys, strict=True)]
    expected = jax.tree.map(lambda *leaves: np.stack(leaves), *expected)
    assert np.abs(expected[0][0] - expected[0][1]).max() > 0
    mapped = quick(jax.vmap(one))(label, keys)
    scanned = quick(lambda xs: lax.scan(lambda s, x: (s, one(*x)), 0, xs)[1])((label, keys))
    chex.assert_trees_all_close(mapped, expected, atol=1e-6)
    chex.assert_trees_all_close(scanned, expected, atol=1e-6)


@pytest.mark.parametrize("generalize", [True, False])
@pytest.mark.parametrize("parts", [2, 4])
def test_a_split_batch_draws_what_the_whole_would(parts, generalize):
    """vmap with an axis name stands for devices."""
    arrays = make_bank().guide(RELATED).arrays
    label, key = jnp.arange(8) % 5, jax.random.key(1)
    part = lambda y: concept_bank.draw(arrays, y, key, 8, "batch", generalize)  # noqa: E731
    concept, present = quick(jax.vmap(part, axis_name="batch"))(label.reshape(parts, -1))
    whole = draw(arrays, label, key, generalize=generalize)
    np.testing.assert_allclose(concept.reshape(8, -1), whole[0], atol=1e-6)
    np.testing.assert_array_equal(present.reshape(8), whole[1])


# ---- guidance -----------------------------------------------------------------------------------


def guided(seed=0):
    """Returns features, concepts, whether they are present, and weights, of 12 examples."""
    rng = np.random.default_rng(seed)
    feature, concept = rng.standard_normal((2, 12, 5)).astype(np.float32)
    present = rng.random(12) < 0.7
    weight = rng.choice([0.0, 1.0, 0.5], 12, p=[0.3, 0.5, 0.2]).astype(np.float32)
    assert 2 < ((weight > 0) & present).sum() < 10
    return feature, np.where(present[:, None], concept, 0), present, weight


@pytest.mark.parametrize("reduce", ["mean", "sum"])
def test_guidance_is_the_loop(reduce):
    feature, concept, present, weight = guided()
    for some, w in ((present, weight), (present, None), (None, weight), (None, None)):
        ours = concept_bank.guidance(feature, concept, some, w, reduce=reduce)
        ones = np.ones(12) if w is None else w
        expected = loops.guidance(feature, concept, present, ones, reduce)
        np.testing.assert_allclose(ours, expected, rtol=1e-5)


def test_guidance_by_hand():
    feature, concept = np.array([[1.0, 2], [3, 3]]), np.array([[0.0, 4], [3, 2]])
    np.testing.assert_allclose(concept_bank.guidance(feature, concept), (5 / 2 + 1 / 2) / 2)
    np.testing.assert_allclose(concept_bank.guidance(feature, concept, reduce="sum"), (5 + 1) / 2)
    with pytest.raises(ValueError, match="reduce is 'max'; allowed: mean, sum"):
        concept_bank.guidance(feature, concept, reduce="max")


def test_guidance_of_rows_that_do_not_count_may_be_anything():
    feature, concept, present, weight = guided(1)
    out = ~present | (weight == 0)
    expected = jax.value_and_grad(concept_bank.guidance)(feature, concept, present, weight)
    assert not np.asarray(expected[1])[out].any() and np.asarray(expected[1])[~out].all()
    for junk in (np.nan, np.inf):
        spoilt = np.where(out[:, None], np.float32(junk), feature)
        ours = jax.value_and_grad(concept_bank.guidance)(spoilt, concept, present, weight)
        chex.assert_trees_all_close(ours, expected)


def test_guidance_without_any_concept_is_zero():
    x = np.ones((3, 2), np.float32)
    loss, gradient = jax.value_and_grad(concept_bank.guidance)(x, 0 * x)
    assert loss == 0 and not gradient.any()


@pytest.mark.parametrize("parts", [2, 3, 4])
def test_guidance_of_any_split_is_the_whole(parts):
    given = guided(2)
    value = jax.value_and_grad(lambda s, f, *rest: concept_bank.guidance(s * f, *rest))
    split = [x.reshape(parts, -1, *x.shape[1:]) for x in given]
    mapped = jax.vmap(lambda *x: value(2.0, *x, "batch"), axis_name="batch")(*split)
    ours = jax.tree.map(lambda x: x.mean(), mapped)
    chex.assert_trees_all_close(ours, value(2.0, *given), rtol=1e-5)


# ---- as it is used ------------------------------------------------------------------------------


def test_a_user_guides_a_model_with_a_loaded_bank(saved):
    guide = concept_bank.load(saved[1]).guide(("angry", "happy", "sad"))
    label = jnp.array([0, 1, 2, 2, 1, 0])

    def loss(feature, guide, key):
        return 0.5 * concept_bank.guidance(feature, guide(key, label))

    key, rate = jax.random.key(0), 3.0
    feature = jnp.zeros((6, 5))
    concept = quick(guide.__call__)(key, label)
    expected, _ = draw(guide.arrays, label, key, count=8)
    np.testing.assert_allclose(concept, expected, atol=1e-6)
    values, both = [], quick(jax.value_and_grad(loss))
    for _ in range(60):  # 0.5 * mean of squares of 30: a step takes a tenth of the way
        value, slope = both(feature, guide, key)
        feature, values = feature - rate * slope, [*values, float(value)]
    np.testing.assert_allclose(feature, concept, atol=1e-2)
    assert values[-1] < 1e-4 * values[0]
    assert jax.tree.structure(guide) == jax.tree.structure(jax.tree.map(lambda x: x + 1, guide))


def total(w, batch, arrays, key, axis_name=None):
    """Returns the guidance of a linear map, over all devices, and its gradient."""

    def loss(w):
        x, label, weight = batch
        concept, present = concept_bank.draw(arrays, label, key, 8, axis_name)
        return concept_bank.guidance(x @ w, concept, present, weight, axis_name)

    out = jax.value_and_grad(loss)(w)
    return out if axis_name is None else lax.pmean(out, axis_name)


def guided_batch():
    """Returns a linear map and 12 examples; of four parts the last is padding alone."""
    rng = np.random.default_rng(3)
    x, w = rng.standard_normal((12, 4)), rng.standard_normal((4, 5))
    label = (np.arange(12) % 5).astype(np.int32)
    return w.astype(np.float32), (x.astype(np.float32), label, np.float32(np.arange(12) < 8))


def on_four(out):
    """Writes what one device and four find, by both engines."""
    w, given = guided_batch()
    assert len(jax.devices()) == 4
    arrays, key = make_bank().guide(RELATED).arrays, jax.random.key_data(jax.random.key(7))
    found = {}
    for kind in ("pmap", "shard_map"):
        for count in (1, 4):
            engine = Engine(kind, jax.devices()[:count])
            run = engine.compile(lambda *x: total(*x, AXIS), (None, 0, None, None))
            placed = [engine.replicate(x) for x in (arrays, key)]
            result = engine.fetch(run(engine.replicate(w), engine.shard(given, 0), *placed))
            found[f"{kind}-{count}"] = jax.tree.map(lambda x: np.asarray(x).tolist(), result)
    with open(out, "w") as file:
        json.dump(found, file)


def test_four_devices_draw_and_are_guided_as_one(start, tmp_path):
    out = tmp_path / "found.json"
    code, _, said = start(on_four, str(out), XLA_FLAGS=f"{FOUR} {QUICK}").wait()
    assert code == 0, said
    w, given = guided_batch()
    value, slope = quick(total)(w, given, make_bank().guide(RELATED).arrays, jax.random.key(7))
    assert value > 0.1 and np.abs(slope).max() > 0.1
    found = json.loads(out.read_text())
    assert len(found) == 4
    for name, ours in found.items():
        np.testing.assert_allclose(ours[0], value, rtol=1e-5, err_msg=name)
        np.testing.assert_allclose(ours[1], slope, atol=1e-6, rtol=1e-5, err_msg=name)
