"""What a task is to the training loop: stages, a model, predictions and metrics.

Letters: B examples on this device, N examples of a split.
"""

import dataclasses
import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import jax
import numpy as np

from affectjax.data.labels import LabelSpec
from affectjax.errors import InputError
from affectjax.runtime.configs import check_keys
from affectjax.runtime.optim import OptimConfig

Tree = Any
Batch = Mapping[str, Any]
Measurements = dict[str, jax.Array]
Loss = Callable[[Tree, Tree, Batch, jax.Array], tuple[jax.Array, tuple[Tree, Measurements]]]


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
      batch_size: over all devices.
      select: the validation metric by which the best epoch is chosen, "loss", or "last": the last
        epoch, for a stage whose length was chosen before.
      patience: epochs without a better one after which the stage ends, 0 for never.
      stop_accuracy: the stage ends after an epoch whose mean of the measurement "accuracy" is at
        least this, 0 for never.
      on_epoch: `variables -> variables` at the start of each epoch, None for nothing to do.
      on_end: hand-over of a model's `{"params", "variables"}`, host side, and its seed to the next
        stage, which may add or reshape parameters.
    """

    name: str
    loss: Loss
    optim: OptimConfig
    epochs: int
    batch_size: int
    select: str
    patience: int = 0
    trains: Callable[[str], bool] = lambda path: True
    stop_accuracy: float = 0.0
    on_epoch: Callable[[Tree], Tree] | None = None
    on_end: Callable[[Tree, int], Tree] = lambda model, seed: model


class Task(Protocol):
    """What `affectjax.tasks.<name>.Task(config, inputs, axis_name)` provides.

    Attributes:
      stages: in their order.
      spec: what the labels mean.
      modalities: those that the model sees.
      pretrained: parameters in place of new ones, those of the model's that came from a file.
    """

    stages: tuple[Stage, ...]
    spec: LabelSpec
    modalities: tuple[str, ...]
    pretrained: Tree

    def init(self, key: jax.Array, batch: Batch) -> tuple[Tree, Tree]:
        """Returns new params and variables for batches shaped as `batch`."""

    def predict(self, params: Tree, variables: Tree, batch: Batch) -> dict[str, jax.Array]:
        """Returns per example, all `[B, ...]`: what metrics and tables need, and `loss` `[B]`."""

    def metrics(self, predictions: Mapping[str, np.ndarray], label: np.ndarray) -> dict:
        """Returns the metrics by name of the predictions `[N, ...]` of a whole split."""

    def table(self, predictions: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns the columns of the csv of predictions, `prediction` first, each `[N]`."""


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


def class_table(probability: np.ndarray, classes: Sequence[str]) -> dict[str, np.ndarray]:
    """Returns the columns of the csv of a task with classes: `prediction`, then one a class.

    Args:
      probability: `[N, C]`.
      classes: C names.
    """
    columns = dict(zip(classes, probability.T, strict=True))
    return {"prediction": np.array(classes)[probability.argmax(-1)], **columns}


def model_fields(cls: type, section: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the arguments of Flax module `cls`: a config section's keys, and what is given.

    Raises:
      InputError: a key is no attribute of the module.
    """
    fill = ("parent", "name", *given)
    known = [f.name for f in dataclasses.fields(cls) if f.name not in fill]
    check_keys(section, known, "config.model")
    return {**section, **given}
