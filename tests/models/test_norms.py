"""Batch norm: against PyTorch, over padded rows, over devices, by group.

Letters: B examples, H height, W width, D features.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import FOUR

from affectjax.errors import InputError
from affectjax.models.norms import BatchNorm, GroupNorm
from affectjax.runtime.parallel import AXIS, ENGINES, Engine

torch = pytest.importorskip("torch")

B, D = 8, 5
SHAPES = {"[B, D]": (B, D), "[B, T, D]": (B, 3, D), "[B, H, W, D]": (B, 2, 3, D)}
WEIGHT = np.array([1, 1, 0, 1, 1, 1, 0, 0], np.float32)


def drawn(shape=SHAPES["[B, H, W, D]"], seed=0):
    """Returns values far from zero, whose variance a difference of squares would get wrong."""
    return (10 + np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


def variables_of(norm, x, **arguments):
    """Returns variables that are all drawn: nothing is at its start."""
    rng = np.random.default_rng(1)
    made = norm.init(jax.random.key(0), x, train=True, **arguments)
    return jax.tree.map(lambda v: rng.uniform(0.5, 2, v.shape).astype(np.float32), made)


def value(x):
    """Returns the sum of a function of what comes out that has no symmetry."""
    return jnp.sum(jnp.sin(x) * jnp.arange(x.size).reshape(x.shape))


def step(norm, variables, x, weight=None, **arguments):
    """Returns result and running statistics, and the gradients to `x` and to the parameters."""

    def loss(x, params):
        given = variables | {"params": params}
        y, moved = norm.apply(given, x, weight, train=True, mutable=["batch_stats"], **arguments)
        # A padded row has no part in the loss.
        valid = jnp.ones(len(y)) if weight is None else weight
        return value(y * valid.reshape(-1, *[1] * (y.ndim - 1))), (y, moved["batch_stats"])

    (_, (y, stats)), gradients = jax.value_and_grad(loss, (0, 1), has_aux=True)(
        x, variables["params"]
    )
    return y, stats, gradients


def torch_step(variables, x):
    """Returns what `step` does, by PyTorch, for values all of which count."""
    layer = torch.nn.BatchNorm1d(D)
    params, stats = variables["params"], variables["batch_stats"]
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(params["scale"]))
        layer.bias.copy_(torch.from_numpy(params["bias"]))
        layer.running_mean.copy_(torch.from_numpy(stats["mean"]))
        layer.running_var.copy_(torch.from_numpy(stats["var"]))
    given = torch.from_numpy(x).requires_grad_()
    y = layer(given.reshape(-1, D)).reshape(x.shape)
    order = torch.arange(x.size).reshape(x.shape)
    (torch.sin(y) * order).sum().backward()
    stats = {"mean": layer.running_mean.numpy(), "var": layer.running_var.numpy()}
    to_params = {"scale": layer.weight.grad.numpy(), "bias": layer.bias.grad.numpy()}
    return y.detach().numpy(), stats, (given.grad.numpy(), to_params)


def assert_close(ours, theirs, tolerance=2e-4):
    def close(a, b):
        np.testing.assert_allclose(a, b, atol=tolerance * max(1, np.abs(b).max()), rtol=0)

    jax.tree.map(close, ours, theirs)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_training_is_that_of_torch(shape):
    x = drawn(shape)
    variables = variables_of(BatchNorm(), x)
    assert_close(step(BatchNorm(), variables, x), torch_step(variables, x))


def test_evaluation_is_that_of_torch():
    x = drawn()
    variables = variables_of(BatchNorm(epsilon=0.1), x)
    given = {name: torch.from_numpy(v) for part in variables.values() for name, v in part.items()}
    expected = torch.nn.functional.batch_norm(
        torch.from_numpy(x).reshape(-1, D), given["mean"], given["var"], given["scale"],
        given["bias"], eps=0.1,
    )  # fmt: skip
    y = BatchNorm(epsilon=0.1).apply(variables, x, train=False)
    np.testing.assert_allclose(y, expected.numpy().reshape(x.shape), atol=1e-4)


@pytest.mark.parametrize("fill", (0.0, 1e30, np.nan, np.inf))
def test_padded_rows_do_not_count(fill):
    """The valid rows alone give the same numbers, and what is padded gets no gradient."""
    x = drawn()
    x[WEIGHT == 0] = fill
    variables = variables_of(BatchNorm(), x)
    y, stats, (to_x, to_params) = step(BatchNorm(), variables, x, WEIGHT)
    keep = WEIGHT > 0
    order = jnp.arange(x.size).reshape(x.shape)[keep]

    def loss(x, params):
        y, _ = BatchNorm().apply(
            variables | {"params": params}, x, train=True, mutable=["batch_stats"]
        )
        return jnp.sum(jnp.sin(y) * order)

    alone, expected, _ = step(BatchNorm(), variables, x[keep])
    gradients = jax.grad(loss, (0, 1))(x[keep], variables["params"])
    assert_close((y[keep], stats, (to_x[keep], to_params)), (alone, expected, gradients), 1e-5)
    assert np.isfinite(y).all() and (np.asarray(to_x)[~keep] == 0).all()


def test_a_weight_counts_wholly_or_not_at_all():
    x = drawn()
    variables = variables_of(BatchNorm(), x)
    ours = step(BatchNorm(), variables, x, 0.3 * WEIGHT)[:2]
    assert_close(ours, step(BatchNorm(), variables, x, WEIGHT)[:2], 0)


def test_batch_without_examples_moves_nothing():
    x = np.full(SHAPES["[B, D]"], np.nan, np.float32)
    variables = variables_of(BatchNorm(), x)
    y, stats, gradients = step(BatchNorm(), variables, x, 0 * WEIGHT)
    assert_close(stats, variables["batch_stats"], 0)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((y, gradients)))


def test_one_value_moves_the_mean_alone():
    """PyTorch refuses it, for the unbiased variance is 0 / 0."""
    x = drawn(SHAPES["[B, D]"])
    variables = variables_of(BatchNorm(momentum=0.75), x)
    weight = np.eye(B, dtype=np.float32)[3]
    y, stats, _ = step(BatchNorm(momentum=0.75), variables, x, weight)
    before = variables["batch_stats"]
    np.testing.assert_allclose(stats["mean"], 0.75 * before["mean"] + 0.25 * x[3], rtol=1e-6)
    np.testing.assert_array_equal(stats["var"], before["var"])
    np.testing.assert_allclose(y[3], variables["params"]["bias"], atol=1e-4)


def split_step(variables, x, weight):
    """Returns a per-device function: result, statistics and the mean of the gradients."""
    y, stats, (to_x, to_params) = step(BatchNorm(axis_name=AXIS), variables, x, weight)
    whole = lambda a: jax.lax.all_gather(a, AXIS, tiled=True)  # noqa: E731
    return whole(y), jax.lax.pmean(stats, AXIS), (whole(to_x), jax.lax.psum(to_params, AXIS))


def on_four_devices():
    """Checks that four devices give what one gives, with both engines; some hold no valid row."""
    assert len(jax.devices()) == 4
    x, weight = drawn(), np.array([1, 1, 0, 1, 0, 0, 0, 0], np.float32)
    variables = variables_of(BatchNorm(), x)
    # Every device multiplies by the places of its own rows.
    order = np.concatenate([np.arange(x.size // 4)] * 4).reshape(x.shape)

    def loss(x, params):
        given = variables | {"params": params}
        y, moved = BatchNorm().apply(given, x, weight, train=True, mutable=["batch_stats"])
        return jnp.sum(jnp.sin(y * weight[:, None, None, None]) * order), (y, moved["batch_stats"])

    (_, (y, stats)), gradients = jax.value_and_grad(loss, (0, 1), has_aux=True)(
        x, variables["params"]
    )
    for kind in ENGINES:
        engine = Engine(kind)
        run = engine.compile(split_step, (None, 0, 0))
        given = engine.replicate(variables), engine.shard(x, 0), engine.shard(weight, 0)
        assert_close(engine.fetch(run(*given)), (y, stats, gradients), 1e-5)


def test_four_devices_are_one(start):
    code, _, error = start(on_four_devices, XLA_FLAGS=FOUR, JAX_PLATFORMS="cpu").wait()
    assert code == 0, error


def test_groups_share_scale_and_bias_but_no_statistics():
    norm, x = BatchNorm(groups=("text", "audio")), drawn()
    variables = variables_of(norm, x, group="text")
    assert set(variables["params"]) == {"scale", "bias"}
    before = variables["batch_stats"]
    assert set(before) == {"mean_text", "var_text", "mean_audio", "var_audio"}
    y, stats, _ = step(norm, variables, x, group="audio")
    own = {"mean": before["mean_audio"], "var": before["var_audio"]}
    alone = step(BatchNorm(), variables | {"batch_stats": own}, x)
    assert_close((y, stats["mean_audio"], stats["var_audio"]), (alone[0], *alone[1].values()), 0)
    for name in ("mean_text", "var_text"):
        np.testing.assert_array_equal(stats[name], before[name])
    told = [norm.apply(variables, x, train=False, group=g) for g in ("text", "audio")]
    expected = BatchNorm().apply(variables | {"batch_stats": own}, x, train=False)
    np.testing.assert_array_equal(told[1], expected)
    assert np.abs(told[0] - told[1]).max() > 0.1


@pytest.mark.parametrize("groups, group", [((), "text"), (("text",), None), (("text",), "audio")])
def test_group_that_is_none_is_refused(groups, group):
    with pytest.raises(InputError, match=f"batch norm of the group {group}; allowed: "):
        BatchNorm(groups=groups).init(jax.random.key(0), drawn(), train=True, group=group)


def test_statistics_are_in_float32():
    x = jnp.asarray(drawn(), jnp.bfloat16)
    variables = variables_of(BatchNorm(), x)
    y, stats, _ = step(BatchNorm(), variables, x)
    expected, expected_stats, _ = step(BatchNorm(), variables, x.astype(jnp.float32))
    assert y.dtype == jnp.bfloat16
    assert_close(stats, expected_stats, 1e-6)
    np.testing.assert_allclose(y.astype(jnp.float32), expected, rtol=2**-8, atol=0.02)


@pytest.mark.parametrize("rows", (5, 3))
def test_group_norm_is_that_of_torch_over_the_rows_that_count(rows):
    x = np.random.default_rng(0).normal(2, 3, (2, 5, 4, 6)).astype(np.float32)
    mask = np.arange(5) < np.array([[rows], [5]])
    norm = GroupNorm(groups=3)
    params = {"params": {"scale": np.arange(1.0, 7.0), "bias": np.arange(6.0)}}
    ours = norm.apply(params, np.where(mask[..., None, None], x, np.nan), mask)
    module = torch.nn.GroupNorm(3, 6)
    module.load_state_dict({"weight": torch.arange(1.0, 7.0), "bias": torch.arange(6.0)})
    for row, given, valid in zip(np.asarray(ours), x, mask, strict=True):
        with torch.no_grad():
            theirs = module(torch.from_numpy(given[valid].transpose(2, 0, 1)[None]))[0]
        np.testing.assert_allclose(row[valid], theirs.numpy().transpose(1, 2, 0), atol=1e-5)


def test_group_norm_of_nothing_is_finite_forward_and_backward():
    x, mask = jnp.ones((2, 3, 2, 8)), jnp.zeros((2, 3), bool)
    params = GroupNorm().init(jax.random.key(0), x, mask)
    loss = lambda x: jnp.where(mask[..., None, None], GroupNorm().apply(params, x, mask), 0).sum()  # noqa: E731
    assert not np.any(jax.grad(loss)(x))
