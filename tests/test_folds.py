"""Folds: what the run of each fold leaves, their results together, and going on after a stop."""

import csv
import json
import math
import statistics

import numpy as np
import pytest
from conftest import CLASSES, SIZES, lines_of, toy_config, write_own
from scipy import stats

from affectjax.data.prepare.prepared import Prepared
from affectjax.errors import InputError
from affectjax.reports import run_report
from affectjax.training import evaluator, folds, loop

NAMES = ("1", "2")


def write_fold(workdir, name, files):
    """Writes the files of eval/ of a fold: JSON from objects, csv from rows."""
    folder = workdir / "folds" / name / "eval"
    folder.mkdir(parents=True)
    for file, content in files.items():
        if file.endswith(".json"):
            (folder / file).write_text(json.dumps(content))
        else:
            with (folder / file).open("w", newline="") as opened:
                csv.writer(opened).writerows(content)


def read(workdir, file):
    text = (workdir / "eval" / file).read_text()
    return json.loads(text) if file.endswith(".json") else list(csv.reader(text.splitlines()))


# ---- results together ---------------------------------------------------------------------------


def test_mean_and_deviation_over_folds_by_hand():
    own = {
        "1": {"war": 0.5, "confusion": [[1]]}, "2": {"war": 0.7, "confusion": [[2]]},
        "3": {"war": 0.9, "confusion": [[3]]},
    }  # fmt: skip
    found = folds.combine_folds(own)
    assert found["mean"] == {"war": pytest.approx(0.7)}
    assert found["std"] == {"war": pytest.approx(statistics.stdev([0.5, 0.7, 0.9]))}
    assert found["per_fold"] == own


def test_of_several_seeds_a_fold_counts_with_their_mean():
    seeds = lambda war: {"mean": {"war": war}, "std": {"war": 0.1}, "per_seed": {"0": {}}}  # noqa: E731
    found = folds.combine_folds({"1": seeds(0.4), "2": seeds(0.8)})
    assert found["mean"] == {"war": pytest.approx(0.6)}
    assert {name: own["war"] for name, own in found["per_fold"].items()} == {"1": 0.4, "2": 0.8}


@pytest.mark.parametrize("without", NAMES)
def test_a_metric_that_one_fold_lacks_is_null_together(tmp_path, without):
    """A class that a fold's test split does not have has no recall there."""
    for name in NAMES:
        recall = None if name == without else 0.5
        write_fold(tmp_path, name, {"test.json": {"war": 0.25, "recall/sad": recall}})
    folds.write_combined(tmp_path, NAMES)
    found = read(tmp_path, "test.json")
    assert found["mean"] == {"war": 0.25, "recall/sad": None}
    assert found["std"] == {"war": 0.0, "recall/sad": None}
    assert found["per_fold"][without]["recall/sad"] is None


def test_files_of_folds_become_one(tmp_path):
    def subsets(war):
        return {"split": "test", "subsets": {"text": {"war": war}, "audio": {"war": 1.0}}}

    head = ["id", "label", "prediction", "sad, very"]
    for name, war, ids in (("1", 0.25, ("a", "b")), ("2", 0.75, ("c, d",))):
        rows = [head, *([i, "sad, very", "glad", "0.5"] for i in ids)]
        files = {"test.json": {"war": war}, "valid.json": {"war": 0.5}}
        write_fold(tmp_path, name, files | {"missing.json": subsets(war), "test.csv": rows})
    folds.write_combined(tmp_path, NAMES)
    assert {f.name for f in (tmp_path / "eval").iterdir()} == {
        "test.json", "valid.json", "missing.json", "test.csv",
    }  # fmt: skip
    assert read(tmp_path, "test.json")["mean"] == {"war": 0.5}
    assert read(tmp_path, "valid.json")["std"] == {"war": 0.0}
    missing = read(tmp_path, "missing.json")
    assert missing["split"] == "test" and list(missing["subsets"]) == ["text", "audio"]
    assert missing["subsets"]["text"]["mean"] == {"war": 0.5}
    assert missing["subsets"]["text"]["per_fold"] == {"1": {"war": 0.25}, "2": {"war": 0.75}}
    assert missing["subsets"]["audio"]["mean"] == {"war": 1.0}
    table = read(tmp_path, "test.csv")
    assert table[0] == head and [row[0] for row in table[1:]] == ["a", "b", "c, d"]


# ---- running them -------------------------------------------------------------------------------


def test_each_fold_is_a_run_of_its_own(tmp_path):
    """In their order, in a folder of their own, with a config that asks for no more folds."""
    seen = []

    def run(config, folder):
        seen.append((config["data"]["fold"], config["data"]["folds"], folder))
        write_fold(tmp_path / "run", config["data"]["fold"], {"test.json": {"war": len(seen) / 2}})

    config = toy_config("somewhere", data__folds=("2", 1))
    assert folds.fold_names(config) == ("2", "1") and folds.fold_names(toy_config()) == ()
    result = folds.run_each(config, tmp_path / "run", run)
    folder = tmp_path / "run" / "folds"
    assert seen == [("2", (), folder / "2"), ("1", (), folder / "1")]
    assert config.data.folds == ("2", 1) and "fold" not in config.data
    assert result == read(tmp_path / "run", "test.json")
    assert result["mean"] == {"war": 0.75} and list(result["per_fold"]) == ["2", "1"]
    with pytest.raises(InputError, match=r"data\.folds"):
        folds.run_each(toy_config("somewhere", data__folds=("2",)), tmp_path / "run", run)
    assert len(seen) == 2


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"data__kfold": 4}, ("1", "2", "3", "4")),
        ({"data__kfold": 4, "data__folds": (3, "1")}, ("3", "1")),
        ({"data__kfold": 4, "data__fold": "2"}, ()),
        ({"data__fold": "2"}, ()),
    ],
)
def test_which_folds_a_config_asks_for(changes, names):
    assert folds.fold_names(toy_config(**changes)) == names


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data__kfold": 2}, '"config.data": kfold is 2; allowed: 0, or 3 or more'),
        ({"data__kfold": 3, "data__folds": ("1", "4")}, "fold '4' is none of .* allowed: 1 to 3"),
    ],
)
def test_wrong_folds_leave_the_workdir_to_right_ones(tmp_path, own, changes, message):
    with pytest.raises(InputError, match=message):
        loop.train(toy_config(own, **changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


# Own features have no folds: here each of two tests a half, whole videos at a time.
COUNT = sum(SIZES.values())
IDS = tuple(f"v{i // 3}_{i % 3}" for i in range(COUNT))
TESTED = {name: [i for n, i in enumerate(IDS) if n // 3 % 2 == k] for k, name in enumerate(NAMES)}


@pytest.fixture(scope="module")
def folded(tmp_path_factory):
    """A toy run over two folds, its config, and what gives the data its folds."""
    parts = {name: {"test": ids, "train": [i for i in IDS if i not in ids]}
             for name, ids in TESTED.items()}  # fmt: skip
    raw = tmp_path_factory.mktemp("raw") / "own"
    write_own(raw, sizes={"all": COUNT})
    workdir = tmp_path_factory.mktemp("runs") / "folded"
    config = toy_config(
        raw, data__folds=NAMES, data__valid="holdout", data__holdout=0.3, stages__train__epochs=2
    )
    with pytest.MonkeyPatch.context() as patch:
        found = property(lambda self: parts if "all" in self.splits else {})
        patch.setattr(Prepared, "folds", found)
        result = loop.train(config, workdir)
        yield config, workdir, result


def test_every_example_is_tested_in_its_fold_alone(folded):
    _, workdir, _ = folded
    table = read(workdir, "test.csv")
    assert table[0] == ["id", "label", "prediction", *CLASSES]
    assert sorted(row[0] for row in table[1:]) == sorted(IDS)
    for name in NAMES:
        own = read(workdir / "folds" / name, "test.csv")
        assert [row[0] for row in own[1:]] == TESTED[name]
        trained = {line["split"] for line in lines_of(workdir / "folds" / name)}
        assert trained == {"train", "valid"}


def test_results_are_the_mean_of_the_folds(folded):
    _, workdir, result = folded
    assert result == read(workdir, "test.json")
    each = [read(workdir / "folds" / name, "test.json") for name in NAMES]
    for metric in ("war", "uar", "loss"):
        values = [one[metric] for one in each]
        assert result["mean"][metric] == pytest.approx(np.mean(values))
        assert result["std"][metric] == pytest.approx(abs(values[0] - values[1]) / math.sqrt(2))
    table = read(workdir, "test.csv")[1:]
    for one, name in zip(each, NAMES, strict=True):
        rows = [row for row in table if row[0] in TESTED[name]]
        assert one["war"] == pytest.approx(np.mean([row[1] == row[2] for row in rows]))
    assert each[0]["war"] != each[1]["war"] or each[0]["loss"] != each[1]["loss"]
    assert set(read(workdir, "missing.json")["subsets"]) >= {"text", "text+audio+vision"}


def test_an_evaluation_runs_every_fold_again(folded):
    _, workdir, result = folded
    before = read(workdir, "test.csv")
    (workdir / "eval" / "test.json").unlink()
    assert evaluator.evaluate(workdir) == result
    assert read(workdir, "test.csv") == before
    valid = evaluator.evaluate(workdir, {"data.split": "valid"})
    assert valid == read(workdir, "valid.json") != result


def test_a_finished_fold_is_not_trained_again(folded, monkeypatch):
    """Of a run whose second fold is gone the second alone is trained, to the same result."""
    config, workdir, result = folded
    marks = {f: f.stat().st_mtime_ns for f in (workdir / "folds" / "1" / "checkpoints").rglob("*")}
    started = []
    begin = loop.Trainer._begin_stage

    def begun(self, index, models):
        started.append(self.workdir.path.name)
        return begin(self, index, models)

    monkeypatch.setattr(loop.Trainer, "_begin_stage", begun)
    (workdir / "folds" / "2").rename(workdir / "old")
    assert loop.train(config, workdir) == result
    assert started == ["2"]
    assert {f: f.stat().st_mtime_ns for f in marks} == marks
    assert lines_of(workdir / "old") == lines_of(workdir / "folds" / "2")


# ---- folds that kfold makes ---------------------------------------------------------------------

DEALT = ("1", "2", "3")


@pytest.fixture(scope="module")
def crossed(tmp_path_factory, own):
    """Two toy runs over the same three folds, of one epoch and of three, and their results."""
    found = {}
    for epochs in (1, 3):
        workdir = tmp_path_factory.mktemp("runs") / f"epochs_{epochs}"
        config = toy_config(own, data__kfold=3, stages__train__epochs=epochs)
        found[workdir] = loop.train(config, workdir)
    return found


def test_a_cross_validation_tests_each_training_example_once(crossed):
    for workdir, result in crossed.items():
        assert [f.name for f in sorted((workdir / "folds").iterdir())] == list(DEALT)
        table = read(workdir, "test.csv")[1:]
        assert sorted(row[0] for row in table) == sorted(IDS[: SIZES["train"]])
        assert result == read(workdir, "test.json") and tuple(result["per_fold"]) == DEALT
        own = [read(workdir / "folds" / name, "test.json")["war"] for name in DEALT]
        assert result["mean"]["war"] == pytest.approx(np.mean(own))
        for i, name in enumerate(DEALT):
            tested = {row[0] for row in read(workdir / "folds" / name, "test.csv")[1:]}
            following = read(workdir / "folds" / DEALT[(i + 1) % 3], "test.csv")[1:]
            evaluator.evaluate(workdir / "folds" / name, {"data.split": "valid"})
            validated = {row[0] for row in read(workdir / "folds" / name, "valid.csv")[1:]}
            assert validated == {row[0] for row in following} and not tested & validated


def test_two_cross_validations_are_compared_fold_by_fold(crossed):
    (ours, a), (theirs, b) = crossed.items()
    values = [[one["per_fold"][name]["loss"] for name in DEALT] for one in (a, b)]
    t, p = stats.ttest_rel(*values)
    said = run_report.comparison(ours, theirs)
    (line,) = (row for row in said.splitlines() if row.startswith("| loss "))
    assert [cell.strip() for cell in line.split("|")[-3:-1]] == [f"{t:.4f}", f"{p:.4f}"]
    assert "1, 2, 3" in said.splitlines()[0]
