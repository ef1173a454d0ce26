"""An encoder and a model of sequences in a folder outside the package, by their dotted names.

They are the examples of docs/architecture.md.
"""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from documents import examples
from numpy_mcr import quick

from affectjax.data.batches.inputs import Features, Frames, Inputs
from affectjax.data.labels import LabelSpec
from affectjax.errors import InputError
from affectjax.runtime import configs
from affectjax.tasks import mcr, supramodal, umbenet
from affectjax.training import run_config
from configs import umbenet as umbenet_file

ROOT = Path(__file__).parents[1]
SPEC = LabelSpec("class", ("angry", "glad", "sad"))
STAGE = {"epochs": 1, "batch_size": 4}
UMBENET = {
    "text": "features", "audio": "features", "vision": "elsewhere.glance", "glance_units": 7,
    "width": 8, "text_width": 8, "text_layers": 1, "text_heads": 2, "heads": 2, "pool_size": 4,
    "top_k": 2, "prompt_tokens": 2, "inherent_tokens": 2, "logit_scale": 5.0,
    "temporal_layers": 1, "temporal_heads": 2,
}  # fmt: skip


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """A folder on the Python path with a package `elsewhere`."""
    package = tmp_path / "elsewhere"
    package.mkdir()
    (package / "__init__.py").touch()
    for name in ("glance.py", "means.py"):
        (package / name).write_text(examples()[name])
    (package / "nothing.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    yield package
    for name in [n for n in sys.modules if n.partition(".")[0] == "elsewhere"]:
        del sys.modules[name]


def batch_of(inputs, size=4):
    """Returns a batch in which all is there."""
    rng, batch = np.random.default_rng(0), inputs.zeros(size)
    for m, kind in inputs.kinds.items():
        batch[m]["x"] = rng.integers(0, 200, batch[m]["x"].shape).astype(kind.dtype)
    return batch


def step(stage, params, variables, batch):
    """Returns the loss before and after a step down the gradient, and that gradient."""
    run = quick(jax.value_and_grad(functools.partial(stage.loss, **stage.settings), has_aux=True))
    key = jax.random.key(1)
    (loss, _), gradient = run(params, variables, batch, key)
    moved = jax.tree.map(lambda p, g: p - 0.01 * g, params, gradient)
    (after, _), _ = run(moved, variables, batch, key)
    return loss, after, gradient


def umbenet_config(**model):
    stages = {"missing": {**STAGE, "shows": "all"}}
    return {"model": UMBENET | model, "data": {}, "optim": {}, "stages": stages}


def test_an_encoder_of_images_trains_in_umbenet(outside):
    inputs = Inputs({"vision": Frames(2, 8)}, SPEC)
    task = umbenet.Task(umbenet_config(), inputs, None)
    batch = batch_of(inputs)
    params, variables = quick(task.init)(jax.random.key(0), batch)
    assert params["image_tower"]["up"]["kernel"].shape == (3, 7)
    loss, after, gradient = step(task.stages[0], params, variables, batch)
    assert after < loss
    assert np.any(gradient["image_tower"]["up"]["kernel"])


def test_the_same_encoder_reads_for_the_supramodal_learner(outside):
    seven = ("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise")
    inputs = {"vision": Inputs({"vision": Frames(1, 8)}, LabelSpec("class", seven))}
    config = {
        "model": {"learner": {"vision": "elsewhere.glance", "width": 8, "hidden": 6}},
        "data": {"sources": {"vision": {}}},
        "optim": {},
        "stages": {"sequential": STAGE},
    }
    task = supramodal.Task(config, None, None, inputs)
    params = jax.eval_shape(
        lambda key: task.stages[0].init(key, {"vision": inputs["vision"].zeros(2)})[0],
        jax.random.key(0),
    )
    assert params["vision"]["tower"]["down"]["kernel"].shape == (16, 8)


def test_the_keys_of_an_outside_encoder_are_keys_of_the_section(outside):
    whole = configs.resolve({**umbenet_config(), **TOP}, umbenet.sections(umbenet_config()))
    assert whole["model"]["glance_units"] == 7
    wrong = umbenet_config(glance_unit=3)
    with pytest.raises(InputError, match=r'did you mean "config.model.glance_units"'):
        configs.resolve({**wrong, **TOP}, umbenet.sections(wrong))


TOP = {"task": "umbenet", "seed": 0, "seeds": (), "train": {}, "parallel": {}, "optim": {}}


def mcr_config(**model):
    return {"model": {"name": "elsewhere.means", **model}, "optim": {}, "stages": {"train": STAGE}}


def test_a_model_of_sequences_trains_in_the_task_of_mcr(outside):
    inputs = Inputs({"text": Features(3, 5), "audio": Features(4, 6)}, SPEC)
    task = mcr.Task(mcr_config(units=9), inputs, None)
    batch = batch_of(inputs)
    params, variables = quick(task.init)(jax.random.key(0), batch)
    assert params["Dense_0"]["kernel"].shape == (5 + 6, 9)
    batch = jax.tree.map(lambda x: x / 100 if x.dtype == np.float32 and x.ndim == 3 else x, batch)
    loss, after, _ = step(task.stages[0], params, variables, batch)
    assert after < loss


def test_the_fields_of_an_outside_model_are_its_keys(outside):
    sections = mcr.sections(mcr_config())
    assert set(configs.fields(*sections["model"][0])) == {"name", "modalities", "text", "units"}
    inputs = Inputs({"text": Features(3, 5)}, SPEC)
    with pytest.raises(InputError, match=r'unknown config key "config.model.unit".*model.units'):
        mcr.Task(mcr_config(unit=3), inputs, None)


def test_the_command_line_chooses_an_outside_model(outside, own, tmp_path):
    """The keys that the file set for its own model are gone; one that is given is refused."""
    command = [
        sys.executable, "-m", "affectjax.main", "--config=configs/mcr.py:own",
        "--config.model.name=elsewhere.means", "--config.model.units=4",
        f"--config.data.dir={own}", "--config.stages.train.epochs=1",
        f"--workdir={tmp_path / 'run'}",
    ]  # fmt: skip
    env = os.environ | {"PYTHONPATH": str(outside.parent), "JAX_PLATFORMS": "cpu"}
    run = functools.partial(subprocess.run, env=env, cwd=ROOT, capture_output=True, text=True)
    trained = run(command)
    assert trained.returncode == 0, trained.stderr
    model = json.loads((tmp_path / "run" / "config.json").read_text())["config"]["model"]
    assert model == {
        "name": "elsewhere.means", "modalities": [], "text": "features", "units": 4,
    }  # fmt: skip
    refused = run([*command, "--config.model.layers=3"])
    assert refused.returncode == 2
    assert '"config.model.layers" is 3, but this run does not read it' in refused.stderr


def test_the_command_line_chooses_another_encoder():
    """`flip` and the like are of frames: features have none."""
    config = umbenet_file.get_config("clips")
    given = {"model.vision": "features", "model.audio": "features"}
    with config.unlocked():
        config.model.update(vision="features", audio="features")
    with pytest.raises(InputError, match=r"this run does not read it"):
        run_config.resolve(config)
    model = run_config.resolve(run_config.choose(config, given))["model"]
    assert not {"flip", "gain_db"} & model.keys()
    with pytest.raises(InputError, match=r'"config.model.flip" is 0.5, but this run does not'):
        run_config.resolve(run_config.choose(config, {**given, "model.flip": 0.5}))


REFUSED = {
    "no such encoder": ("elsewhere.gaze", r'"config.model.vision": .*no module .elsewhere.gaze'),
    "no encoder": ("elsewhere.nothing", r"but CONFIGS of that module has no vision; it has: noth"),
}


@pytest.mark.parametrize(("name", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_modules_that_are_no_encoders(outside, name, message):
    with pytest.raises(InputError, match=message):
        umbenet.sections(umbenet_config(vision=name))


def test_modules_that_are_no_models(outside):
    with pytest.raises(InputError, match=r"'elsewhere.nothing', but that module has no Model"):
        mcr.sections(mcr_config(name="elsewhere.nothing"))
