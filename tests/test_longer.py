"""A run whose last stage is given more epochs goes on from its end; nothing else may change."""

import json

import pytest
from conftest import assert_same_run, lines_of, stop_at, toy_config, two_stages

from affectjax.errors import InputError
from affectjax.runtime.workdir import Workdir
from affectjax.training import loop


@pytest.mark.parametrize("size", [8, 29], ids=["four steps an epoch", "one"])
def test_a_longer_run_is_as_if_it_had_always_been_so(size, own, tmp_path):
    how = {"stages__train__batch_size": size, "seeds": (0, 3), "stages__train__patience": 9}
    for epochs in (2, 4):
        config = toy_config(own, stages__train__epochs=epochs, **how)
        loop.train(config, tmp_path / "twice")
    loop.train(config, tmp_path / "once")
    assert_same_run(tmp_path / "once", tmp_path / "twice")
    assert Workdir(tmp_path / "twice").config() == Workdir(tmp_path / "once").config()
    before = (tmp_path / "twice" / "eval" / "test.json").stat().st_mtime_ns
    loop.train(config, tmp_path / "twice")  # finished again
    assert (tmp_path / "twice" / "eval" / "test.json").stat().st_mtime_ns == before


def rates(workdir):
    train = [line for line in lines_of(workdir) if line["split"] == "train"]
    return [line["learning_rate"] for line in train]


def test_a_cosine_is_drawn_over_the_new_length_from_there_on(own, tmp_path):
    for name, lengths in {"whole": (6,), "parts": (3, 6)}.items():
        for epochs in lengths:
            config = toy_config(own, stages__train__epochs=epochs, optim__schedule="cosine")
            loop.train(config, tmp_path / name)
    whole, parts = rates(tmp_path / "whole"), rates(tmp_path / "parts")
    assert parts[3:] == whole[3:] and parts[2] < 0.1 * whole[2]


def test_a_longer_run_that_is_stopped_goes_on(own, tmp_path):
    loop.train(two_stages(own), tmp_path / "parts")
    longer = two_stages(own)
    longer.stages.second.epochs += 2
    stop_at(longer, tmp_path / "parts", 1)
    loop.train(longer, tmp_path / "parts")
    loop.train(longer, tmp_path / "whole")
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def test_a_run_that_stopped_by_its_rule_stays_as_it_is(own, tmp_path):
    how = {"optim__learning_rate": 0.5, "stages__train__patience": 1}
    loop.train(toy_config(own, stages__train__epochs=20, **how), tmp_path)
    lines = lines_of(tmp_path)
    assert lines[-1]["epoch"] < 19
    loop.train(toy_config(own, stages__train__epochs=30, **how), tmp_path)
    assert lines_of(tmp_path) == lines


@pytest.mark.parametrize(
    "changes",
    [
        {"stages__second__epochs": 2},
        {"stages__first__epochs": 9},
        {"stages__second__epochs": 9, "stages__second__batch_size": 4},
        {"stages__second__epochs": 9, "optim__learning_rate": 0.5},
    ],
    ids=["shorter", "an earlier stage", "batches", "rate"],
)
def test_other_changes_are_refused(changes, own, tmp_path):
    Workdir(tmp_path).claim(two_stages(own))
    other = two_stages(own)
    for key, value in changes.items():
        *sections, last = key.split("__")
        part = other
        for name in sections:
            part = part[name]
        part[last] = value
    before = (tmp_path / "config.json").read_bytes()
    with pytest.raises(InputError, match="belongs to a run with another config"):
        Workdir(tmp_path).claim(other, ["second"])
    assert (tmp_path / "config.json").read_bytes() == before


@pytest.mark.slow
def test_folds_go_on_too(own, tmp_path):
    for epochs in (1, 2):
        config = toy_config(own, data__kfold=3, stages__train__epochs=epochs)
        result = loop.train(config, tmp_path / "parts")
    assert result == loop.train(config, tmp_path / "whole")
    said = json.loads((tmp_path / "parts" / "config.json").read_text())["config"]
    assert said["stages"]["train"]["epochs"] == 2
