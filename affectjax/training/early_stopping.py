"""Which epoch is best, when the rate falls, when a model stops: once an epoch, on the host.

The state is a dict of arrays with an axis of seeds (S models), so that it lies in a checkpoint.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from affectjax import metrics
from affectjax.runtime import optim
from affectjax.tasks.base import LAST, Stage

EarlyStopping = dict[str, Any]


def start(stage: Stage, models: int) -> EarlyStopping:
    """Returns the state before the first epoch of a stage.

    Returns:
      `best_value`, `best_epoch` (-1: none yet), `stale` (epochs since then), `scale` (of the
      learning rate), `active` (still training), `[S]` each, and `plateau`, optax's own.
    """
    worst = np.inf if metrics.lower_is_better(stage.rules.select) else -np.inf
    plateau = jax.device_get(optim.plateau(stage.optim).init(np.ones((), np.float32)))
    return {
        "best_value": np.full(models, worst),
        "best_epoch": np.full(models, -1, np.int32),
        "stale": np.zeros(models, np.int32),
        "scale": np.ones(models, np.float32),
        "active": np.ones(models, bool),
        "plateau": jax.tree.map(lambda x: np.stack([x] * models), plateau),
    }


def update(
    state: EarlyStopping,
    stage: Stage,
    epoch: int,
    measured: Sequence[Mapping[str, Any]],
    trained: Sequence[Mapping[str, Any]],
) -> tuple[EarlyStopping, np.ndarray]:
    """Returns the state after an epoch, and which models improved, `[S]` bool.

    Args:
      state: before the epoch; not changed.
      stage: its `select`, `patience` and plateau rule.
      epoch: its number.
      measured: the validation metrics of each model, "loss" among them.
      trained: the means of each model's measurements over the epoch.
    """
    state = jax.tree.map(np.copy, state)
    better = np.zeros(len(measured), bool)
    sign = 1 if metrics.lower_is_better(stage.rules.select) else -1
    for s in np.flatnonzero(state["active"]):
        value = measured[s]["loss" if stage.rules.select == LAST else stage.rules.select]
        better[s] = stage.rules.select == LAST or sign * value < sign * state["best_value"][s]
        if better[s]:
            state["best_value"][s], state["best_epoch"][s] = value, epoch
        state["stale"][s] = 0 if better[s] else state["stale"][s] + 1
        before = state["scale"][s]
        _lower_rate(state, stage, s, measured[s]["loss"])
        rate = trained[s]["learning_rate"] * state["scale"][s] / before
        state["active"][s] = not (
            (stage.rules.patience and state["stale"][s] >= stage.rules.patience)
            or (stage.rules.stop_accuracy and trained[s]["accuracy"] >= stage.rules.stop_accuracy)
            or rate < stage.optim.stop_rate
        )
    return state, better


def _lower_rate(state: EarlyStopping, stage: Stage, s: int, loss: float) -> None:
    """Applies the plateau rule of model `s` in place."""
    plateau = optim.plateau(stage.optim)
    own = jax.tree.map(lambda x: x[s], state["plateau"])
    factor, own = plateau.update(np.ones((), np.float32), own, value=np.float32(loss))
    state["scale"][s] = factor
    for all_models, new in zip(
        jax.tree.leaves(state["plateau"]), jax.tree.leaves(own), strict=True
    ):
        all_models[s] = new
