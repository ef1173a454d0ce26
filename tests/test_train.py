"""The training loop on a toy: what it leaves behind, and that its numbers are right."""

import csv
import json
import math
import shutil

import jax
import numpy as np
import pytest
from conftest import (
    CLASSES,
    CONFIG_FILE,
    DIMS,
    SIZES,
    STEPS,
    Toy,
    ToyStage,
    assert_close_lines,
    assert_same_run,
    lines_of,
    newest,
    results_of,
    section,
    snapshot,
    toy_config,
    two_stages,
    write_own,
)
from ml_collections import config_dict

from affectjax.data.batches.dataset import DataConfig, Dataset
from affectjax.runtime import configs
from affectjax.runtime.checkpoints import Checkpoints
from affectjax.training import evaluator, loop, run_config
from affectjax.training.run_checkpoints import RunCheckpoints

TOLERANCE = 1e-5


def strict(text):
    """Returns a JSON value; NaN and Infinity are no JSON."""

    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


def restored(workdir, kind="latest"):
    manager = Checkpoints(workdir / "checkpoints" / kind, 2)
    flat, meta = manager.restore()
    manager.close()
    return flat, meta


def evaluated(workdir):
    """Returns params, frozen ones among them, and variables of the best epochs."""
    store = RunCheckpoints(workdir)
    model, _ = store.restore_best()
    store.close()
    return model["params"], model["variables"]


def whole(dataset, role):
    """Returns a part as one unpadded batch."""
    part = dataset.part(role)
    return dataset.arrays(part) | {"weight": np.ones(len(part), np.float32)}


def toy_of(folder, **changes):
    """Returns the task of a config outside of any device axis, and its data."""
    config = toy_config(folder, **changes)
    dataset = Dataset(DataConfig("own", str(folder)))
    return Toy(config, dataset.inputs, None), dataset


# ---- what a run leaves behind -------------------------------------------------------------------


def test_workdir_has_every_file_of_the_contract(finished):
    found = {f.name for f in finished.iterdir()}
    files = {
        "config.json",
        "checksums.json",
        "metrics.jsonl",
        "inputs.json",
        "standardization.npz",
        "lock",
    }
    assert found == files | {"tensorboard", "checkpoints", "eval"}
    kept = {f.name: any(f.iterdir()) for f in (finished / "checkpoints").iterdir()}
    # Everything trains here: nothing is frozen.
    assert kept == {"best": True, "latest": True, "frozen": False}
    evaluated = {str(f.relative_to(finished / "eval")) for f in (finished / "eval").rglob("*")}
    files = {"valid.json", "valid.csv", "test.json", "test.csv", "missing.json"}
    assert evaluated == files | {"calibration.json"}
    for file in finished.rglob("*.json"):
        strict(file.read_text())


def test_config_json_has_config_versions_revision_and_devices(finished, own):
    content = strict((finished / "config.json").read_text())
    whole = run_config.resolve(toy_config(own))
    assert content["config"] == json.loads(json.dumps(whole))
    assert configs.differences(whole, run_config.resolve(whole)) == []
    assert content["versions"]["jax"] == jax.__version__ and "numpy" in content["versions"]
    assert set(content) == {"config", "command", "versions", "git", "devices"}
    assert content["command"] is None  # it was trained by a call, not by a command
    assert content["devices"] == [str(d) for d in jax.devices()]


def test_metrics_jsonl_has_a_line_an_epoch_and_split(finished):
    lines = [strict(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    where = [[line[k] for k in ("step", "epoch", "stage", "split", "seed")] for line in lines]
    assert where == [
        [STEPS * (epoch + 1), epoch, "train", split, 0]
        for epoch in range(3)
        for split in ("train", "valid")
    ]
    for line in lines:
        if line["split"] == "train":
            assert {"loss", "grad_norm", "update_norm", "learning_rate"} < line.keys()
            assert "examples" not in line and line["learning_rate"] == pytest.approx(0.02)
        else:
            assert {"loss", "war", "uar", "f1_weighted", "recall/glad"} < line.keys()


def test_nan_is_null(tmp_path):
    # Two validation examples have at most two of the three classes.
    raw = write_own(tmp_path / "raw", sizes=SIZES | {"valid": 2})
    loop.train(toy_config(raw, stages__train__epochs=1), tmp_path / "w")
    line = strict((tmp_path / "w" / "metrics.jsonl").read_text().splitlines()[1])
    result = strict((tmp_path / "w" / "eval" / "valid.json").read_text())
    assert None in [line[f"recall/{name}"] for name in CLASSES]
    interval = result.pop("interval")
    assert {k: v for k, v in result.items() if k != "confusion"} == {
        k: line[k] for k in result if k != "confusion"
    }
    assert list(interval) == ["war", "uar", "f1_weighted", "f1_macro"]


def scalars(folder):
    """Returns (tag, step, value) of all events; a record is length, check, event, check."""
    from tensorboardX.proto.event_pb2 import Event

    found = set()
    for file in folder.iterdir():
        data, at = file.read_bytes(), 0
        while at < len(data):
            size = int.from_bytes(data[at : at + 8], "little")
            event = Event.FromString(data[at + 12 : at + 12 + size])
            at += 16 + size
            found |= {(v.tag, event.step, v.simple_value) for v in event.summary.value}
    return found


def test_tensorboard_has_the_same_scalars(finished):
    where = ("step", "epoch", "stage", "split", "seed")
    expected = {
        (f"{line['stage']}/{line['split']}/{name}/seed_0", line["step"], float(np.float32(value)))
        for line in lines_of(finished)
        for name, value in line.items()
        if name not in where
    }
    assert scalars(finished / "tensorboard") == expected


def test_csv_has_a_row_an_example_and_a_column_a_class(finished, own):
    with (own / "labels.csv").open() as file:
        expected = [(r["id"], r["label"]) for r in csv.DictReader(file) if r["split"] == "test"]
    with (finished / "eval" / "test.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["id", "label", "prediction", *CLASSES]
    assert [(r["id"], r["label"]) for r in rows] == expected
    for row in rows:
        probability = [float(row[name]) for name in CLASSES]
        assert sum(probability) == pytest.approx(1, abs=1e-4)
        assert row["prediction"] == CLASSES[int(np.argmax(probability))]
    result = strict((finished / "eval" / "test.json").read_text())
    right = np.mean([row["label"] == row["prediction"] for row in rows])
    assert result["war"] == pytest.approx(right)
    true = [float(row[row["label"]]) for row in rows]
    assert result["loss"] == pytest.approx(-np.log(true).mean(), rel=1e-4)
    assert np.sum(result["confusion"]) == SIZES["test"]


def test_scores_have_one_column(tmp_path, scores):
    config = toy_config(scores, stages__train__epochs=1, stages__train__select="mae")
    result = loop.train(config, tmp_path)
    with (tmp_path / "eval" / "test.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["id", "label", "prediction"]
    errors = [abs(float(row["label"]) - float(row["prediction"])) for row in rows]
    assert result["mae"] == pytest.approx(np.mean(errors), rel=1e-4)
    missing = strict((tmp_path / "eval" / "missing.json").read_text())
    assert list(missing["subsets"]) == ["text", "audio", "text+audio"]


def test_missing_json_has_every_subset(finished):
    missing = strict((finished / "eval" / "missing.json").read_text())
    assert missing["split"] == "test"
    pairs = ["text+audio", "text+vision", "audio+vision"]
    assert list(missing["subsets"]) == [*DIMS, *pairs, "text+audio+vision"]
    result = strict((finished / "eval" / "test.json").read_text())
    del result["interval"]
    assert missing["subsets"]["text+audio+vision"] == result
    losses = [subset["loss"] for subset in missing["subsets"].values()]
    assert len(set(losses)) == len(losses)


def test_the_best_epoch_is_evaluated(finished):
    valid = [line for line in lines_of(finished) if line["split"] == "valid"]
    best = min(valid, key=lambda line: line["loss"])
    result = strict((finished / "eval" / "valid.json").read_text())
    assert result["loss"] == best["loss"] and result["war"] == best["war"]
    expected = {"stage": 0, "epoch": [best["epoch"]], "frozen": False}
    assert restored(finished, "best")[1] == expected


def test_a_finished_run_says_so_and_touches_nothing(finished, own, tmp_path, start):
    run = shutil.copytree(finished, tmp_path / "run")
    before = snapshot(run)
    child = start("main", f"--config={CONFIG_FILE}:{own}", f"--workdir={run}")
    code, out, said = child.wait()
    assert (code, "finished" in said) == (0, True), said
    after = snapshot(run)
    # The page is written again, and the same is said as at the end of the training.
    assert after.keys() - before.keys() <= {"report/index.html"} and before.keys() <= after.keys()
    assert f"page: {run}/report/index.html" in out
    assert [path for path in before if before[path][0] != after[path][0]] == []
    # It held the lock while it looked.
    assert [path for path in before if before[path] != after[path]] == ["lock"]


def test_a_finished_run_gives_its_metrics_again(finished, own):
    result = loop.train(toy_config(own), finished)
    assert result == strict((finished / "eval" / "test.json").read_text())


# ---- the numbers --------------------------------------------------------------------------------


def test_streamed_data_gives_the_same_numbers(finished, tmp_path, own):
    loop.train(toy_config(own, data__resident_mib=0.0), tmp_path)
    assert_same_run(finished, tmp_path)


def test_checkpoints_within_an_epoch_change_nothing(finished, tmp_path, own):
    # Two steps divide the four of an epoch: the last of them falls on the epoch's own.
    config = toy_config(own, data__resident_mib=0.0, train__checkpoint_steps=2)
    loop.train(config, tmp_path)
    assert_same_run(finished, tmp_path)


def test_rare_checkpoints_change_nothing(finished, tmp_path, own):
    loop.train(toy_config(own, train__checkpoint_epochs=2), tmp_path)
    assert_same_run(finished, tmp_path)


def test_padded_batches_give_the_mean_over_examples(tmp_path, own):
    """At rate 0 without dropout the logged loss is that of all 29 examples, 8 or 30 at a time."""
    still = {"optim__learning_rate": 0.0, "model__dropout": 0.0, "stages__train__epochs": 1}
    task, dataset = toy_of(own)
    params, variables = task.init(jax.random.key(0), dataset.zeros(2))
    batch = whole(dataset, "train")
    expected = task.predict(params, variables, batch)["loss"].mean()
    objective = lambda p: task.predict(p, variables, batch)["loss"].mean()  # noqa: E731
    gradient = jax.grad(objective)(params)
    norm = math.sqrt(sum(float((g**2).sum()) for g in jax.tree.leaves(gradient)))
    for size in (8, 30):
        workdir = tmp_path / str(size)
        loop.train(toy_config(own, stages__train__batch_size=size, **still), workdir)
        line = lines_of(workdir)[0]
        assert line["loss"] == pytest.approx(float(expected), rel=TOLERANCE)
    # One step of 29 examples and a row that only pads: its gradient is that of the whole part.
    assert line["step"] == 1 and line["grad_norm"] == pytest.approx(norm, rel=TOLERANCE)


def test_evaluation_does_not_depend_on_its_batch_size(finished, tmp_path, own):
    loop.train(toy_config(own, train__eval_batch_size=64), tmp_path)
    assert_close_lines(lines_of(tmp_path), lines_of(finished))


@pytest.fixture(scope="module")
def three(tmp_path_factory, own):
    workdir = tmp_path_factory.mktemp("three")
    return workdir, loop.train(toy_config(own, seeds=(4, 0, 7)), workdir)


def test_seeds_trained_together_are_each_their_own_run(three, tmp_path, own, finished):
    workdir, _ = three
    together = restored(workdir, "best")[0]
    for place, seed in enumerate((4, 0, 7)):
        alone = finished
        if seed:
            alone = tmp_path / str(seed)
            loop.train(toy_config(own, seed=seed), alone)
        ours = [line for line in lines_of(workdir) if line["seed"] == seed]
        assert_close_lines(ours, lines_of(alone))
        for path, x in restored(alone, "best")[0].items():
            np.testing.assert_allclose(together[path][place], x[0], atol=TOLERANCE, err_msg=path)
        csvs = [f / "test.csv" for f in (workdir / "eval" / "seeds" / str(seed), alone / "eval")]
        rows = [[r["prediction"] for r in csv.DictReader(file.open())] for file in csvs]
        assert rows[0] == rows[1]


def test_several_seeds_have_mean_std_and_each_their_own(three):
    workdir, returned = three
    result = strict((workdir / "eval" / "test.json").read_text())
    assert result == json.loads(json.dumps(returned))
    assert list(result) == ["mean", "std", "per_seed", "ensemble", "interval"]
    assert list(result["per_seed"]) == ["4", "0", "7"]
    for name in ("loss", "war", "uar"):
        values = [own[name] for own in result["per_seed"].values()]
        assert result["mean"][name] == pytest.approx(np.mean(values))
        assert result["std"][name] == pytest.approx(np.std(values, ddof=1))
    assert {f.name for f in (workdir / "eval" / "seeds").iterdir()} == {"4", "0", "7"}
    with (workdir / "eval" / "test.csv").open() as file:
        mean = [float(row["sad"]) for row in csv.DictReader(file)]
    each = []
    for seed in (4, 0, 7):
        with (workdir / "eval" / "seeds" / str(seed) / "test.csv").open() as file:
            each.append([float(row["sad"]) for row in csv.DictReader(file)])
    np.testing.assert_allclose(mean, np.mean(each, 0), atol=1e-5)


def test_a_seed_that_stops_early_stays_as_it_was(tmp_path, own):
    changes = {
        "seeds": (0, 1, 2, 3),
        "stages__train__patience": 2,
        "optim__learning_rate": 0.1,
    }
    loop.train(toy_config(own, stages__train__epochs=12, **changes), tmp_path / "long")
    last = {}
    for line in lines_of(tmp_path / "long"):
        last[line["seed"]] = line["epoch"]
    first = min(last.values())
    assert first < max(last.values())  # else this tests nothing
    loop.train(toy_config(own, stages__train__epochs=first + 1, **changes), tmp_path / "short")
    long, short = (restored(tmp_path / name)[0] for name in ("long", "short"))
    stopped = [s for s in last if last[s] == first]
    for path, x in short.items():
        for seed in stopped:
            np.testing.assert_array_equal(long[path][seed], x[seed], err_msg=path)
    assert any((long["state/step"] > short["state/step"]).tolist())
    # Each seed stops after two epochs without a lower loss, no later and no sooner.
    for seed, end in last.items():
        losses = [
            line["loss"]
            for line in lines_of(tmp_path / "long")
            if (line["seed"], line["split"]) == (seed, "valid")
        ]
        stale = [n for n in range(len(losses)) if n - int(np.argmin(losses[: n + 1])) == 2]
        assert end == (stale[0] if stale else 11)


@pytest.mark.parametrize("streamed", [False, True], ids=["resident", "streamed"])
def test_a_loss_that_is_not_finite_stops_the_run_and_leaves_the_last_good(streamed, tmp_path, own):
    changes = {"model__fault": 6, "seeds": (5, 3)}
    if streamed:
        # The checkpoint after three steps of an epoch would be of the step that fails.
        changes |= {"data__resident_mib": 0.0, "train__checkpoint_steps": 3}
    # Step 6 counted from 0 is the seventh: the third of the second epoch.
    with pytest.raises(loop.NonFiniteLoss, match=r"stage 'train', step 7, seed 5"):
        loop.train(toy_config(own, **changes), tmp_path)
    flat, meta = restored(tmp_path)
    for path, x in flat.items():
        if path.startswith(("state", "frozen")):
            assert np.isfinite(x).all(), path
    assert meta["finished"] is False and meta["step"] == STEPS
    assert [line["epoch"] for line in lines_of(tmp_path)] == [0] * 4
    assert not (tmp_path / "eval").exists()


def test_an_enormous_rate_is_a_loss_that_is_not_finite(tmp_path, scores):
    config = toy_config(scores, optim__learning_rate=3e38, optim__clip_norm=0.0)
    with pytest.raises(loop.NonFiniteLoss, match=r"stage 'train', step \d, seed 0: the loss is"):
        loop.train(config, tmp_path)
    strict((tmp_path / "config.json").read_text())


def test_the_average_of_the_parameters_is_what_counts(tmp_path, own):
    """Of four steps: average 0.5 (0.5 (0.5 (0.5 p0 + 0.5 p1) + 0.5 p2) + ...)."""
    changes = {"stages__train__epochs": 1, "data__resident_mib": 0.0, "train__checkpoint_steps": 1}
    seen, save = [], Checkpoints.save

    def note(self, step, tree, meta):
        if "state" in tree:
            seen.append(tree["state"]["params"]["head"]["kernel"].copy())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoints, "save", note)
        loop.train(toy_config(own, **changes), tmp_path / "plain")
    assert len(seen) >= STEPS and Checkpoints.save is save
    task, dataset = toy_of(own)
    expected = jax.jit(lambda key: task.init(key, dataset.zeros(2)))(jax.random.key(0))[0]
    expected = expected["head"]["kernel"]
    for x in seen[:STEPS]:
        expected = 0.5 * expected + 0.5 * x[0]
    config = toy_config(own, stages__train__epochs=1, optim__average_decay=0.5)
    result = loop.train(config, tmp_path / "averaged")
    best = restored(tmp_path / "averaged", "best")[0]["params/head/kernel"]
    np.testing.assert_allclose(best[0], expected, atol=1e-6)
    assert evaluator.evaluate(tmp_path / "averaged") == result


def test_the_last_epoch_may_be_the_best(tmp_path, own):
    loop.train(toy_config(own, stages__train__select="last", optim__learning_rate=0.3), tmp_path)
    assert restored(tmp_path, "best")[1]["epoch"] == [2]
    last = lines_of(tmp_path)[-1]
    assert strict((tmp_path / "eval" / "valid.json").read_text())["loss"] == last["loss"]


# ---- stages -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def staged(tmp_path_factory, own):
    """A run of two stages, and one of the first of them alone."""
    both, first = (tmp_path_factory.mktemp(name) for name in ("both", "first"))
    loop.train(two_stages(own), both)
    config = two_stages(own)
    with config.stages.unlocked():
        del config.stages["second"]
    loop.train(config, first)
    return both, first


def test_frozen_parameters_have_no_optimizer_state_and_never_change(staged, own):
    task, dataset = toy_of(own)
    params, _ = jax.jit(lambda key: task.init(key, dataset.zeros(2)))(jax.random.key(0))
    flat, _ = restored(staged[1])
    moments = [path for path in flat if path.startswith("state/opt") and "kernel" in path]
    assert len(moments) == 2 and all("head" in path for path in moments)
    assert [path for path in flat if path.startswith("state/params")] == [
        "state/params/head/kernel"
    ]
    assert np.abs(flat["state/params/head/kernel"][0] - params["head"]["kernel"]).max() > 1e-3
    best, _ = evaluated(staged[1])
    np.testing.assert_array_equal(best["body"]["kernel"][0], params["body"]["kernel"])


def test_frozen_parameters_are_written_once_a_stage(staged):
    both, first = staged
    for workdir, stages in ((first, ["body"]), (both, ["body", "head"])):
        folders = sorted(f.name for f in (workdir / "checkpoints" / "frozen").iterdir())
        assert folders == [str(stage) for stage in range(len(stages))]
        assert list(restored(workdir, "frozen")[0]) == [f"frozen/{stages[-1]}/kernel"]
        for kind, at in (("latest", "state/params"), ("best", "params")):
            flat, meta = restored(workdir, kind)
            assert meta["frozen"] is True and meta["stage"] == len(stages) - 1
            assert any(path.startswith(at) for path in flat)
            assert not [p for p in flat if f"{stages[-1]}/kernel" in p or p.startswith("frozen")]


def test_a_stage_starts_from_what_the_best_of_the_last_hands_over(staged):
    both, first = staged
    handed = restored(first, "best")[0]["params/head/kernel"]
    flat, meta = restored(both)
    np.testing.assert_array_equal(restored(both, "frozen")[0]["frozen/head/kernel"], 2 * handed)
    moments = [path for path in flat if path.startswith("state/opt") and "kernel" in path]
    assert len(moments) == 2 and all("body" in path for path in moments)
    np.testing.assert_array_equal(evaluated(both)[0]["head"]["kernel"], 2 * handed)
    # 29 examples: two epochs of 4 steps of 8, three of 6 steps of 5.
    assert meta["step"] == 2 * 4 + 3 * 6
    where = [(n["stage"], n["epoch"], n["step"]) for n in lines_of(both) if n["split"] == "train"]
    assert where == [
        *(("first", i, 4 * (i + 1)) for i in range(2)),
        *(("second", i, 8 + 6 * (i + 1)) for i in range(3)),
    ]
    assert lines_of(both)[:4] == lines_of(first)


def test_the_stages_draw_from_streams_of_their_own(staged):
    keys = [restored(workdir)[0]["state/rng"].tolist() for workdir in staged]
    assert keys[0] != keys[1]


def test_a_stage_may_hand_over_more_parameters(tmp_path, own):
    """UMBEnet's second stage has a pool more, the supramodal system its concepts."""
    result = loop.train(two_stages(own, "grow"), tmp_path)
    assert evaluated(tmp_path)[0]["bias"].shape == (1, len(CLASSES))
    again = evaluator.evaluate(tmp_path)
    assert again == result


def test_variables_are_carried_from_step_to_step(finished, own):
    flat, _ = restored(finished)
    assert flat["state/variables/seen/steps"].tolist() == [3 * STEPS]
    assert np.abs(flat["state/variables/seen/mean"]).max() > 0


def test_checkpoints_are_numbered_by_step_and_two_are_kept(finished):
    latest = sorted(int(f.name) for f in (finished / "checkpoints" / "latest").iterdir())
    assert latest == [3 * STEPS, 3 * STEPS + 1]
    assert int(newest(finished / "checkpoints" / "best").name) in (4, 8, 12)
    assert results_of(finished)[0].keys() >= {"latest", "best", "metrics.jsonl"}


@pytest.mark.parametrize(("other", "compiled"), [({}, 1), ({"batch_size": 5}, 2)])
def test_stages_of_one_loss_and_one_shape_share_what_is_compiled(
    own, tmp_path, monkeypatch, other, compiled
):
    calls, loss = [], Toy.loss
    monkeypatch.setattr(Toy, "loss", lambda *a: calls.append(1) or loss(*a))
    stages = config_dict.ConfigDict()
    stages.first = section(ToyStage, epochs=2, batch_size=8)
    stages.second = section(ToyStage, **{"epochs": 3, "batch_size": 8} | other)
    changes = {"optim__schedule": "cosine", "optim__learning_rate": 0.02}
    loop.train(toy_config(own, stages=stages, **changes), tmp_path)
    assert len(calls) == compiled  # traced once for each program
    lines = [line for line in lines_of(tmp_path) if line["split"] == "train"]
    rates = [line["learning_rate"] for line in lines]
    # Each stage has a cosine of its own.
    assert [line["stage"] for line in lines] == ["first"] * 2 + ["second"] * 3
    assert min(rates[0], rates[2]) > 0.012 and max(rates[1], rates[4]) < 0.007
