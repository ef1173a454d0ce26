"""A trained run as a folder of its own: parameters, preprocessing, a card, and the program.

    README.md             the card: data, metrics, baselines, limits
    config.json           the whole config, versions
    model.safetensors     parameters and variables of all seeds, by their paths
    inputs.json           how media become batches; with standardization.npz and tokenizer/
    weights/              what pretrained towers are built from, where the run has any
    eval/                 the metrics of validation and test, and the simple baselines
    network.stablehlo     the network as a program of `jax.export`, for any batch size
    network.json          its inputs and outputs

`affectjax.load` takes the folder as it takes a workdir. Letters: S seeds, B batch, C classes.
"""

import dataclasses
import fnmatch
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export as jax_export
from safetensors.numpy import save

from affectjax.data.batches import prediction_input, saved_inputs
from affectjax.data.batches.inputs import Features, Inputs
from affectjax.data.raw.dataset import CLIPS
from affectjax.errors import InputError
from affectjax.reports import card
from affectjax.runtime import checkpoints, configs, hub, manifest
from affectjax.runtime.workdir import CONFIG, PLACED, Workdir, json_bytes
from affectjax.tasks import base
from affectjax.training import evaluator, folds, run_config
from affectjax.training.run_checkpoints import EXPORTED

MOST = 2**31 - 2**26  # bytes of parameters in a program
PLATFORMS = ("cpu", "cuda", "tpu")
NETWORK, DESCRIBED, CARD = "network.stablehlo", "network.json", "README.md"
# Keys of `config.model` that name folders a model is built from.
FOLDERS = ("weights", "bank")


def export(workdir: str | Path, folder: str | Path, *, program: bool = True) -> Path:
    """Writes the folder of a finished run, and returns it.

    Args:
      workdir: of the run; of one with folds, that of a fold.
      folder: a new or empty one.
      program: whether to write the network as a program too.

    Raises:
      InputError: nothing is trained there, the folder holds something, or cannot be written.
    """
    path, to = Path(workdir), Path(folder)
    run = Workdir(path)
    config = run.config()
    if folds.fold_names(config):
        raise InputError(f"{path} has folds; export one of them, as {path}/folds/1")
    if base.MAIN not in base.evaluated_data_sets(config):
        raise InputError(f"{path} has learned concepts alone: there is no recogniser to export")
    if not (path / "eval" / "test.json").is_file():
        raise InputError(f"{path} has no eval/test.json: is the run finished?")
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise InputError(f"{to} holds something already; choose a new folder")
    inputs = saved_inputs.load(path)
    task = base.build(config, {base.MAIN: inputs}, None)
    seeds = configs.seeds(config)
    model = evaluator.load_best(run, task, {base.MAIN: inputs}, seeds)
    size = sum(x.nbytes for x in jax.tree.leaves(model["params"]))
    if program and size > MOST:
        raise InputError(
            f"the parameters take {size / 2**30:.1f} GiB, and a program holds less than 2: export "
            "with --noprogram"
        )
    try:
        to.mkdir(parents=True, exist_ok=True)
        _write(path, to, config, inputs, model)
        if program:
            _write_program(to, task, inputs, model)
        (to / CARD).write_text(card.text(path, task.modalities), encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write to {to}: {error}") from error
    return to


def _write(
    path: Path, to: Path, config: Mapping[str, Any], inputs: Inputs, model: Mapping[str, Any]
) -> None:
    """Writes all but the program and the card."""
    said = json.loads((path / CONFIG).read_text(encoding="utf-8"))
    own = {"config": with_folders({**config, "data": _data(config, inputs, to)}, to)}
    manifest.write(to, {CONFIG: json_bytes({**said, **own})})
    flat = checkpoints.flatten({k: model[k] for k in ("params", "variables")})
    arrays = {name: np.ascontiguousarray(x) for name, x in flat.items()}
    manifest.write(to, {EXPORTED: save(arrays)})
    saved_inputs.save(inputs, to)
    shutil.copytree(path / "eval", to / "eval", ignore=shutil.ignore_patterns("*.csv", "seeds"))


def _data(config: Mapping[str, Any], inputs: Inputs, to: Path) -> dict[str, Any]:
    """Returns `config.data` without the folder of the data: how clips are decoded stands in it."""
    own = run_config.data_sets(config)[base.MAIN]
    found = {**config["data"], "dir": ""}
    if own.view != CLIPS:
        return found
    how = dataclasses.asdict(prediction_input.storage(own, inputs))
    if Path(how["detector"]).is_file():
        (to / PLACED).mkdir(exist_ok=True)
        shutil.copy(how["detector"], to / PLACED)
        how["detector"] = PLACED + Path(how["detector"]).name
    return found | {key: value for key, value in how.items() if key in found}


def with_folders(config: Mapping[str, Any], to: Path) -> dict[str, Any]:
    """Returns a config whose model is built from folders within `to`, where they are copied to."""

    def walk(section: Mapping[str, Any], trail: str) -> dict[str, Any]:
        made = {}
        for key, value in section.items():
            if isinstance(value, Mapping):
                value = walk(value, f"{trail}{key}.")
            elif key.endswith(FOLDERS) and value and hub.local(value).is_dir():
                name = f"{PLACED}{trail}{key}"
                shutil.copytree(hub.local(value), to / name, ignore=_unwanted)
                value = name
            made[key] = value
        return made

    model = {k: v for k, v in config["model"].items() if k != "learner"}  # it never predicts
    kept = {k: v for k, v in config["model"].items() if k == "learner"}
    return {**config, "model": walk(model, "") | kept}


def _unwanted(folder: str, names: list[str]) -> set[str]:
    """Returns what of a folder with weights no model is built from, such as pickles."""
    files = {name for name in names if not (Path(folder) / name).is_dir()}
    return {name for name in files if not any(fnmatch.fnmatch(name, w) for w in hub.WANTED)}


# ---- the program --------------------------------------------------------------------------------


def _write_program(to: Path, task: Any, inputs: Inputs, model: Mapping[str, Any]) -> None:
    """Writes the network as StableHLO, its parameters within it, and what goes in and out."""
    params, variables = model["params"], model["variables"]
    kind = task.spec.kind
    name = "score" if kind == "score" else "probability"

    def one(parts: Mapping[str, Mapping[str, jax.Array]]) -> jax.Array:
        batch = _batch(inputs, jax.tree.map(lambda x: x[None], parts))
        each = jax.vmap(task.predict, (0, 0, None))(params, variables, batch)
        return each[name].mean(0)[0]

    # One example at a time as far as the models know: what they do with the number of examples
    # would have to hold for a number that is a symbol.
    network = jax.vmap(one)

    (size,) = jax_export.symbolic_shape("batch")
    arguments = {}
    for m in task.modalities:
        own = inputs.kinds[m]
        x = jax.ShapeDtypeStruct((size, *own.shape), own.dtype)
        arguments[m] = {"x": x, "mask": jax.ShapeDtypeStruct((size, own.shape[0]), np.bool_)}
    made = jax_export.export(jax.jit(network), platforms=PLATFORMS)(arguments)
    described = {
        "inputs": {
            m: {
                "x": {"shape": ["batch", *inputs.kinds[m].shape], "dtype": _dtype(inputs, m)},
                "mask": {"shape": ["batch", inputs.kinds[m].shape[0]], "dtype": "bool"},
                "kind": inputs.kinds[m].kind,
            }
            for m in task.modalities
        },
        "output": {"name": name, "classes": list(task.spec.classes)},
        "platforms": list(PLATFORMS),
    }
    files = {NETWORK: bytes(made.serialize()), DESCRIBED: json_bytes(described)}
    manifest.write(to, files)


def _dtype(inputs: Inputs, m: str) -> str:
    return np.dtype(inputs.kinds[m].dtype).name


def _batch(inputs: Inputs, parts: Mapping[str, Mapping[str, jax.Array]]) -> dict[str, Any]:
    """Returns what a model reads; features come as they are measured, and are standardised here."""
    batch: dict[str, Any] = {"present": {}}
    for m, own in parts.items():
        x, mask = own["x"], own["mask"]
        if isinstance(inputs.kinds[m], Features):
            if m in inputs.statistics:
                x = (x - inputs.statistics[m]["mean"]) / inputs.statistics[m]["std"]
            x = jnp.where(mask[..., None], x, 0)
        batch[m] = {"x": x, "mask": mask}
        batch["present"][m] = mask.any(-1)
    rows = next(iter(batch["present"].values()))
    blank = inputs.spec.blank(1)
    batch["label"] = jnp.zeros((rows.shape[0], *blank.shape[1:]), blank.dtype)
    batch["weight"] = jnp.ones(rows.shape, jnp.float32)
    return batch
