"""What a task is to the training loop: stages, models, predictions and metrics.

A run reads one data set, `config.data` itself, whose name here is `MAIN`; or besides it, or in its
place, the unpaired ones of `config.data.sources`, each by the name of its modality.

Letters: B examples on this device, N examples of a split.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import jax
import numpy as np

from affectjax import metrics
from affectjax.data.batches.inputs import Inputs
from affectjax.data.batches.unpaired import Turns
from affectjax.data.labels import LabelSpec
from affectjax.errors import InputError
from affectjax.runtime import configs, lookup
from affectjax.runtime.optim import OptimConfig

MAIN = ""
# `select` of a stage whose last epoch counts, whatever the validation says.
LAST = "last"
Tree = Any
Model = dict[str, Any]
Batch = Mapping[str, Any]
Measurements = dict[str, jax.Array]
Loss = Callable[..., tuple[jax.Array, tuple[Tree, Measurements]]]


@dataclasses.dataclass(frozen=True)
class StageEnd:
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
class StageRules:
    """How long a stage is, and which of its epochs counts.

    Attributes:
      epochs: the most there are.
      batch_size: over all devices; of several data sets, one for each.
      select: the validation metric by which the best epoch is chosen, "loss", or `LAST`: the last
        epoch, for a stage whose length was chosen before.
      patience: epochs without a better one after which the stage ends, 0 for never.
      stop_accuracy: the stage ends after an epoch whose mean of the measurement "accuracy" is at
        least this, 0 for never.
    """

    epochs: int
    batch_size: int | Mapping[str, int]
    select: str = "loss"
    patience: int = 0
    stop_accuracy: float = 0.0


@dataclasses.dataclass(frozen=True)
class Stage:
    """One stage of training.

    `loss`, `init` and `on_epoch` are compiled: functions of JAX arrays without side effects. The
    others run on the host: `trains` on names, `prepare` and `on_end` on NumPy arrays, and they may
    read and write files.

    Attributes:
      name: stands in every line that is logged.
      rules: how long it is, and which epoch counts.
      optim: optimizer and learning rate.
      loss: `(params, variables, batch, rng, **settings) -> (scalar, (variables, measurements))`,
        per device; the scalar and the measurements are this device's parts, whose mean over devices
        counts.
      init: `(key, batch) -> (params, variables)`, new ones, of the model that it trains. Of
        unpaired data sets, `batch` is one of each by name.
      prepare: returns that new model with pretrained weights in place of new ones, where the run
        begins with this stage: the one place where they come in.
      turns: how unpaired data sets share its steps; None for a stage that reads `MAIN` alone.
      trains: whether the parameter of a path, as in "head/kernel", is trained.
      settings: numbers that the loss is given by name when it runs: two stages with the same loss
        share what is compiled, though their numbers differ.
      on_epoch: `variables -> variables` at the start of each epoch, None for nothing to do.
      on_end: hand-over of the best `{"params", "variables"}` to the next stage, which may be
        another model. The last stage has one too, for what it leaves in `StageEnd.folder`.
    """

    name: str
    rules: StageRules
    optim: OptimConfig
    loss: Loss
    init: Callable[[jax.Array, Batch], tuple[Tree, Tree]]
    prepare: Callable[[Model], Model] = lambda model: model
    turns: Turns | None = None
    trains: Callable[[str], bool] = lambda path: True
    settings: Mapping[str, float] = dataclasses.field(default_factory=dict)
    on_epoch: Callable[[Tree], Tree] | None = None
    on_end: Callable[[Model, StageEnd], Model] = lambda model, end: model

    @property
    def data_sets(self) -> tuple[str, ...]:
        """Returns the names of the data sets that it trains on and is validated on."""
        return (MAIN,) if self.turns is None else self.turns.names


class Scorer(Protocol):
    """Predictions for one data set, and what they are worth.

    Where predictions are more than one `probability` or `score` an example, a scorer also has
    `answers(predictions, label)`, see the function of that name here.

    Attributes:
      spec: what the labels mean.
      modalities: those that the model sees.
    """

    spec: LabelSpec
    modalities: tuple[str, ...]

    def predict(self, params: Tree, variables: Tree, batch: Batch) -> dict[str, jax.Array]:
        """Returns per example, all `[B, ...]`: what metrics and tables need, and `loss` `[B]`."""

    def metric_names(self) -> tuple[str, ...]:
        """Returns the names of those metrics that are single numbers, "loss" among them."""

    def metrics(self, predictions: Mapping[str, np.ndarray], label: np.ndarray) -> dict:
        """Returns the metrics by name of the predictions `[N, ...]` of a whole split."""

    def table(self, predictions: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns the columns of the csv of predictions, `prediction` first, each `[N]`."""


class Task(Scorer, Protocol):
    """What `affectjax.tasks.<name>.Task(config, inputs, axis_name)` provides: a scorer of `MAIN`.

    A module whose runs read other data sets has functions `data_sets(config)` and
    `evaluated_data_sets(config)`: the names of all of them, and of those that the last stage reads.
    Its Task takes `sources`, their inputs by name, and has `scorers`, one of each.

    Attributes:
      stages: in their order.
    """

    stages: tuple[Stage, ...]


@dataclasses.dataclass(frozen=True)
class StageConfig:
    """One entry of `config.stages`.

    Attributes: see `StageRules`.
    """

    epochs: int
    batch_size: int
    select: str = "loss"
    patience: int = 0

    def __post_init__(self):
        configs.at_least(self, epochs=1, batch_size=1, patience=0)

    def rules(self, **others: Any) -> StageRules:
        """Returns the rules that it says, with `others` in place of some."""
        names = [field.name for field in dataclasses.fields(StageRules)]
        own = {name: getattr(self, name) for name in names if hasattr(self, name)}
        return StageRules(**own | others)


def find(config: Mapping[str, Any]) -> ModuleType:
    """Returns the module that `config.task` names: one of this folder, or a dotted name.

    Raises:
      InputError: there is none, or it has no Task.
    """
    found = lookup.find(__package__, config["task"], '"config.task"', without=("base",))
    if not hasattr(found, "Task"):
        raise InputError(f'"config.task" is {config["task"]!r}, but that module has no Task')
    return found


def data_sets(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the names of the data sets that the run of a config reads."""
    return getattr(find(config), "data_sets", lambda _: (MAIN,))(config)


def evaluated_data_sets(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the names of the data sets that the last stage of a config reads."""
    return getattr(find(config), "evaluated_data_sets", lambda _: (MAIN,))(config)


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


def scorer(task: Any, name: str) -> Scorer:
    """Returns what predicts for the data set of that name, and says what that is worth."""
    return task if name == MAIN else task.scorers[name]


def answers(
    scorer: Scorer, predictions: Mapping[str, np.ndarray], label: np.ndarray
) -> dict[str, metrics.Answers]:
    """Returns what metrics are made from, by what stands before their names ("" for nothing).

    A scorer may say it itself; else it is `score` `[N]`, or `probability` `[N, C]` or `[N, K]`, of
    the predictions, and nothing where they have neither.

    Args:
      scorer: of the data set.
      predictions: `[N, ...]` of a whole split, of the model or of a baseline: at least the one that
        the kind of the labels asks for.
      label: `[N]` or `[N, K]`.
    """
    if hasattr(scorer, "answers"):
        return scorer.answers(predictions, label)
    spec = scorer.spec
    said = predictions.get("score" if spec.kind == "score" else "probability")
    return {} if said is None else {"": metrics.Answers(spec.kind, said, label, spec.classes)}


def measure(
    scorer: Scorer, predictions: Mapping[str, np.ndarray], label: np.ndarray
) -> metrics.Metrics:
    """Returns all metrics but the loss by name, see `answers`."""
    return {
        f"{prefix}{name}": value
        for prefix, own in answers(scorer, predictions, label).items()
        for name, value in metrics.measure(own).items()
    }


def class_table(probability: np.ndarray, classes: Sequence[str]) -> dict[str, np.ndarray]:
    """Returns the columns of the csv of a task with classes: `prediction`, then one a class.

    Args:
      probability: `[N, C]`.
      classes: C names.
    """
    columns = dict(zip(classes, probability.T, strict=True))
    return {"prediction": np.array(classes)[probability.argmax(-1)], **columns}
