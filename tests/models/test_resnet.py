"""ResNet-18: exact sizes, padded rows, neighbours, devices.

That it is ResNet-18 is shown against PyTorch in tests/weights/test_from_resnet.py.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy_mcr import draw, quick

from affectjax.models.resnet import ResNet18

WEIGHT = np.array([1, 1, 0, 1, 1, 0], np.float32)


def images_of(size=40):
    """Returns `[6, size, size, 3]`."""
    return np.random.default_rng(0).standard_normal((6, size, size, 3)).astype(np.float32)


def variables_of(net, images):
    """Returns parameters and running statistics of which none is at its start."""
    shapes = jax.eval_shape(lambda: net.init(jax.random.key(0), images, train=False))
    variables = draw(shapes, 0)
    # A variance is not negative.
    stats = jax.tree_util.tree_map_with_path(
        lambda path, x: np.abs(x) + (0.5 if path[-1].key == "var" else 0), variables["batch_stats"]
    )
    return variables | {"batch_stats": stats}


def training(net):
    """Returns a compiled function to the sum over weighted features, statistics and gradients."""

    def loss(params, stats, images, weight):
        (feature, _), moved = net.apply(
            {"params": params, "batch_stats": stats}, images, weight, train=True,
            mutable=["batch_stats"],
        )  # fmt: skip
        each = jnp.sum(jnp.sin(feature) * jnp.arange(feature.shape[1]), axis=1)
        return jnp.sum(each * weight), (feature, moved["batch_stats"])

    return jax.value_and_grad(loss, (0, 2), has_aux=True)


def assert_close(ours, theirs, tolerance=1e-4):
    def close(a, b):
        np.testing.assert_allclose(a, b, atol=tolerance * max(1, np.abs(b).max()), rtol=0)

    jax.tree.map(close, ours, theirs)


def test_exact_size_of_the_published_one():
    shapes = jax.eval_shape(
        lambda: ResNet18().init(jax.random.key(0), jnp.zeros((1, 224, 224, 3)), train=False)
    )
    conv = lambda size, i, o: size * size * i * o + 2 * o  # noqa: E731  # and scale and bias
    expected, inputs = conv(7, 3, 64), 64
    for width in (64, 128, 256, 512):
        expected += conv(3, inputs, width) + 3 * conv(3, width, width)
        expected += conv(1, inputs, width) if inputs != width else 0
        inputs = width
    count = lambda tree: sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))  # noqa: E731
    assert count(shapes["params"]) == expected == 11_176_512
    assert count(shapes["batch_stats"]) == 2 * (5 * 64 + 5 * 128 + 5 * 256 + 5 * 512) == 9_600


def test_exact_size_is_that_of_transformers():
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config = transformers.ResNetConfig(
        layer_type="basic", depths=[2, 2, 2, 2], hidden_sizes=[64, 128, 256, 512]
    )
    with torch.device("meta"):
        model = transformers.ResNetModel(config)
    assert sum(p.numel() for p in model.parameters()) == 11_176_512


@pytest.mark.parametrize("size, last", [(40, 2), (48, 2), (64, 2), (33, 2), (224, 7), (5, 1)])
def test_shapes(size, last):
    net, images = ResNet18(width=4), jnp.zeros((2, size, size, 3))
    made = jax.eval_shape(lambda: net.init_with_output(jax.random.key(0), images, train=False)[0])
    assert made[0].shape == (2, 32) and made[1]["last"].shape == (2, last, last, 32)


def test_feature_is_in_float32_whatever_it_convolves_in():
    net, images = ResNet18(width=4, dtype=jnp.bfloat16), images_of()
    variables = variables_of(net, images)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype(np.float32)}
    run = lambda net: quick(lambda v, x: net.apply(v, x, train=False))(variables, images)  # noqa: E731
    feature, out = run(net)
    assert feature.dtype == jnp.float32 and out["last"].dtype == jnp.bfloat16
    exact, _ = run(ResNet18(width=4))
    assert 0 < np.abs(feature - exact).max() < 0.05 * np.abs(exact).max()


def test_example_does_not_depend_on_its_neighbours_in_evaluation():
    net, images = ResNet18(width=4), images_of()
    variables = variables_of(net, images)
    run = quick(lambda v, x: net.apply(v, x, train=False)[0])
    together = run(variables, images)
    assert_close(np.concatenate([run(variables, images[b : b + 1]) for b in range(6)]), together)
    assert np.abs(together - together[0]).max(-1)[1:].min() > 1e-3


@pytest.mark.parametrize("fill", [1e30, np.nan])
def test_padded_rows_change_nothing_in_training(fill):
    net, images = ResNet18(width=4), images_of()
    variables = variables_of(net, images)
    run = quick(training(net))
    given = variables["params"], variables["batch_stats"]
    keep = WEIGHT > 0
    (loss, (feature, stats)), (to_params, to_images) = run(*given, images[keep], WEIGHT[keep])
    images[~keep] = fill
    (padded, (more, same)), (gradient, wide) = run(*given, images, WEIGHT)
    assert_close(
        (padded, more[keep], same, gradient, wide[keep]),
        (loss, feature, stats, to_params, to_images),
    )
    assert np.isfinite(more).all() and (np.asarray(wide)[~keep] == 0).all()
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradient))


def test_split_over_devices_is_the_same():
    """Three devices of two rows, of which one has a row that pads and one nothing else."""
    weight = np.array([1, 1, 0, 1, 0, 0], np.float32)
    images = images_of()
    variables = variables_of(ResNet18(width=4), images)
    given = variables["params"], variables["batch_stats"]
    (loss, (feature, stats)), (to_params, _) = quick(training(ResNet18(width=4)))(
        *given, images, weight
    )

    def device(images, weight):
        step = training(ResNet18(width=4, axis_name="batch"))
        (part, (feature, stats)), (gradient, _) = step(*given, images, weight)
        return jax.lax.psum(part, "batch"), feature, stats, jax.lax.psum(gradient, "batch")

    halves = images.reshape(3, 2, *images.shape[1:]), weight.reshape(3, 2)
    total, features, each, gradients = quick(jax.vmap(device, axis_name="batch"))(*halves)
    assert_close(features.reshape(feature.shape), feature)
    for i in range(3):
        ours = jax.tree.map(lambda x, i=i: x[i], (total, each, gradients))
        assert_close(ours, (loss, stats, to_params))
