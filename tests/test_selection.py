"""Best epoch, stopping and plateaus, an epoch at a time and a seed at a time."""

import jax
import numpy as np
import pytest

from affectjax.runtime.optim import OptimConfig
from affectjax.tasks.base import Stage, StageRules
from affectjax.training import early_stopping

NAN = float("nan")
# What an epoch of training measured, where a rule does not depend on it.
TRAINED = {"learning_rate": 1.0, "accuracy": 0.0}


def stage(select="loss", patience=0, **optim):
    return Stage("train", StageRules(9, 4, select, patience), OptimConfig(**optim), None, None)


def follow(stage, *seeds):
    """Returns the state after every epoch and who improved; `seeds` are values, one an epoch."""
    control, states, improved = early_stopping.start(stage, len(seeds)), [], []
    for epoch, values in enumerate(zip(*seeds, strict=True)):
        measured = [{"loss": 0.0, stage.rules.select: float(v)} for v in values]
        control, better = early_stopping.update(
            control, stage, epoch, measured, [TRAINED] * len(seeds)
        )
        states.append(control)
        improved.append(better.tolist())
    return states, improved


def history(states, name, seed=0):
    return [state[name][seed].item() for state in states]


def test_before_the_first_epoch():
    control = early_stopping.start(stage("war"), 3)
    assert control["best_epoch"].tolist() == [-1] * 3
    assert control["best_value"].tolist() == [-np.inf] * 3
    assert early_stopping.start(stage("mae"), 1)["best_value"].tolist() == [np.inf]
    assert control["active"].all()
    assert control["scale"].tolist() == [1] * 3
    assert not control["stale"].any()
    for leaf in jax.tree.leaves(control):
        assert isinstance(leaf, np.ndarray), "a state of arrays lies in a checkpoint"
        assert leaf.shape[0] == 3


CASES = {
    "lower loss is better": ("loss", (3, 2, 4, 1), (0, 1, 1, 3), (1, 1, 0, 1)),
    "lower mae is better": ("mae", (3, 4, 2), (0, 0, 2), (1, 0, 1)),
    "higher accuracy is better": ("war", (0.3, 0.2, 0.4), (0, 0, 2), (1, 0, 1)),
    "a tie stays with the first": ("war", (0.3, 0.4, 0.4, 0.4), (0, 1, 1, 1), (1, 1, 0, 0)),
    "NaN is never better": ("loss", (2, NAN, 3, 1), (0, 0, 0, 3), (1, 0, 0, 1)),
    "NaN at first is not the best": ("war", (NAN, 0.1, NAN), (-1, 1, 1), (0, 1, 0)),
    "NaN throughout has no best": ("corr", (NAN, NAN), (-1, -1), (0, 0)),
    "negative correlation": ("corr", (-0.5, -0.2, -0.3), (0, 1, 1), (1, 1, 0)),
    "accuracy of zero is one": ("war", (0.0, 0.0), (0, 0), (1, 0)),
}


@pytest.mark.parametrize(("select", "values", "epochs", "better"), CASES.values(), ids=CASES.keys())
def test_best_epoch(select, values, epochs, better):
    states, improved = follow(stage(select), values)
    assert history(states, "best_epoch") == list(epochs)
    assert [row[0] for row in improved] == [bool(b) for b in better]
    for state in states:
        if state["best_epoch"][0] >= 0:
            assert state["best_value"][0] == values[state["best_epoch"][0]]
    assert history(states, "active") == [True] * len(values), "no patience, no stop"


def test_each_seed_stops_by_its_own_patience():
    never_better = (1, 2, 2, 2, 2)
    late = (5, 6, 4, 6, 6)
    better = (5, 4, 3, 2, 1)
    broken = (NAN, NAN, NAN, 0.5, 0.5)
    states, improved = follow(stage(patience=2), never_better, late, better, broken)
    assert history(states, "active", 0) == [True, True, False, False, False]
    assert history(states, "active", 1) == [True, True, True, True, False]
    assert history(states, "active", 2) == [True] * 5
    assert history(states, "active", 3) == [True, False, False, False, False]
    assert history(states, "stale", 1) == [0, 1, 0, 1, 2]
    assert [s["best_epoch"].tolist() for s in states][-1] == [0, 2, 4, -1]
    assert improved[-1] == [False, False, True, False]


def test_model_that_has_stopped_is_frozen():
    """Values of a stopped model are those of a model that no longer trains: not to be chosen."""
    states, improved = follow(stage(patience=1), (1, 2, 0.1), (3, 2, 1))
    assert history(states, "best_epoch", 0) == [0, 0, 0]
    assert history(states, "best_value", 0) == [1, 1, 1]
    assert history(states, "stale", 0) == [0, 1, 1]
    assert improved[2] == [False, True]


def test_update_changes_nothing_that_it_is_given():
    control = early_stopping.start(stage(), 2)
    before = jax.tree.map(np.copy, control)
    early_stopping.update(control, stage(), 0, [{"loss": 1.0}, {"loss": 2.0}], [TRAINED] * 2)
    jax.tree.map(np.testing.assert_array_equal, control, before)


def test_rate_falls_on_a_plateau_of_the_loss_whatever_is_selected():
    chosen = stage("war", plateau_patience=2, plateau_factor=0.5)
    control, scales = early_stopping.start(chosen, 2), []
    losses = [(1.0, 3.0), (1.0, 2.0), (1.0, 1.0), (1.0, 1.0), (1.0, NAN), (0.5, 1.0)]
    for epoch, row in enumerate(losses):
        measured = [{"loss": loss, "war": 0.1 * epoch} for loss in row]
        control, _ = early_stopping.update(
            control, chosen, epoch, measured, [TRAINED] * len(measured)
        )
        scales.append(control["scale"].tolist())
    # Model 0: epochs 1 and 2 bring nothing, then 3 and 4. Model 1: epochs 3 and 4.
    assert [s[0] for s in scales] == [1, 1, 0.5, 0.5, 0.25, 0.25]
    assert [s[1] for s in scales] == [1, 1, 1, 1, 0.5, 0.5]


def test_rate_does_not_fall_without_a_plateau_rule():
    states, _ = follow(stage(), (1, 1, 1, 1))
    assert history(states, "scale") == [1] * 4


def test_stops_at_the_training_accuracy():
    chosen = Stage("train", StageRules(9, 4, stop_accuracy=0.8), OptimConfig(), None, None)
    control = early_stopping.start(chosen, 2)
    trained = [TRAINED | {"accuracy": 0.79}, TRAINED | {"accuracy": 0.8}]
    control, _ = early_stopping.update(control, chosen, 0, [{"loss": 1.0}] * 2, trained)
    assert control["active"].tolist() == [True, False]


def test_stops_when_the_plateau_leaves_less_than_the_least_rate():
    chosen = stage(plateau_patience=1, plateau_factor=0.5, stop_rate=0.3)
    control = early_stopping.start(chosen, 1)
    active, scales = [], []
    for epoch in range(5):
        # The rate as a step measures it: with the scale of the epoch before.
        trained = [{"learning_rate": 1.0 * control["scale"][0]}]
        control, _ = early_stopping.update(control, chosen, epoch, [{"loss": 1.0}], trained)
        active.append(control["active"].item())
        scales.append(control["scale"].item())
    stopped = active.index(False)
    assert scales[stopped] < 0.3 <= scales[stopped - 1]
    assert not any(active[stopped:])
