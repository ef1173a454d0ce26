"""Supramodal learning on the spine: four stages on tiny sets, stopped, resumed, on more devices.

The sets hold next to nothing: what is checked is that a run is one run, not that it learns. All
runs are made one after the other in a process of its own, where XLA's optimisations are left out
and what one run has compiled serves the next.
"""

import contextlib
import csv
import functools
import importlib.util
import json
import runpy
import shutil
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import (
    CLIP_SIZE,
    FOUR,
    LONGEST,
    QUICK,
    Child,
    assert_close_lines,
    assert_same_run,
    lines_of,
    on_devices,
    stop_at,
)
from ml_collections import config_dict

from affectjax import inference, weights
from affectjax.data.media import codec
from affectjax.emotions import SEVEN, THREE
from affectjax.errors import InputError
from affectjax.modalities import MODALITIES
from affectjax.runtime.checkpoints import Checkpoints
from affectjax.runtime.parallel import Engine
from affectjax.tasks.supramodal import concept_bank
from affectjax.training import baselines, evaluator, loop, run_config
from affectjax.training.run_checkpoints import RunCheckpoints

FILE = Path(__file__).parents[1] / "configs" / "supramodal.py"
# Float32 sums in another order, grown over the steps of Adam through batch norms.
TOLERANCE = 2e-3
# Adam makes a whole step of a gradient that is rounding alone, and other devices and vmap round
# otherwise: a feature may lie a few learning rates of 1e-3 apart.
A_FEW_STEPS = 1e-2
E, SIDE = 8, 32
SHAPES = {"text": (3, 5), "audio": (4, 6), "vision": (2, 7)}
# Examples of each class by split; the sets of the three modalities are of different sizes.
EACH = {"text": 6, "audio": 3, "vision": 2}
MAIN = ("angry", "happy", "neutral")
EPOCHS = {"joint": 2, "sequential": 2, "downstream": 2}
SEEDS = (0, 1)


def classes_of(m):
    return THREE if m == "text" else SEVEN


def write_source(folder, m):
    """Writes the features of one modality, whose mean says the class; no example has another."""
    rng, rows, x = np.random.default_rng(MODALITIES.index(m)), [], []
    for split, times in (("train", EACH[m]), ("valid", 1), ("test", 2)):
        for i in range(times * len(classes_of(m))):
            c = i % len(classes_of(m))
            rows.append((f"{split}{i}", split, classes_of(m)[c]))
            x.append(rng.normal(0, 0.3, SHAPES[m]) + np.eye(7)[c, : SHAPES[m][1]] * 2)
    folder.mkdir(parents=True)
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("id", "split", "label"), *rows])
    lengths = rng.integers(1, SHAPES[m][0] + 1, len(rows))
    lengths[0] = SHAPES[m][0]
    np.savez(folder / "features.npz", **{m: np.float32(x), f"{m}_lengths": lengths})


def face(path, c, seed):
    """Writes noise, lighter by class: a batch norm of plain grey would be one of rounding."""
    noise = np.random.default_rng(seed).integers(0, 150, (SIDE, SIDE, 3)) + 50 * c
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(codec.encode(noise.astype(np.uint8), "png"))


def write_clips(folder, rows):
    """Writes the table of clips, and the faces it names."""
    folder.mkdir(parents=True)
    with (folder / "clips.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("id", "split", "label", "video", "audio", "text"), *rows])
    for i, (_, _, label, video, _, _) in enumerate(rows):
        if video:
            face(folder / video, MAIN.index(label), i)


def faces():
    """Returns rows of clips: 15 faces to train with, so that the last batch of 8 pads."""
    return [
        (f"{split}_{i}", split, MAIN[i % 3], f"{split}_{i}.png", "", "")
        for split, count in (("train", 15), ("valid", 6), ("test", 6))
        for i in range(count)
    ]


def write_raw(folder):
    """Writes the three sources, the faces, and the cartoons of another set."""
    for m in MODALITIES:
        write_source(folder / m, m)
    write_clips(folder / "faces", faces())
    for i in range(9):
        face(folder / "cartoons" / MAIN[i % 3] / f"{i}.png", i % 3, 99 + i)
    return folder


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """A folder with all that."""
    return write_raw(tmp_path_factory.mktemp("supramodal"))


@functools.cache
def config_file():
    spec = importlib.util.spec_from_file_location("configs_supramodal", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def tiny(raw, part="", **changes):
    """Returns the config of a tiny run.

    Args:
      raw: the folder of the fixture.
      part: of the variant, as in "learn"; "" for all four stages.
      **changes: values by dotted key with `__` in place of the dots.
    """
    raw = Path(raw)
    config = config_file().get_config(f"synth,{part}" if part else "synth")
    if "guided" in config.model:
        config.data.update(
            name="clips", dir=str(raw / "faces"), image_size=SIDE, detector="none"
        )  # fmt: skip
        config.model.guided.update(feature=E, resnet_width=4, count=3)
    for m in config.data.get("sources", ()):
        scheme = "three" if m == "text" else "seven"
        own = {"name": "own", "dir": str(raw / m), "view": "sequences", "class_map": scheme}
        config.data.sources[m] = config_dict.ConfigDict(own)
    if "learner" in config.model:
        config.model.learner.update(
            text="features", audio="features", vision="features", width=E, hidden=E,
            sequence_heads=2, dropout=0.1,
        )  # fmt: skip
    config.optim.update(learning_rate=1e-3, warmup_epochs=0.5)
    for name, stage in config.stages.items():
        if name == "concepts":
            # However little was learned, each class has its concepts.
            stage.selective = False
        else:
            stage.update(epochs=EPOCHS[name], batch_size=8)
    config.train.update(eval_batch_size=8, progress=False, baselines=False)
    for key, value in changes.items():
        *sections, last = key.split("__")
        functools.reduce(lambda part, name: part[name], sections, config)[last] = value
    return config_dict.ConfigDict(run_config.choose(config, given=()))


STREAMED = {"data__resident_mib": 0.0} | {
    f"data__sources__{m}__resident_mib": 0.0 for m in MODALITIES
}
# Together the largest set has 3 batches of 8; in turn there are 3 + 3 + 2. Faces have 2 batches.
# By run: part, what is changed, on how many devices, and at which call of the devices it is
# stopped: they are called once an epoch for what is resident, and else once a step.
RUNS = {
    "whole": ("", {}, 1, None),
    "learn": ("learn", {"train__baselines": True}, 1, None),
}
MORE = {
    "whole": ("", {}, 1, None),
    "joint": ("", {}, 1, 1),
    "sequential": ("", {}, 1, 3),
    "downstream": ("", {}, 1, 5),
    "shard_map-4": ("", {"parallel__engine": "shard_map"}, 4, None),
    "streamed": ("", STREAMED, 1, None),
    "streamed-joint": ("", STREAMED, 1, 5),
    "streamed-sequential": ("", STREAMED, 1, 18),
    "streamed-downstream": ("", STREAMED, 1, 23),
    "between": ("", {}, 1, 4),
    "shard_map-1": ("", {"parallel__engine": "shard_map"}, 1, None),
    "pmap-4": ("", {}, 4, None),
    "seeds": ("", {"seeds": SEEDS}, 1, None),
    "seed-1": ("", {"seed": 1}, 1, None),
}


def command(*arguments):
    """Runs `python -m affectjax.main` in this process."""
    sys.argv = ["affectjax/main.py", *map(str, arguments)]
    with contextlib.suppress(SystemExit):
        runpy.run_module("affectjax.main", run_name="__main__")


def make_runs(folder, raw, runs, again):
    """Makes these runs in `folder`; then, if `again`, those that begin at the first of them."""
    folder, make = Path(folder), Engine.__init__
    for name, (part, changes, devices, stop) in runs.items():
        _, Engine.__init__ = on_devices(devices)
        if stop is not None:
            stop_at(tiny(raw, part, **changes), folder / name, stop)
            shutil.copytree(folder / name, folder / f"{name}-stopped")
        loop.train(tiny(raw, part, **changes), folder / name)
        Engine.__init__ = make
    if not again:
        return
    _, Engine.__init__ = on_devices(1)
    bank = str(folder / "whole" / "concepts")
    changes = {"model__guided__bank": bank, "seeds": SEEDS}
    loop.train(tiny(raw, "downstream", **changes), folder / "alone")
    without = shutil.ignore_patterns("eval")
    for name in ("again", "transfer"):
        shutil.copytree(folder / "whole", folder / name, ignore=without)
    shutil.copytree(folder / "learn", folder / "learn-again", ignore=without)
    command(f"--workdir={folder / 'again'}", "--mode=eval")
    evaluator.evaluate(folder / "learn-again")  # as the command does, whose flags are defined once


def transfer(folder, raw):
    """Evaluates a copy of the whole run on the cartoons, as the command line does."""
    data = {"name": "imagen", "dir": Path(raw) / "cartoons", "class_map": "seven"}
    flags = [f"--config.data.{key}={value}" for key, value in data.items()]
    command(f"--config={FILE}", *flags, f"--workdir={Path(folder) / 'transfer'}", "--mode=eval")


def child(folder, what, *arguments):
    """Runs a function in a process of its own, with four devices."""
    flags = {"XLA_FLAGS": f"{FOUR} {QUICK}"}
    code, _, said = Child(what, arguments, folder, flags).wait(LONGEST)
    assert code == 0, said
    return folder


def made(folder, raw, runs, again=False):
    """Returns the folder of these runs, once they are made."""
    return child(folder, make_runs, str(folder), str(raw), runs, again)


@pytest.fixture(scope="module")
def runs(tmp_path_factory, raw):
    return made(tmp_path_factory.mktemp("runs"), raw, RUNS, again=True)


@pytest.fixture(scope="module")
def more(tmp_path_factory, raw):
    return made(tmp_path_factory.mktemp("more"), raw, MORE)


@pytest.fixture
def whole(runs):
    return runs / "whole"


def restored(workdir, kind="latest"):
    manager = Checkpoints(workdir / "checkpoints" / kind, 2)
    flat, meta = manager.restore()
    manager.close()
    return flat, meta


def results(workdir, name="test"):
    return json.loads((workdir / "eval" / f"{name}.json").read_text())


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


# ---- one run ------------------------------------------------------------------------------------


def test_it_trains_in_three_stages_and_leaves_a_bank(whole):
    lines = lines_of(whole)
    where = [(line["stage"], line["epoch"], line["step"]) for line in lines if
             line["split"] == "train"]  # fmt: skip
    assert where == [
        ("joint", 0, 3), ("joint", 1, 6), ("sequential", 0, 14), ("sequential", 1, 22),
        ("downstream", 0, 24), ("downstream", 1, 26),
    ]  # fmt: skip
    joint, sequential, downstream = lines[0], lines[4], lines[8]
    assert {"cross_entropy", "triplet", "triples", "orthogonality", "accuracy/text"} < joint.keys()
    assert joint["triples"] > 0
    assert {"cross_entropy", "orthogonality", "accuracy"} < sequential.keys()
    assert {"cross_entropy", "guidance", "accuracy"} < downstream.keys()
    for line in lines:
        if line["split"] == "train":
            assert line["grad_norm"] > 0 and line["update_norm"] > 0, line
        assert np.isfinite(line["loss"])
    # Each set is judged by itself while it is learned from, and the recogniser's afterwards.
    assert {"war", "three/war", "text/war", "audio/three/war", "vision/loss"} < lines[1].keys()
    assert "war" in lines[9] and "text/war" not in lines[9]
    parts = downstream["cross_entropy"] + 0.5 * downstream["guidance"]
    assert downstream["loss"] == pytest.approx(parts, rel=1e-5)
    names = {"config.json", "metrics.jsonl", "concepts", "eval", "checkpoints", "inputs.json"}
    assert names < {f.name for f in whole.iterdir()}
    assert {f.name for f in (whole / "eval").iterdir()} == {
        "test.json", "test.csv", "valid.json", "valid.csv", "calibration.json",
    }  # fmt: skip
    assert len(table(whole / "eval" / "test.csv")) == 6


def test_the_bank_holds_the_training_examples(whole):
    """Without selectivity all of them: by modality so many of each class."""
    bank = concept_bank.load(whole / "concepts")
    assert bank.width == E
    assert bank.counts == {m: dict.fromkeys(classes_of(m), EACH[m]) for m in MODALITIES}
    with np.load(whole / "concepts" / "features.npz") as figures:
        for m in MODALITIES:
            assert figures[f"{m}/emotion"].shape == (len(classes_of(m)), E)
            assert figures[f"{m}/non_emotion"].shape == (len(classes_of(m)), E)
            assert sorted(figures[f"{m}/label"]) == sorted(classes_of(m))


def test_every_parameter_has_had_a_gradient(whole, runs):
    """Adam's mean square of the gradient is 0 just where there was none."""
    for workdir, names in (
        (whole, {"vision", "head"}),
        (runs / "learn", {"emotion", "seven", "three", *MODALITIES}),
    ):
        flat, _ = restored(workdir)
        squares = {}
        for path, x in flat.items():
            if path.startswith("state/opt") and "/nu/" in path:
                group = path.split("/nu/")[1].split("/")[0]
                squares[group] = max(squares.get(group, 0), float(x.max()))
        assert names <= squares.keys() and min(squares.values()) > 0, squares
        assert not [path for path in flat if path.startswith("state/params/bank")]


def test_the_command_of_the_evaluation_gives_the_same(runs):
    for name, first in (("again", "whole"), ("learn-again", "learn")):
        again, before = runs / name / "eval", runs / first / "eval"
        files = [f.relative_to(again) for f in again.rglob("*") if f.is_file()]
        assert Path("test.json") in files
        for file in files:
            assert (again / file).read_text() == (before / file).read_text()


def test_a_run_that_learns_alone_is_judged_by_modality(runs):
    found = results(runs / "learn")
    for m in MODALITIES:
        rows = table(runs / "learn" / "eval" / m / "test.csv")
        assert len(rows) == 2 * len(classes_of(m))
        assert list(rows[0]) == ["id", "label", "prediction", *classes_of(m)]
        right = np.mean([row["label"] == row["prediction"] for row in rows])
        assert found[f"{m}/war"] == pytest.approx(right)
    assert found["war"] == pytest.approx(np.mean([found[f"{m}/war"] for m in MODALITIES]))
    assert concept_bank.load(runs / "learn" / "concepts").width == E
    assert not (runs / "learn" / "eval" / "missing.json").exists()


def test_each_unpaired_set_has_baselines_of_its_own(runs):
    found = json.loads((runs / "learn" / "eval" / "baselines.json").read_text())["sources"]
    result = results(runs / "learn")
    for m, own in found.items():
        assert own["metrics"] == ["war", "uar", "f1_weighted", "f1_macro"]
        assert list(own["baselines"]) == ["majority", f"linear, {m}"]
        named = {n.removeprefix(f"{m}/") for n in result if n.startswith(f"{m}/")} - {"loss"}
        assert all(set(one["test"]) == named for one in own["baselines"].values())
        # The classes are in turn: the most frequent one is right as often as any other.
        assert own["baselines"]["majority"]["test"]["war"] == pytest.approx(1 / len(classes_of(m)))
        assert own["baselines"][f"linear, {m}"]["test"]["war"] == 1  # they lie far apart
    standings = baselines.standings(runs / "learn")
    assert [standing.of for standing in standings] == list(MODALITIES)
    for standing in standings:
        assert standing.rows["model"]["war"] == result[f"{standing.of}/war"]
        assert set(standing.interval) == set(standing.names)
    assert "war" in result["interval"] and "text/three/uar" in result["interval"]
    assert not (runs / "whole" / "eval" / "baselines.json").exists()


def test_what_was_learned_does_not_depend_on_what_comes_after(runs):
    """The run that learns alone leaves the bank that the whole one does."""
    ours, theirs = (concept_bank.load(runs / name / "concepts") for name in ("whole", "learn"))
    jax.tree.map(np.testing.assert_array_equal, dict(ours.features), dict(theirs.features))


def test_downstream_alone_from_the_bank_of_another_run(runs):
    workdir = runs / "alone"
    lines = lines_of(workdir)
    assert {line["stage"] for line in lines} == {"downstream"}
    assert {line["seed"] for line in lines} == set(SEEDS)
    found = results(workdir)
    assert set(found["per_seed"]) == {"0", "1"} and "war" in found["mean"]
    assert not (workdir / "concepts").exists()
    flat, _ = restored(workdir, "frozen")
    features = concept_bank.load(runs / "whole" / "concepts").features
    for m in MODALITIES:
        kept = flat[f"frozen/bank/{m}/features"]
        np.testing.assert_array_equal(kept, np.stack([features[m]] * 2))
    for seed in SEEDS:
        assert len(table(workdir / "eval" / "seeds" / str(seed) / "test.csv")) == 6


# ---- stopped and resumed ------------------------------------------------------------------------

# Stage, epoch and steps within it that were done when a run was stopped.
STOPPED = {
    "joint": (0, 1, 0),
    "sequential": (1, 1, 0),
    "downstream": (2, 1, 0),
    "between": (1, 2, 0),
    "streamed-joint": (0, 1, 2),
    "streamed-sequential": (1, 1, 4),
    "streamed-downstream": (2, 0, 1),
}


def check_resumed(folder, name):
    _, meta = restored(folder / f"{name}-stopped")
    steps = len(meta["series"].get("loss", [[]])[0])
    assert (meta["stage"], meta["epoch"], steps) == STOPPED[name]
    first = "streamed" if "streamed" in name else "whole"
    assert_same_run(folder / first, folder / name)
    for file in ("concepts.safetensors", "concepts.json"):
        ours, theirs = (folder / run / "concepts" / file for run in (first, name))
        if file.endswith("json"):  # which names the run
            ours, theirs = (json.loads(f.read_text()) | {"source": ""} for f in (ours, theirs))
        else:
            ours, theirs = ours.read_bytes(), theirs.read_bytes()
        assert ours == theirs


@pytest.mark.slow
@pytest.mark.parametrize("name", STOPPED)
def test_a_stopped_run_ends_as_one_that_never_was(name, more):
    check_resumed(more, name)


@pytest.mark.slow
def test_streamed_is_as_resident(more):
    assert_close_lines(lines_of(more / "streamed"), lines_of(more / "whole"), TOLERANCE)


# ---- devices and seeds --------------------------------------------------------------------------


def check_devices(folder, other):
    ours, theirs = folder / "whole", folder / other
    assert_close_lines(lines_of(ours), lines_of(theirs), TOLERANCE)
    banks = [concept_bank.load(run / "concepts").features for run in (ours, theirs)]
    for m in MODALITIES:
        np.testing.assert_allclose(banks[0][m], banks[1][m], atol=A_FEW_STEPS)
        assert np.mean(np.abs(banks[0][m] - banks[1][m]) > TOLERANCE) <= 0.01


@pytest.mark.slow
@pytest.mark.parametrize("other", ["shard_map-1", "pmap-4", "shard_map-4"])
def test_engines_and_devices_agree(other, more):
    check_devices(more, other)


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_of_two_seeds_at_once_each_is_its_own_run(seed, more):
    """In turn too, though vmap runs the branches of all modalities and chooses."""
    alone = more / ("whole" if seed == 0 else "seed-1")
    ours = [line for line in lines_of(more / "seeds") if line["seed"] == seed]
    assert_close_lines(ours, lines_of(alone), TOLERANCE)
    banks = [
        concept_bank.load(folder / "concepts").features
        for folder in (more / "seeds" / str(seed), alone)
    ]
    for m in MODALITIES:
        np.testing.assert_allclose(banks[0][m], banks[1][m], atol=A_FEW_STEPS)


# ---- what a run is used for ---------------------------------------------------------------------


def test_transfer_to_other_faces_without_training(runs, raw):
    """Cartoons, in folders by class: angry, neutral, happy; of no training split."""
    child(runs, transfer, str(runs), str(raw))
    assert not (runs / "transfer" / "eval" / "test.json").exists()  # that is of its own data
    rows = table(runs / "transfer" / "eval" / "imagen_test.csv")
    meant = {"angry": "anger", "happy": "happiness", "neutral": "neutral"}
    assert {row["id"]: row["label"] for row in rows} == {
        f"{MAIN[i % 3]}/{i}.png": meant[MAIN[i % 3]] for i in range(9)
    }
    right = np.mean([row["label"] == row["prediction"] for row in rows])
    assert results(runs / "transfer", "imagen_test")["war"] == pytest.approx(right)


def test_an_image_is_recognised_as_it_was_evaluated(runs, raw, tmp_path):
    result = inference.recognize(runs / "whole", raw / "faces" / "test_1.png", output=tmp_path)
    (prediction,) = result["predictions"]
    assert result["failed"] == [] and prediction["modalities"] == ["vision"]
    rows = {row["id"]: row for row in table(runs / "whole" / "eval" / "test.csv")}
    assert result["classes"] == list(SEVEN)
    for name in SEVEN:
        expected = float(rows["test_1"][name])
        assert prediction["probability"][name] == pytest.approx(expected, abs=1e-4)


def test_a_run_that_learns_alone_recognises_nothing(runs, raw, tmp_path):
    with pytest.raises(InputError) as error:
        inference.recognize(runs / "learn", raw / "faces" / "test_1.png", output=tmp_path)
    assert "\n" not in str(error.value) and str(runs / "learn") in str(error.value)
    assert not list(tmp_path.iterdir())


# ---- towers with weights ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lora(tmp_path_factory, raw, clip_folder):
    """A run whose towers of words and faces are those of a tiny CLIP, adapted by LoRA."""
    folder = tmp_path_factory.mktemp("lora")
    words = ("so bad", "it is so", "well done")
    rows = [
        (f"{split}_{i}", split, THREE[i % 3], "", "", words[i % 3])
        for split in ("train", "valid", "test")
        for i in range(6)
    ]
    write_clips(folder / "words", rows)
    # Of CLIP's size, in a cache that knows them by it.
    changes = {"model__learner__weights": str(clip_folder), "model__learner__flip": 0.5}
    for m, name in (("text", "words"), ("vision", "faces")):
        where = folder / "words" if m == "text" else raw / "faces"
        own = {"name": "clips", "dir": str(where), "view": "clips"} | {
            "text": {"tokenizer": str(clip_folder)},
            "vision": {"detector": "none", "image_size": CLIP_SIZE},
        }[m]
        changes |= {f"data__sources__{m}__{key}": value for key, value in own.items()}
        changes[f"model__learner__{m}"] = "clip"
        assert name in str(where)
    changes |= {"stages__joint__epochs": 1, "stages__sequential__epochs": 1}
    made(folder, raw, {"learn": ("learn", changes, 1, None)})
    return folder / "learn", weights.clip(clip_folder).params


@pytest.mark.slow
def test_towers_with_weights_stay_as_they_were(lora):
    workdir, given = lora
    store = RunCheckpoints(workdir)
    params = store.restore_best()[0]["params"]
    store.close()
    for m, tower in (("text", "text_tower"), ("vision", "image_tower")):
        one = jax.tree.map(lambda x: x[0], params[m]["tower"])
        jax.tree.map(np.testing.assert_array_equal, one, given[tower])
        assert any(np.any(x) for x in jax.tree.leaves(params["lora"][m]))


@pytest.mark.slow
def test_checkpoints_hold_no_kernel_of_a_frozen_tower(lora):
    workdir, _ = lora
    for kind in ("latest", "best"):
        flat, meta = restored(workdir, kind)
        assert meta["frozen"] is True
        assert not [p for p in flat if "text/tower" in p or "vision/tower" in p]
        assert [p for p in flat if "lora/text" in p] and [p for p in flat if "audio/tower" in p]
    paths = [*restored(workdir, "frozen")[0]]
    assert paths and all("/tower/" in path for path in paths)
