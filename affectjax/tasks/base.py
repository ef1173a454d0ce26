"""What a task is to the training loop: stages, models, predictions and metrics.

A run reads one data set, `config.data` itself, whose name here is `MAIN`; or besides it, or in its
place, the unpaired ones of `config.data.sources`, each by the name of its modality.

Letters: B examples on this device, N examples of a split.
"""

import dataclasses
import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np

from affectjax.data.batches.inputs import Inputs
from affectjax.data.batches.unpaired import Turns
from affectjax.data.labels import LabelSpec
from affectjax.errors import InputError
from affectjax.runtime.optim import OptimConfig

MAIN = ""
Tree = Any
Model = dict[str, Any]
Batch = Mapping[str, Any]
Measurements = dict[str, jax.Array]
Loss = Callable[[Tree, Tree, Batch, jax.Array], tuple[jax.Array, tuple[Tree, Measurements]]]


@dataclasses.dataclass(frozen=True)
class Ending:
    """What the end of a stage may ask for, besides the model.

    Attributes:
      seed: of the model.
      folder: for what this model leaves behind.
      run: `(function, name, role) -> (outputs, ids, labels)`: a function `(params, variables,
        batch) -> tree of [B, ...]` over a whole part of a data set, with the model that the stage
        leaves; the outputs `[N, ...]`, host side, in the part's order.
    """

    seed: int
    folder: Path
    run: Callable[[Callable[..., Tree], str, str], tuple[Tree, list[str], np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Stage:
    """One stage of training.

    Attributes:
      name: stands in every line that is logged.
      loss: `(params, variables, batch, rng) -> (scalar, (variables, measurements))`, per device;
        the scalar and the measurements are this device's parts, whose mean over devices counts.
      trains: whether the parameter of a path, as in "head/kernel", is trained.
      optim: optimizer and learning rate.
      epochs: the most there are.
      batch_size: over all devices; of several data sets, one for each.
      select: the validation metric by which the best epoch is chosen, "loss", or "last": the last
        epoch, for a stage whose length was chosen before.
      patience: epochs without a better one after which the stage ends, 0 for never.
      stop_accuracy: the stage ends after an epoch whose mean of the measurement "accuracy" is at
        least this, 0 for never.
      turns: how unpaired data sets share its steps; None for a stage that reads `MAIN` alone.
      init: `(key, batch) -> (params, variables)`, new ones, where the run begins with this stage;
        None for `Task.init`. Of unpaired data sets, `batch` is one of each by name.
      prepare: returns that new model, host side, with pretrained weights in place of new ones: the
        one place where they come in.
      on_epoch: `variables -> variables` at the start of each epoch, None for nothing to do.
      on_leave: what a model leaves behind when the stage ends, None for nothing.
      on_end: hand-over of a model's `{"params", "variables"}`, host side, to the next stage, which
        may be another model.
    """

    name: str
    loss: Loss
    optim: OptimConfig
    epochs: int
    batch_size: int | Mapping[str, int]
    select: str
    patience: int = 0
    trains: Callable[[str], bool] = lambda path: True
    stop_accuracy: float = 0.0
    turns: Turns | None = None
    init: Callable[[jax.Array, Batch], tuple[Tree, Tree]] | None = None
    prepare: Callable[[Model], Model] = lambda model: model
    on_epoch: Callable[[Tree], Tree] | None = None
    on_leave: Callable[[Model, Ending], None] | None = None
    on_end: Callable[[Model, Ending], Model] = lambda model, ending: model

    @property
    def reads(self) -> tuple[str, ...]:
        """Returns the names of the data sets that it trains on and is validated on."""
        return (MAIN,) if self.turns is None else self.turns.names


class Judge(Protocol):
    """Predictions for one data set, and what they are worth.

    Attributes:
      spec: what the labels mean.
      modalities: those that the model sees.
    """

    spec: LabelSpec
    modalities: tuple[str, ...]

    def predict(self, params: Tree, variables: Tree, batch: Batch) -> dict[str, jax.Array]:
        """Returns per example, all `[B, ...]`: what metrics and tables need, and `loss` `[B]`."""

    def metrics(self, predictions: Mapping[str, np.ndarray], label: np.ndarray) -> dict:
        """Returns the metrics by name of the predictions `[N, ...]` of a whole split."""

    def table(self, predictions: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns the columns of the csv of predictions, `prediction` first, each `[N]`."""


class Task(Judge, Protocol):
    """What `affectjax.tasks.<name>.Task(config, inputs, axis_name)` provides: a judge of `MAIN`.

    A module whose runs read other data sets has functions `reads(config)` and `evaluated(config)`:
    the names of all of them, and of those that the last stage reads. Its Task takes `sources`,
    their inputs by name, and has `judges`, one of each.

    Attributes:
      stages: in their order.
    """

    stages: tuple[Stage, ...]

    def init(self, key: jax.Array, batch: Batch) -> tuple[Tree, Tree]:
        """Returns new params and variables of the last stage for batches shaped as `batch`."""


@dataclasses.dataclass(frozen=True)
class StageConfig:
    """One entry of `config.stages`.

    Attributes: see `Stage`.
    """

    epochs: int
    batch_size: int
    select: str = "loss"
    patience: int = 0

    def __post_init__(self):
        for key, least in (("epochs", 1), ("batch_size", 1), ("patience", 0)):
            if getattr(self, key) < least:
                raise ValueError(f"{key} is {getattr(self, key)}; allowed: {least} or more")


def find(config: Mapping[str, Any]) -> Any:
    """Returns the module `affectjax.tasks.<config.task>`.

    Raises:
      InputError: there is none.
    """
    package = importlib.import_module("affectjax.tasks")
    names = [m.name for m in pkgutil.iter_modules(package.__path__) if m.name != "base"]
    if config["task"] not in names:
        raise InputError(f'"config.task" is {config["task"]!r}; allowed: {", ".join(names)}')
    return importlib.import_module(f"affectjax.tasks.{config['task']}")


def reads(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the names of the data sets that the run of a config reads."""
    return getattr(find(config), "reads", lambda _: (MAIN,))(config)


def evaluated(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the names of the data sets that the last stage of a config reads."""
    return getattr(find(config), "evaluated", lambda _: (MAIN,))(config)


def sections(config: Mapping[str, Any]) -> dict[str, tuple[Sequence[type], Sequence[type]]]:
    """Returns by dotted name the parts of the sections that a task reads.

    See `affectjax.runtime.configs.resolve`; of "data" those groups that it reads besides what the
    data sets read themselves. Sections that a task does not name are taken as they are.
    """
    return dict(getattr(find(config), "sections", lambda _: {})(config))


def zeros(inputs: Mapping[str, Inputs], names: Sequence[str], size: int = 2) -> Batch:
    """Returns a batch of zeros to initialise a model with: of `MAIN`, or one of each by name."""
    batches = {name: inputs[name].zeros(size) for name in names}
    return batches.get(MAIN, batches)


def build(config: Mapping[str, Any], inputs: Mapping[str, Inputs], axis_name: str | None) -> Any:
    """Returns the task of a config.

    Args:
      config: the whole config.
      inputs: by name of a data set, what its batches hold.
      axis_name: the mapped axis over which a batch is split, None where it is whole.
    """
    sources = {name: own for name, own in inputs.items() if name != MAIN}
    more = {"sources": sources} if sources else {}
    return find(config).Task(config, inputs.get(MAIN), axis_name, **more)


def judge(task: Any, name: str) -> Judge:
    """Returns what judges the predictions for the data set of that name."""
    return task if name == MAIN else task.judges[name]


def class_table(probability: np.ndarray, classes: Sequence[str]) -> dict[str, np.ndarray]:
    """Returns the columns of the csv of a task with classes: `prediction`, then one a class.

    Args:
      probability: `[N, C]`.
      classes: C names.
    """
    columns = dict(zip(classes, probability.T, strict=True))
    return {"prediction": np.array(classes)[probability.argmax(-1)], **columns}
