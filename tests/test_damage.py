"""A finished run with a damaged file says which and what to do; its command writes it again."""

import json
import shutil

import numpy as np
import pytest
from absl import logging
from conftest import assert_same_run, newest, results_of, stop_at, toy_config

from affectjax.data.prepare import prepared
from affectjax.errors import InputError
from affectjax.training import evaluator, loop


@pytest.fixture
def run(finished, tmp_path):
    """A copy of a finished run."""
    return shutil.copytree(finished, tmp_path / "run")


def reorder(file):
    said = json.loads(file.read_text())
    said["labels"]["classes"].reverse()
    file.write_text(json.dumps(said))


def spoil_best(folder):
    file = max((f for f in (newest(folder) / "tree").rglob("*") if f.is_file()), key=size)
    file.write_bytes(file.read_bytes()[:-7] + b"damaged")


def size(file):
    return file.stat().st_size


DAMAGE = {
    "standardization.npz": lambda file: np.savez(file),
    "inputs.json": reorder,
    "checkpoints/best": spoil_best,
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_file_is_named_and_written_again(name, run, finished, own):
    DAMAGE[name](run / name)
    with pytest.raises(InputError, match=f"{name} is damaged.*the command of the training again"):
        evaluator.evaluate(run)
    loop.train(toy_config(own), run)
    assert_same_run(run, finished)
    assert evaluator.evaluate(run) == evaluator.evaluate(finished)


@pytest.mark.parametrize("name", ["test.json", "valid.json"])
@pytest.mark.parametrize("content", [None, "", '{"war": 0.'], ids=["missing", "empty", "cut"])
def test_results_are_written_again(name, content, run, finished, own):
    file = run / "eval" / name
    file.unlink() if content is None else file.write_text(content)
    result = loop.train(toy_config(own), run)
    assert result == json.loads((finished / "eval" / "test.json").read_text())
    assert_same_run(run, finished)


def test_metrics_of_a_stopped_run(own, finished, tmp_path):
    stop_at(toy_config(own), tmp_path, 2)
    file = tmp_path / "metrics.jsonl"
    whole = file.read_bytes()
    file.write_bytes(bytes(len(whole)))
    with pytest.raises(InputError, match=r"metrics\.jsonl is damaged"):
        loop.train(toy_config(own), tmp_path)
    file.unlink()
    loop.train(toy_config(own), tmp_path)
    assert whole + file.read_bytes() == (finished / "metrics.jsonl").read_bytes()
    assert results_of(tmp_path)[0]["best"] == results_of(finished)[0]["best"]


def test_a_damaged_cache_is_made_anew(own, finished, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(logging, "warning", lambda text, *values: said.append(text % values))
    config = toy_config(own, data__cache_dir=str(tmp_path / "cache"))
    (folder,) = {loop.train(config, tmp_path / "a")["war"]} and list(
        tmp_path.glob("cache/*/own/*/*")
    )
    examples = folder / "examples.json"
    content = examples.read_text()
    rows = json.loads(content)
    rows["test"]["label"].reverse()
    examples.write_text(json.dumps(rows))
    with pytest.raises(InputError, match=r"examples\.json is damaged: .* prepare the data set"):
        prepared.open_prepared(folder)
    evaluator.evaluate(tmp_path / "a")
    assert [line for line in said if "prepared anew" in line and str(examples) in line]
    assert examples.read_text() == content
    assert not list(tmp_path.glob("cache/*/.unfinished*"))
