"""Evaluation of what is there: the same numbers as the training's own, and the tables of them."""

import csv
import json
import shutil

import numpy as np
import pytest
from conftest import CLASSES, DIMS, SIZES, toy_config, write_own
from scipy import stats

from affectjax.errors import InputError
from affectjax.reports import run_report
from affectjax.training import evaluator, loop


@pytest.fixture
def run(finished, tmp_path):
    """A copy of a finished workdir without its evaluations."""
    workdir = tmp_path / "run"
    shutil.copytree(finished, workdir)
    shutil.rmtree(workdir / "eval")
    return workdir


def read(workdir, name):
    return (workdir / "eval" / name).read_text()


@pytest.mark.parametrize("split", ["valid", "test"])
def test_a_split_again_is_as_the_training_left_it(run, finished, split):
    result = evaluator.evaluate(run, {"data.split": split})
    for name in (f"{split}.json", f"{split}.csv"):
        assert read(run, name) == read(finished, name)
    assert result == json.loads(read(finished, f"{split}.json"))
    assert (run / "eval" / "missing.json").exists() is (split == "test")


def test_without_a_word_it_is_the_test_split(run, finished):
    evaluator.evaluate(run)
    assert {f.name for f in (run / "eval").iterdir()} == {"test.json", "test.csv", "missing.json"}
    assert read(run, "missing.json") == read(finished, "missing.json")


def test_the_training_split_and_other_devices_settings(run):
    overrides = {"data.split": "train", "data.resident_mib": 0.0, "parallel.engine": "shard_map"}
    result = evaluator.evaluate(run, overrides)
    with (run / "eval" / "train.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == SIZES["train"]
    true = [float(row[row["label"]]) for row in rows]
    assert result["loss"] == pytest.approx(-np.log(true).mean(), rel=1e-4)
    other = evaluator.evaluate(run, {"data.split": "train"})
    numbers = lambda found: {k: v for k, v in found.items() if isinstance(v, float)}  # noqa: E731
    assert numbers(other) == pytest.approx(numbers(result), abs=1e-5)


def test_evaluation_changes_nothing_but_eval(run):
    before = {f: f.stat().st_mtime_ns for f in run.rglob("*") if f.is_file()}
    evaluator.evaluate(run, {"data.split": "valid"})
    after = {f: f.stat().st_mtime_ns for f in run.rglob("*") if "eval" not in f.parts}
    assert {f: t for f, t in after.items() if f.is_file()} == before


REFUSED = {
    "model": ({"model.hidden": 16}, '"config.model.hidden" is 8 in the run; an evaluation cannot'),
    "seeds": ({"seeds": (1, 2)}, r'"config.seeds" is \[\] in the run'),
    "unknown key": ({"data.split_": "test"}, r'"config.data.split_"; did you mean'),
    "unknown section": ({"modle.hidden": 8}, "config.modle"),
    "split": ({"data.split": "dev"}, "split is 'dev'; allowed: train, valid, test"),
}


@pytest.mark.parametrize(("overrides", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_an_evaluation_cannot_change(run, overrides, message):
    with pytest.raises(InputError, match=message):
        evaluator.evaluate(run, overrides)
    assert not (run / "eval").exists()


def test_what_is_repeated_may_be_said(run):
    evaluator.evaluate(run, {"model.hidden": 8, "seeds": [], "data.split": "valid"})


def test_nothing_trained_yet(run, tmp_path):
    with pytest.raises(InputError, match="is no workdir"):
        evaluator.evaluate(tmp_path / "nothing")
    shutil.rmtree(run / "checkpoints")
    before = sorted(run.rglob("*"))
    with pytest.raises(InputError, match="has no trained model"):
        evaluator.evaluate(run)
    assert sorted(f for f in run.rglob("*") if "checkpoints" not in f.parts) == before


@pytest.mark.parametrize("shown", [("text",), ("audio", "vision")], ids="+".join)
def test_missing_json_is_what_data_without_the_others_gives(run, finished, tmp_path, shown):
    raw = write_own(tmp_path / "raw")
    with np.load(raw / "features.npz") as arrays:
        changed = dict(arrays)
    test = slice(SIZES["train"] + SIZES["valid"], None)
    for m in set(DIMS) - set(shown):
        changed[f"{m}_lengths"][test] = 0
    np.savez(raw / "features.npz", **changed)
    result = evaluator.evaluate(run, {"data.dir": str(raw)})
    expected = json.loads(read(finished, "missing.json"))["subsets"]["+".join(shown)]
    assert result.pop("confusion") == expected.pop("confusion")
    del result["interval"]
    assert result == pytest.approx(expected, abs=1e-6, nan_ok=True)


def test_one_modality_has_no_missing_json(tmp_path):
    raw = write_own(tmp_path / "raw", modalities=("text",))
    loop.train(toy_config(raw, stages__train__epochs=1), tmp_path / "run")
    assert not (tmp_path / "run" / "eval" / "missing.json").exists()


def test_summaries():
    one, two = {"war": 0.25, "confusion": [[1]]}, {"war": 0.75, "confusion": [[2]]}
    assert evaluator.combine_seeds([one], (7,)) == one
    result = evaluator.combine_seeds([one, two], (7, 1))
    # Deviation of 0.25 and 0.75 with n - 1: sqrt(2 * 0.25**2).
    assert result == {
        "mean": {"war": 0.5},
        "std": {"war": pytest.approx(np.sqrt(0.125))},
        "per_seed": {"7": one, "1": two},
    }


# ---- the report ---------------------------------------------------------------------------------


def pretend(folder, per_seed, seed=0):
    """Writes what a finished run has: config.json and eval/test.json."""
    (folder / "eval").mkdir(parents=True)
    seeds = list(per_seed) if len(per_seed) > 1 else []
    config = {"seed": seed, "seeds": [int(s) for s in seeds]}
    (folder / "config.json").write_text(json.dumps({"config": config}))
    result = {"mean": {}, "std": {}, "per_seed": per_seed} if seeds else per_seed[str(seed)]
    (folder / "eval" / "test.json").write_text(json.dumps(result))
    return folder


OURS = {"0": 0.61, "1": 0.64, "2": 0.60, "3": 0.69}
THEIRS = {"3": 0.60, "1": 0.61, "0": 0.60, "9": 0.10}


def cells(table, metric):
    """Returns the cells of a row of a Markdown table."""
    row = next(line for line in table.splitlines() if line.startswith(f"| {metric} "))
    return [cell.strip() for cell in row.strip("|").split("|")]


def test_table_has_mean_and_deviation(tmp_path):
    per_seed = {s: {"war": v, "corr": None, "confusion": [[1]]} for s, v in OURS.items()}
    table = run_report.table(pretend(tmp_path / "a", per_seed))
    values = list(OURS.values())
    expected = ["war", f"{np.mean(values):.4f}", f"{np.std(values, ddof=1):.4f}"]
    assert cells(table, "war") == expected
    assert cells(table, "corr") == ["corr", "-", "-"]
    assert "confusion" not in table and "seeds 0, 1, 2, 3" in table


def test_table_of_one_seed_has_no_deviation(tmp_path):
    table = run_report.table(pretend(tmp_path / "a", {"5": {"war": 0.5, "n": 1.0}}, seed=5))
    assert cells(table, "war") == ["war", "0.5000", "-"] and "seeds 5" in table


def test_a_single_seed_of_several_is_named(tmp_path):
    folder = pretend(tmp_path / "a", {"0": {"war": 0.5}})
    (folder / "config.json").write_text(json.dumps({"config": {"seed": 0, "seeds": [5]}}))
    assert list(run_report.read(folder, "test")[1]) == ["5"]


def test_comparison_is_a_paired_t_test_over_the_seeds_of_both(tmp_path):
    a = pretend(tmp_path / "a", {s: {"war": v, "x": 1.0} for s, v in OURS.items()})
    b = pretend(tmp_path / "b", {s: {"war": v, "y": 1.0} for s, v in THEIRS.items()})
    table = run_report.comparison(a, b)
    both = ("0", "1", "3")
    ours, theirs = ([run[s] for s in both] for run in (OURS, THEIRS))
    t, p = stats.ttest_rel(ours, theirs)
    assert cells(table, "war")[3:] == [f"{t:.4f}", f"{p:.4f}"]
    assert cells(table, "war")[1].startswith(f"{np.mean(ours):.4f}")
    assert cells(table, "war")[2].endswith(f"{np.std(theirs, ddof=1):.4f}")
    assert "| x " not in table and "| y " not in table


def test_comparison_needs_two_common_seeds(tmp_path):
    a = pretend(tmp_path / "a", {s: {"war": v} for s, v in OURS.items()})
    b = pretend(tmp_path / "b", {"9": {"war": 1.0}, "0": {"war": 0.5}})
    with pytest.raises(InputError, match="needs two seeds or folds that both have"):
        run_report.comparison(a, b)


def test_report_of_nothing(tmp_path, finished):
    with pytest.raises(InputError, match=r"test\.json is not there: is the run finished\?"):
        run_report.table(tmp_path)
    with pytest.raises(InputError, match=r"dev\.json is not there"):
        run_report.table(finished, "dev")


def test_report_of_a_real_run(finished):
    table = run_report.table(finished, "valid")
    result = json.loads(read(finished, "valid.json"))
    for name in ("loss", "war", *(f"recall/{c}" for c in CLASSES)):
        assert cells(table, name)[1] == f"{result[name]:.4f}"
