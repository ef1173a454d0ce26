"""The missing-modality protocol against a loop, its rates, and what it must not depend on."""

import itertools
import json
import logging

import numpy as np
import pytest

from affectjax.data.batches import missing
from affectjax.errors import InputError
from affectjax.modalities import MODALITIES

N = 4000
ALL = ("random", "text", "audio", "vision", "text+audio", "text+vision", "audio+vision")
ALL = (*ALL, "text+audio+vision")


def some_present(count=N, seed=0):
    """Returns `[N, 3]`: every combination of modalities, none at all among them."""
    return np.random.default_rng(seed).random((count, 3)) < 0.7


def draw_loop(present, pattern, rate, seed):
    """Returns the draw an example at a time, from the protocol's words."""
    generator = np.random.Generator(np.random.Philox(seed))
    rows = []
    for row in present:
        choice, which = generator.random(), generator.random()
        has = [m for m, there in zip(MODALITIES, row, strict=True) if there]
        keep = has
        if choice < rate and pattern == "random" and len(has) > 1:
            # Losses in the order of binary numbers, the first modality being the lowest bit.
            losses = [
                {m for m, lost in zip(has, bits[::-1], strict=True) if lost}
                for bits in itertools.product((0, 1), repeat=len(has))
            ][1:-1]
            keep = [m for m in has if m not in losses[int(which * len(losses))]]
        if choice < rate and pattern != "random":
            keep = [m for m in has if m in pattern.split("+")] or has
        rows.append([m in keep for m in MODALITIES])
    return np.array(rows)


def test_subsets_and_patterns_small_first_in_house_order():
    assert missing.patterns(MODALITIES) == list(ALL[1:])
    assert missing.subsets(("text", "vision")) == [("text",), ("vision",), ("text", "vision")]


@pytest.mark.parametrize("pattern", ALL)
@pytest.mark.parametrize("rate", (0.0, 0.3, 1.0))
def test_draw_equals_loop(pattern, rate):
    present = some_present(500)
    ours = missing.draw(present, pattern, rate, seed=7)
    assert ours.shape == present.shape and ours.dtype == bool
    np.testing.assert_array_equal(ours, draw_loop(present, pattern, rate, 7))


@pytest.mark.parametrize("pattern", ALL)
@pytest.mark.parametrize("seed", (0, 1, 42))
def test_no_example_is_emptied_and_none_gains(pattern, seed):
    present = some_present()
    kept = missing.draw(present, pattern, 1.0, seed)
    assert not np.any(kept & ~present)
    np.testing.assert_array_equal(kept.any(axis=1), present.any(axis=1))


@pytest.mark.parametrize("rate", (0.1, 0.5, 0.9))
@pytest.mark.parametrize("pattern", ("random", "vision", "text+audio"))
def test_the_rate_is_the_share_that_loses_something(pattern, rate):
    kept = missing.draw(np.ones((N, 3), bool), pattern, rate, seed=3)
    lost = ~kept.all(axis=1)
    assert abs(lost.mean() - rate) < 4 * np.sqrt(rate * (1 - rate) / N)


def test_random_losses_are_alike_likely_and_proper():
    for columns, losses in (((0, 1, 2), 6), ((0, 2), 2)):
        present = np.zeros((N, 3), bool)
        present[:, columns] = True
        kept = missing.draw(present, "random", 1.0, seed=5)
        rows, counts = np.unique(kept, axis=0, return_counts=True)
        assert len(rows) == losses
        assert all(0 < row.sum() < len(columns) for row in rows)
        share = 1 / losses
        assert np.all(np.abs(counts / N - share) < 4 * np.sqrt(share * (1 - share) / N))


def test_a_single_modality_is_never_lost():
    present = np.eye(3, dtype=bool)[np.arange(90) % 3]
    np.testing.assert_array_equal(missing.draw(present, "random", 1.0, 0), present)


def test_an_example_without_what_is_shown_stays_and_is_counted(caplog):
    present = np.array([[1, 1, 0], [1, 0, 0], [0, 1, 1], [0, 0, 0]], bool)
    with caplog.at_level(logging.INFO, logger="absl"):
        kept = missing.draw(present, "vision", 1.0, 0)
    np.testing.assert_array_equal(kept, [[1, 1, 0], [1, 0, 0], [0, 0, 1], [0, 0, 0]])
    assert "pattern vision: 3 of 4 chosen examples would keep nothing" in caplog.text


def test_a_draw_depends_on_seed_and_place_alone():
    present = some_present()
    kept = missing.draw(present, "random", 0.6, seed=11)
    np.testing.assert_array_equal(missing.draw(present, "random", 0.6, seed=11), kept)
    assert np.any(missing.draw(present, "random", 0.6, seed=12) != kept)
    # How many examples follow, and what the others have, does not matter.
    np.testing.assert_array_equal(missing.draw(present[:100], "random", 0.6, 11), kept[:100])
    others = some_present(seed=1)
    others[17] = present[17]
    np.testing.assert_array_equal(missing.draw(others, "random", 0.6, 11)[17], kept[17])
    # Nor does the random state of the process.
    np.random.seed(0)
    before = np.random.get_state()[1].copy()
    np.testing.assert_array_equal(missing.draw(present, "random", 0.6, 11), kept)
    np.testing.assert_array_equal(np.random.get_state()[1], before)


def test_what_is_lost_at_one_rate_is_lost_at_every_higher_one():
    present = some_present()
    draws = [missing.draw(present, "random", rate, 2) for rate in (0.2, 0.5, 0.8)]
    for low, high in itertools.pairwise(draws):
        assert not np.any(high & ~low) and np.any(low & ~high)


def test_two_modalities_by_name():
    present = np.ones((50, 2), bool)
    kept = missing.draw(present, "vision", 1.0, 0, ("text", "vision"))
    np.testing.assert_array_equal(kept, [[False, True]] * 50)
    with pytest.raises(InputError, match=r"'audio' is unknown; allowed: random, text, vision, tex"):
        missing.draw(present, "audio", 1.0, 0, ("text", "vision"))


@pytest.mark.parametrize("pattern", ("video", "", "vision+text", "text+text", "Random", "text+"))
def test_unknown_patterns_are_refused_with_the_list(pattern):
    with pytest.raises(InputError) as refused:
        missing.check(pattern, MODALITIES)
    assert repr(pattern) in str(refused.value)
    assert str(refused.value).endswith(f"allowed: {', '.join(ALL)}")


@pytest.mark.parametrize(
    ("rate", "seed", "words"),
    [
        (-0.1, 0, "rate is -0.1; allowed: from 0 to 1"),
        (1.5, 0, "rate is 1.5"),
        (float("nan"), 0, "rate is nan"),
        (0.5, -1, "seed is -1; allowed: from 0 up"),
    ],
)
def test_rates_and_seeds_out_of_range_are_refused(rate, seed, words):
    with pytest.raises(InputError, match=words):
        missing.draw(some_present(3), "random", rate, seed)


def test_save_and_load(tmp_path):
    path, ids = tmp_path / "draws" / "test.json", ["b[1.5-3]", "a", "été"]
    kept = np.array([[1, 0, 1], [0, 1, 0], [0, 0, 0]], bool)
    missing.save(path, ids, MODALITIES, kept)
    assert json.loads(path.read_text()) == {
        "modalities": ["text", "audio", "vision"],
        "kept": {"b[1.5-3]": "101", "a": "010", "été": "000"},
    }
    found_ids, modalities, found = missing.load(path)
    assert found_ids == tuple(ids) and modalities == MODALITIES
    assert found.dtype == bool
    np.testing.assert_array_equal(found, kept)


def test_save_and_load_no_example(tmp_path):
    missing.save(tmp_path / "a.json", [], ("text", "vision"), np.zeros((0, 2), bool))
    assert missing.load(tmp_path / "a.json")[2].shape == (0, 2)


def test_an_id_that_stands_twice_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"a\.json: example 'y' stands twice"):
        missing.save(tmp_path / "a.json", ["x", "y", "y"], ("text",), np.ones((3, 1), bool))
    assert not (tmp_path / "a.json").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "holds no draw"),
        ("{", "holds no draw"),
        ("[]", "holds no draw"),
        ('{"modalities": ["text"]}', "holds no draw.*kept"),
        ('{"modalities": ["text", "video"], "kept": {}}', "modality 'video' is unknown"),
        ('{"modalities": ["text", "audio"], "kept": {"x": "1"}}', "'x' has '1'; allowed: 2 bits"),
        ('{"modalities": ["text", "audio"], "kept": {"x": "12"}}', "'x' has '12'"),
        ('{"modalities": ["text", "audio"], "kept": {"x": 11}}', "'x' has 11"),
    ],
)
def test_damaged_files_are_refused_by_name(tmp_path, content, words):
    path = tmp_path / "kept.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=rf"kept\.json.*{words}"):
        missing.load(path)
