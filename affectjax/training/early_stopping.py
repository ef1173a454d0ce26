"""Which epoch is best, when the rate falls, when a model stops: once an epoch, on the host.

The state is a dict of arrays with an axis of seeds (S models), so that it lies in a checkpoint.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from affectjax import metrics
from affectjax.runtime import optim
from affectjax.tasks.base import Stage

Control = dict[str, Any]
# `select` of a stage whose last epoch counts, whatever the validation says.
LAST = "last"


def begin(stage: Stage, models: int) -> Control:
    """Returns the state before the first epoch of a stage.

    Returns:
      `best_value`, `best_epoch` (-1: none yet), `stale` (epochs since then), `scale` (of the
      learning rate), `active` (still training), `[S]` each, and `plateau`, optax's own.
    """
    worst = np.inf if metrics.lower_is_better(stage.select) else -np.inf
    plateau = jax.device_get(optim.plateau(stage.optim).init(np.ones((), np.float32)))
    return {
        "best_value": np.full(models, worst),
        "best_epoch": np.full(models, -1, np.int32),
        "stale": np.zeros(models, np.int32),
        "scale": np.ones(models, np.float32),
        "active": np.ones(models, bool),
        "plateau": jax.tree.map(lambda x: np.stack([x] * models), plateau),
    }


def judge(
    control: Control,
    stage: Stage,
    epoch: int,
    measured: Sequence[Mapping[str, Any]],
    trained: Sequence[Mapping[str, Any]],
) -> tuple[Control, np.ndarray]:
    """Returns the state after an epoch, and which models improved, `[S]` bool.

    Args:
      control: before the epoch; not changed.
      stage: its `select`, `patience` and plateau rule.
      epoch: its number.
      measured: the validation metrics of each model, "loss" among them.
      trained: the means of each model's measurements over the epoch.
    """
    control = jax.tree.map(np.copy, control)
    better = np.zeros(len(measured), bool)
    sign = 1 if metrics.lower_is_better(stage.select) else -1
    for s in np.flatnonzero(control["active"]):
        value = measured[s]["loss" if stage.select == LAST else stage.select]
        better[s] = stage.select == LAST or sign * value < sign * control["best_value"][s]
        if better[s]:
            control["best_value"][s], control["best_epoch"][s] = value, epoch
        control["stale"][s] = 0 if better[s] else control["stale"][s] + 1
        before = control["scale"][s]
        _lower_rate(control, stage, s, measured[s]["loss"])
        rate = trained[s]["learning_rate"] * control["scale"][s] / before
        control["active"][s] = not (
            (stage.patience and control["stale"][s] >= stage.patience)
            or (stage.stop_accuracy and trained[s]["accuracy"] >= stage.stop_accuracy)
            or rate < stage.optim.stop_rate
        )
    return control, better


def _lower_rate(control: Control, stage: Stage, s: int, loss: float) -> None:
    """Applies the plateau rule of model `s` in place."""
    plateau = optim.plateau(stage.optim)
    own = jax.tree.map(lambda x: x[s], control["plateau"])
    factor, own = plateau.update(np.ones((), np.float32), own, value=np.float32(loss))
    control["scale"][s] = factor
    for all_models, new in zip(
        jax.tree.leaves(control["plateau"]), jax.tree.leaves(own), strict=True
    ):
        all_models[s] = new
