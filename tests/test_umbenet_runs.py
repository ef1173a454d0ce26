"""UMBEnet on the spine: two stages on tiny clips, stopped, resumed, on more devices, with seeds.

The media hold next to nothing: what is checked is that a run is one run, not that it learns. All
runs are made one after the other in a process of its own, where XLA's optimisations are left out
and what one run has compiled serves the next.

Letters: k chosen prompts.
"""

import contextlib
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
from clip_media import raw_files
from conftest import (
    CLASSES,
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
from flax import traverse_util
from ml_collections import config_dict

from affectjax import inference, weights
from affectjax.data.batches import dataset
from affectjax.modalities import MODALITIES
from affectjax.runtime.checkpoints import Checkpoints
from affectjax.runtime.parallel import Engine
from affectjax.tasks.umbenet import TURNS
from affectjax.training import loop, run_config
from affectjax.training.run_checkpoints import RunCheckpoints

FILE = Path(__file__).parents[1] / "configs" / "umbenet.py"
# Float32 sums in another order, grown over nine steps of Adam: more devices, three models at once.
TOLERANCE = 5e-5
BATCH, K = 4, 2
SEEDS = (5, 0, 2)
# Video, sound and words of the training examples; batches of 4 leave the last one a row that pads.
TRAIN = (
    ("whole.mp4", "", "What a day!"),
    ("silent.mp4", "tone.wav", ""),
    ("pictures", "", "Well."),
    ("", "", "Only words."),
    ("", "tone.wav", ""),
    ("face.png", "", ""),
    ("whole.mp4", "", ""),
    ("", "tone.wav", "Oh no, not again."),
    ("silent.mp4", "", "So be it."),
    ("face.png", "tone.wav", "All of it."),
    ("pictures", "tone.wav", "And more."),
)
# By modality, whether each of them has it; the film `whole.mp4` has a sound of its own.
PRESENT = {
    "text": [bool(text) for _, _, text in TRAIN],
    "audio": [bool(audio) or video == "whole.mp4" for video, audio, _ in TRAIN],
    "vision": [bool(video) for video, _, _ in TRAIN],
}
OTHERS = {"valid": TRAIN[:5], "test": TRAIN[4:]}


def write_raw(folder):
    """Writes a folder of raw clips."""
    rows = []
    for split, those in {"train": TRAIN, **OTHERS}.items():
        for i, files in enumerate(those):
            rows.append((f"{split}_{i}", split, CLASSES[i % 3], *files))
    return raw_files(folder, rows)


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """A folder of raw clips."""
    return write_raw(tmp_path_factory.mktemp("umbenet") / "raw")


@functools.cache
def config_file():
    spec = importlib.util.spec_from_file_location("configs_umbenet", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def tiny(raw, **changes):
    """Returns the config of a tiny run: an epoch of the first stage, two of the second.

    Args:
      raw: the folder of clips.
      **changes: values by dotted key with `__` in place of the dots.
    """
    config = config_file().get_config("clips")
    config.data.update(
        dir=str(raw), image_size=CLIP_SIZE, frames=3, seconds=0.1, tokens=8, detector="none"
    )
    config.model.update(
        width=8, text_width=8, text_layers=1, text_heads=2, image_channels=(4, 8), heads=2,
        temporal_heads=2, temporal_layers=1, prompt_tokens=2, inherent_tokens=2, pool_size=6,
        top_k=K, gate_hidden=4, dropout=0.1, flip=0.5, gain_db=0.0, l1=1e-4,
    )  # fmt: skip
    config.optim.update(learning_rate=1e-3, weight_decay=0.05, average_decay=0.5)
    for stage, epochs in (("unimodal", 1), ("missing", 2)):
        config.stages[stage].update(batch_size=BATCH, epochs=epochs)
    config.train.update(eval_batch_size=4, progress=False, baselines=False)
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
    return config_dict.ConfigDict(run_config.choose(config, given=()))


STREAMED = {"data__resident_mib": 0.0, "data__sampling": "random"}
# By run: what is changed, on how many devices, and at which call of the devices it is stopped: they
# are called once an epoch for what is resident, and else once a step, three an epoch.
RUNS = {
    "whole": ({}, 1, None),
    "between": ({}, 1, 1),
}
MORE = {
    "whole": ({}, 1, None),
    "within": ({}, 1, 2),
    "streamed": (STREAMED, 1, None),
    "streamed-between": (STREAMED, 1, 3),
    "streamed-within": (STREAMED, 1, 5),
    "seeds": ({"seeds": SEEDS}, 1, None),
    "seed-5": ({"seed": 5}, 1, None),
    "seed-2": ({"seed": 2}, 1, None),
    "shard_map-1": ({"parallel__engine": "shard_map"}, 1, None),
    "shard_map-4": ({"parallel__engine": "shard_map"}, 4, None),
    "pmap-4": ({}, 4, None),
}


def make_runs(folder, raw, runs):
    """Makes these runs in `folder`, and evaluates the first again by the command."""
    folder, make = Path(folder), Engine.__init__
    for name, (changes, devices, stop) in runs.items():
        _, Engine.__init__ = on_devices(devices)
        if stop is not None:
            stop_at(tiny(raw, **changes), folder / name, stop)
            shutil.copytree(folder / name, folder / f"{name}-stopped")
        loop.train(tiny(raw, **changes), folder / name)
        Engine.__init__ = make
    first = folder / next(iter(runs))
    shutil.copytree(first, folder / "again", ignore=shutil.ignore_patterns("eval"))
    _, Engine.__init__ = on_devices(1)
    sys.argv = ["affectjax/main.py", f"--workdir={folder / 'again'}", "--mode=eval"]
    with contextlib.suppress(SystemExit):
        runpy.run_module("affectjax.main", run_name="__main__")


def made(folder, raw, runs):
    """Returns the folder of these runs, once they are made."""
    flags = {"XLA_FLAGS": f"{FOUR} {QUICK}"}
    code, _, said = Child(make_runs, (str(folder), str(raw), runs), folder, flags).wait(LONGEST)
    assert code == 0, said
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory, raw):
    return made(tmp_path_factory.mktemp("runs"), raw, RUNS)


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


def pool_of(workdir, place=0):
    """Returns the counts of the pool at the end by name, of the model at a place."""
    at = "state/variables/pool/pool/"
    flat, _ = restored(workdir)
    return {path.removeprefix(at): x[place] for path, x in flat.items() if path.startswith(at)}


def results(workdir, name="test"):
    return json.loads((workdir / "eval" / f"{name}.json").read_text())


# ---- one run ------------------------------------------------------------------------------------


def test_it_trains_in_two_stages(whole):
    lines = lines_of(whole)
    where = [(line["stage"], line["epoch"], line["step"]) for line in lines[::2]]
    assert where == [("unimodal", 0, 3), ("missing", 0, 6), ("missing", 1, 9)]
    named = {"loss", "cross_entropy", "pull", "l1", "accuracy", "prompts_used", "grad_norm"}
    assert named < lines[0].keys() and {"war", "uar", "loss"} < lines[1].keys()
    for line in lines[::2]:
        assert np.isfinite([v for v in line.values() if isinstance(v, float)]).all(), line
        parts = line["cross_entropy"] + line["pull"] + line["l1"] + line.get("subsets", 0)
        assert ("subsets" in line) == (line["stage"] == "missing")
        assert line["loss"] == pytest.approx(parts, rel=1e-5)
        assert line["grad_norm"] > 0 and line["update_norm"] > 0


def test_every_part_of_the_network_has_had_a_gradient(whole):
    """Adam's mean square of the gradient is 0 just where there was none."""
    flat, _ = restored(whole)
    squares = {}
    for path, x in flat.items():
        if path.startswith("state/opt") and "/nu/" in path:
            group = path.split("/nu/")[1].split("/")[0]
            squares[group] = max(squares.get(group, 0), float(x.max()))
    params = {path.split("/")[2] for path in flat if path.startswith("state/params")}
    assert squares.keys() == params and min(squares.values()) > 0, squares


def test_missing_json_has_the_seven_subsets(whole):
    missing = results(whole, "missing")["subsets"]
    pairs = ["text+audio", "text+vision", "audio+vision"]
    assert list(missing) == [*MODALITIES, *pairs, "text+audio+vision"]
    result = results(whole)
    del result["interval"]
    assert missing["text+audio+vision"] == result
    assert len({subset["loss"] for subset in missing.values()}) == 7


def test_the_command_of_the_evaluation_gives_the_same(runs, whole):
    again = runs / "again" / "eval"
    assert {f.name for f in again.iterdir()} == {"test.json", "test.csv", "missing.json"}
    for file in again.iterdir():
        assert file.read_text() == (whole / "eval" / file.name).read_text()


def test_the_pool_counts_each_example_once_an_epoch(whole):
    pool = pool_of(whole)
    # Two epochs of stage `missing`, in which every example shows something.
    assert pool["total"].sum() == 2 * len(TRAIN) * K
    assert pool["epoch"].sum() == len(TRAIN) * K
    assert pool["turn"] == 6
    # Stage `unimodal` shows one modality a batch, in turn, to those that have it.
    rows = dataset.rows_of(dataset.order(len(TRAIN), 0, 0, 0), BATCH, BATCH)
    expected = dict.fromkeys(MODALITIES, 0)
    for number, batch in enumerate(rows):
        shown = TURNS[number % 3]
        expected[shown] += K * sum(PRESENT[shown][row] for row in batch if row >= 0)
    assert pool["served"].sum(1).tolist() == [*expected.values(), 0]


# ---- stopped and resumed ------------------------------------------------------------------------

# Stage, epoch and steps within it that were done when a run was stopped.
STOPPED = {
    "between": (0, 1, 0),
    "within": (1, 1, 0),
    "streamed-between": (0, 1, 0),
    "streamed-within": (1, 0, 2),
}


def check_resumed(folder, name):
    _, meta = restored(folder / f"{name}-stopped")
    steps = len(meta["series"].get("loss", [[]])[0])
    assert (meta["stage"], meta["epoch"], steps) == STOPPED[name]
    assert not (folder / f"{name}-stopped" / "eval").exists()
    assert_same_run(folder / ("streamed" if "streamed" in name else "whole"), folder / name)


def test_a_stopped_run_ends_as_one_that_never_was(runs):
    check_resumed(runs, "between")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["within", "streamed-between", "streamed-within"])
def test_other_stops_change_nothing_either(name, more):
    check_resumed(more, name)


@pytest.mark.slow
def test_random_frames_are_other_frames(more):
    """Else the streamed runs would not tell whether a resumed one draws the same."""
    assert lines_of(more / "streamed")[0]["loss"] != lines_of(more / "whole")[0]["loss"]


# ---- devices ------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("other", ["shard_map-1", "shard_map-4", "pmap-4"])
def test_engines_and_devices_agree(other, more):
    ours, theirs = more / "whole", more / other
    assert_close_lines(lines_of(ours), lines_of(theirs), TOLERANCE)
    for name in ("valid", "test", "missing"):
        pairs = zip(
            *(jax.tree.leaves_with_path(results(f, name)) for f in (ours, theirs)), strict=True
        )
        for (path, x), (_, y) in pairs:
            assert x == pytest.approx(y, abs=TOLERANCE), path
    # Counts are whole numbers, summed over devices: a sum that missed one would be far off.
    for name, count in pool_of(ours).items():
        np.testing.assert_array_equal(count, pool_of(theirs)[name], err_msg=name)


# ---- seeds --------------------------------------------------------------------------------------


def learnt(path, x):
    """Returns what of a parameter has a gradient: all but the biases of keys.

    Those add the same to every score of a row, which a softmax does not see: their gradient is
    rounding alone, which Adam blows up to steps of any size.
    """
    if path.endswith("/key/bias"):
        return x[..., :0]
    return x[..., x.shape[-1] // 2 :] if path.endswith("/key_value/bias") else x


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_of_three_seeds_at_once_each_is_its_own_run(seed, more):
    place, together = SEEDS.index(seed), more / "seeds"
    alone = more / (f"seed-{seed}" if seed else "whole")
    ours = [line for line in lines_of(together) if line["seed"] == seed]
    assert_close_lines(ours, lines_of(alone), TOLERANCE)
    flat = restored(together, "best")[0]
    off = [
        np.ravel(np.abs(learnt(path, flat[path][place]) - learnt(path, x[0])))
        for path, x in restored(alone, "best")[0].items()
    ]
    off = np.concatenate(off)
    # Where a gradient is next to nothing, Adam makes steps of its rounding: of 0.001 at most.
    assert (off > TOLERANCE).mean() < 1e-3 and off.max() < 1e-3
    for name, count in pool_of(alone).items():
        np.testing.assert_array_equal(count, pool_of(together, place)[name], err_msg=name)


# ---- frozen towers ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def frozen(tmp_path_factory, raw, clip_folder):
    """A run with the towers of a tiny CLIP, that of text frozen, that of images not."""
    changes = {
        "model__weights": str(clip_folder),
        "model__frozen": ("text_tower",),
        "model__vision": "clip",
        "stages__missing__epochs": 1,
    }
    folder = made(tmp_path_factory.mktemp("frozen"), raw, {"frozen": (changes, 1, None)})
    return folder / "frozen", weights.clip(clip_folder).params


@pytest.mark.slow
def test_frozen_parameters_are_those_of_the_weights_to_the_end(frozen):
    workdir, given = frozen
    store = RunCheckpoints(workdir)
    params = store.restore_best()[0]["params"]
    store.close()
    one = jax.tree.map(lambda x: x[0], params["text_tower"])
    jax.tree.map(np.testing.assert_array_equal, one, given["text_tower"])
    trained = params["image_tower"]["patches"]["kernel"][0]
    # It began at the weights, and two epochs of small steps lead nowhere else.
    far = np.abs(trained - given["image_tower"]["patches"]["kernel"]).max()
    assert 0 < far < 0.1


@pytest.mark.slow
def test_frozen_parameters_are_kept_apart_and_have_no_optimizer_state(frozen):
    workdir, given = frozen
    for kind in ("latest", "best"):
        flat, meta = restored(workdir, kind)
        assert meta["frozen"] is True
        assert not [path for path in flat if "text_tower" in path]
        assert [path for path in flat if "image_tower" in path]
    # One a stage, written when the stage begins.
    folders = {f.name for f in (workdir / "checkpoints" / "frozen").iterdir()}
    assert folders == {"0", "1"}
    count = len(jax.tree.leaves(given["text_tower"]))
    paths = [*restored(workdir, "frozen")[0]]
    assert len(paths) == count
    assert all(path.startswith("frozen/text_tower/") for path in paths)


# ---- LoRA ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def adapted(tmp_path_factory, raw, clip_folder, clap_folder):
    """Runs whose towers of words, frames and sound LoRA adapts: whole, and stopped once."""
    changes = {
        "model__weights": str(clip_folder),
        "model__clap_weights": str(clap_folder),
        "model__vision": "clip",
        "model__audio": "clap",
        "model__lora_rank": 2,
        "stages__missing__epochs": 1,
    }
    pair = {"whole": (changes, 1, None), "between": (changes, 1, 1)}
    given = weights.clip(clip_folder).params | {
        "audio_clap": weights.clap(clap_folder).params["audio_tower"]
    }
    return made(tmp_path_factory.mktemp("adapted"), raw, pair), given


@pytest.mark.slow
def test_adapted_towers_are_those_of_the_weights_to_the_end(adapted):
    folder, given = adapted
    store = RunCheckpoints(folder / "whole")
    params = store.restore_best()[0]["params"]
    store.close()
    assert set(params["lora"]) == set(given)
    for name, tower in given.items():
        jax.tree.map(lambda x, y: np.testing.assert_array_equal(x[0], y), params[name], tower)
        drawn = [x for path, x in traverse_util.flatten_dict(params["lora"][name]).items()
                 if path[-1] == "b"]  # fmt: skip
        assert drawn and all(np.any(x) for x in drawn), name


@pytest.mark.slow
def test_checkpoints_hold_what_lora_adds_and_no_tower(adapted):
    folder, given = adapted
    for kind in ("latest", "best"):
        flat, meta = restored(folder / "whole", kind)
        assert meta["frozen"] is True
        towers = [path for path in flat if set(path.split("/")) & set(given)]
        assert towers and all("lora/" in path for path in towers)
        assert not [path for path in flat if "text_reader/" in path]
    paths = [*restored(folder / "whole", "frozen")[0]]
    assert {path.split("/")[1] for path in paths} == set(given)


@pytest.mark.slow
def test_a_stopped_run_with_lora_ends_as_one_that_never_was(adapted):
    folder, _ = adapted
    check_resumed(folder, "between")


@pytest.mark.slow
def test_a_run_with_lora_predicts_from_its_workdir(adapted, raw, tmp_path):
    folder, _ = adapted
    said = "What a day!"
    result = inference.recognize(folder / "whole", raw / "whole.mp4", text=said, output=tmp_path)
    (found,) = result["predictions"]
    assert not result["failed"] and sum(found["probability"].values()) == pytest.approx(1, abs=1e-5)
