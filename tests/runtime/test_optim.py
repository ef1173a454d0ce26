"""Learning rates at hand-worked steps, clipping, and Adam's first step."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from affectjax.runtime import optim
from affectjax.runtime.optim import OptimConfig


def rates(config, epochs, steps, at):
    schedule = optim.schedule(config, epochs, steps)
    return [float(schedule(step)) for step in at]


def test_constant():
    ours = rates(OptimConfig(learning_rate=0.3), 5, 10, (0, 1, 49, 50))
    assert ours == pytest.approx([0.3] * 4)


def test_step_falls_at_the_first_step_of_its_epoch():
    config = OptimConfig(schedule="step", learning_rate=1.0, step_epochs=(2, 4), step_factor=0.1)
    # Ten steps an epoch: epochs 0 and 1 are steps 0 to 19.
    ours = rates(config, 6, 10, (0, 19, 20, 39, 40, 59))
    assert ours == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_cosine_ends_at_zero():
    config = OptimConfig(schedule="cosine", learning_rate=0.2)
    # 0.1 (1 + cos(pi i / 40)) at i = 0, 10, 20, 30, 40: a quarter turn is sqrt(1/2) off the middle.
    half = 0.1 / np.sqrt(2)
    ours = rates(config, 4, 10, (0, 10, 20, 30, 40))
    assert ours == pytest.approx([0.2, 0.1 + half, 0.1, 0.1 - half, 0.0], abs=1e-7)


def test_warmup_rises_in_a_line_then_hands_over():
    config = OptimConfig(learning_rate=0.8, warmup_epochs=0.4)
    # 0.4 epochs of ten steps: four steps of 0.2 each.
    ours = rates(config, 3, 10, (0, 1, 2, 3, 4, 29))
    assert ours == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 0.8])


def test_warmup_then_cosine_ends_with_the_stage():
    config = OptimConfig(schedule="cosine", learning_rate=1.0, warmup_epochs=1)
    # Steps 0 to 9 rise; the cosine has the 40 that are left of 50, its middle at 30.
    ours = rates(config, 5, 10, (0, 5, 10, 30, 50))
    assert ours == pytest.approx([0, 0.5, 1, 0.5, 0], abs=1e-6)


def test_warmup_does_not_move_the_epochs_of_steps():
    config = OptimConfig(
        schedule="step", learning_rate=1.0, warmup_epochs=1, step_epochs=(2, 3), step_factor=0.5
    )
    ours = rates(config, 5, 10, (5, 10, 19, 20, 29, 30))
    assert ours == pytest.approx([0.5, 1, 1, 0.5, 0.5, 0.25])


def test_warmup_as_long_as_the_stage_is_no_error():
    config = OptimConfig(schedule="cosine", learning_rate=1.0, warmup_epochs=2)
    assert rates(config, 2, 10, (0, 10, 19)) == pytest.approx([0, 0.5, 0.95])


def updates(config, gradients, params, steps=1, rate=0.1):
    """Returns the last update of `steps` equal gradients."""
    transform = optim.optimizer(config)
    state = transform.init(params)
    for _ in range(steps):
        update, state = transform.update(gradients, state, params)
    return jax.tree.map(lambda x: rate * x, update)


def test_first_step_of_adam_is_the_rate_against_the_sign():
    params = {"a": jnp.array([1.0, -2.0]), "b": jnp.array(3.0)}
    gradients = {"a": jnp.array([0.3, -4.0]), "b": jnp.array(0.002)}
    expected = {"a": jnp.array([-0.1, 0.1]), "b": jnp.array(-0.1)}
    ours = updates(OptimConfig(clip_norm=0.0), gradients, params)
    chex.assert_trees_all_close(ours, expected, rtol=1e-4)


def test_two_steps_of_adam_by_hand():
    transform = optim.optimizer(OptimConfig(clip_norm=0.0))
    state = transform.init(jnp.zeros(()))
    _, state = transform.update(jnp.array(1.0), state)
    update, _ = transform.update(jnp.array(3.0), state)
    # First moment 0.9 * 0.1 * 1 + 0.1 * 3, second 0.999 * 0.001 * 1 + 0.001 * 9; both unbiased.
    first = (0.09 + 0.3) / (1 - 0.9**2)
    second = (0.000999 + 0.009) / (1 - 0.999**2)
    assert float(update) == pytest.approx(-first / (np.sqrt(second) + 1e-8), rel=1e-4)


def clipped_by(config, gradients):
    """Returns by what gradients are multiplied before Adam sees them, from its first moment."""
    transform = optim.optimizer(config)
    state = transform.init(jnp.zeros_like(gradients))
    _, state = transform.update(gradients, state, jnp.zeros_like(gradients))
    moments = [x for x in jax.tree.leaves(state) if x.shape == gradients.shape]
    return np.asarray(moments[0]) / 0.1  # 1 - b1 of the first gradient


def test_clip_is_by_the_global_norm():
    gradients = jnp.array([3.0, 4.0])  # of norm 5
    np.testing.assert_allclose(
        clipped_by(OptimConfig(clip_norm=1.0), gradients), [0.6, 0.8], rtol=1e-6
    )
    np.testing.assert_allclose(
        clipped_by(OptimConfig(clip_norm=10.0), gradients), [3, 4], rtol=1e-6
    )
    np.testing.assert_allclose(clipped_by(OptimConfig(clip_norm=0.0), gradients), [3, 4], rtol=1e-6)


def test_decay_of_adamw_is_decoupled():
    params, gradients = jnp.array([10.0, -10.0]), jnp.array([1.0, 1.0])
    config = OptimConfig(name="adamw", weight_decay=0.01, clip_norm=0.0)
    # Rate 0.1 of (the sign of the gradient + 0.01 of the parameter).
    np.testing.assert_allclose(updates(config, gradients, params), [-0.11, -0.09], rtol=1e-5)
    nothing = updates(config, jnp.zeros(2), params)
    np.testing.assert_allclose(nothing, [-0.01, 0.01], rtol=1e-6)
    np.testing.assert_allclose(
        updates(OptimConfig(clip_norm=0.0), jnp.zeros(2), params), [0, 0], atol=0
    )


@pytest.mark.parametrize(
    "key",
    [
        *("learning_rate", "clip_norm", "warmup_epochs", "plateau_patience", "stop_rate"),
        *("weight_decay", "period_epochs", "step_factor", "plateau_factor"),
    ],
)
def test_what_is_below_zero_is_refused_by_name(key):
    with pytest.raises(ValueError, match=f"{key} is -1; allowed: 0 or more"):
        OptimConfig(name="adamw", schedule="cosine", **{key: -1})


def test_what_is_not_allowed_is_refused_by_name():
    with pytest.raises(ValueError, match="name is 'sgd'; allowed: adam, adamw"):
        OptimConfig(name="sgd")
    with pytest.raises(ValueError, match="schedule is 'linear'; allowed: constant, cosine, step"):
        OptimConfig(schedule="linear")
    with pytest.raises(ValueError, match="weight_decay"):
        OptimConfig(weight_decay=0.1)


def factors(config, losses):
    """Returns the factor of the learning rate after each epoch of a validation loss."""
    rule = optim.plateau(config)
    state = rule.init(np.ones((), np.float32))
    seen = []
    for loss in losses:
        factor, state = rule.update(np.ones((), np.float32), state, value=np.float32(loss))
        seen.append(float(factor))
    return seen


def test_plateau_that_is_off_leaves_the_rate():
    assert factors(OptimConfig(), (1, 2, 3, 4, 5)) == [1] * 5


PLATEAUS = {
    "better every epoch": ((5, 4, 3, 2, 1), (1, 1, 1, 1, 1)),
    "worse for patience epochs": ((1, 2, 2, 2), (1, 1, 1, 0.6)),
    "better in between": ((3, 4, 4, 2, 4, 4, 4), (1, 1, 1, 1, 1, 1, 0.6)),
    "equal is not better": ((1, 1, 1, 1), (1, 1, 1, 0.6)),
    "again after as many epochs": ((1, *[2] * 6), (1, 1, 1, 0.6, 0.6, 0.6, 0.36)),
    "a little better is better": ((1, 0.999, 0.998, 0.997, 0.996), (1,) * 5),
    "NaN is not better": ((1, np.nan, np.nan, np.nan, 0.5), (1, 1, 1, 0.6, 0.6)),
    "NaN at first": ((np.nan, 2, 1, 0.5), (1, 1, 1, 1)),
}


@pytest.mark.parametrize(("losses", "expected"), PLATEAUS.values(), ids=PLATEAUS.keys())
def test_plateau_falls_after_patience_epochs_without_a_better_loss(losses, expected):
    config = OptimConfig(plateau_patience=3, plateau_factor=0.6)
    assert factors(config, losses) == pytest.approx(expected)


def test_plateau_of_patience_one():
    config = OptimConfig(plateau_patience=1, plateau_factor=0.5)
    assert factors(config, (1, 1, 0.5, 0.6)) == pytest.approx([1, 0.5, 0.5, 0.25])
