"""The small residual towers: their form, and what padding, light and loudness must not do."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy_mcr import draw, quick

from affectjax.models.residual import ConvNorm, ImageResNet, MelResNet, Trunk

torch = pytest.importorskip("torch")


def test_a_convolution_is_that_of_torch_with_a_standardised_kernel():
    x = np.random.default_rng(0).standard_normal((2, 6, 5, 4)).astype(np.float32)
    module = ConvNorm(8, stride=2)
    params = draw(jax.eval_shape(lambda: module.init(jax.random.key(0), x)), 0)
    ours = module.apply(params, x)
    own = jax.tree.map(lambda a: torch.tensor(np.asarray(a)), params["params"])
    kernel = own["kernel"].permute(3, 2, 0, 1)
    kernel = kernel - kernel.mean((1, 2, 3), keepdim=True)
    kernel = kernel * (2 / (kernel.square().sum((1, 2, 3), keepdim=True) + 1e-4)).sqrt()
    y = torch.nn.functional.conv2d(torch.tensor(x).permute(0, 3, 1, 2), kernel, None, 2, 1)
    norm = own["norm"]
    theirs = torch.nn.functional.group_norm(y, 8, norm["scale"], norm["bias"], 1e-5)
    np.testing.assert_allclose(ours, theirs.permute(0, 2, 3, 1).numpy(), atol=1e-4)


@pytest.mark.parametrize("shape", [(48, 48), (13, 9)], ids=str)
def test_every_stage_halves_and_widens(shape):
    x = np.zeros((2, *shape, 3), np.float32)
    module = Trunk((8, 16, 24))
    out = jax.eval_shape(lambda: module.init_with_output(jax.random.key(0), x))[0]
    chex.assert_shape(out, (2, -(-shape[0] // 8), -(-shape[1] // 8), 24))


def test_light_and_contrast_of_a_picture_change_little():
    x = np.random.default_rng(1).uniform(-2, 2, (2, 16, 16, 3)).astype(np.float32)
    module = ImageResNet((8, 16), 5)
    params = draw(jax.eval_shape(lambda: module.init(jax.random.key(0), x)), 0)
    run = quick(lambda p, x: module.apply(p, x))
    ours = run(params, x)
    chex.assert_shape(ours, (2, 5))
    np.testing.assert_allclose(run(params, 0.5 * x + 0.3), ours, atol=0.1 * np.abs(ours).max())
    assert np.isfinite(run(params, np.full_like(x, 2.0))).all()


SAMPLES = (6000, 4001, 900, 0)


def sounds():
    x = np.random.default_rng(2).normal(0, 0.1, (len(SAMPLES), max(SAMPLES))).astype(np.float32)
    return x, np.arange(max(SAMPLES)) < np.array(SAMPLES)[:, None]


def test_padding_silence_and_loudness_change_no_feature_of_a_sound():
    x, mask = sounds()
    module = MelResNet((8, 16), 5)
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), x, mask, train=False))
    params = draw(shapes, 0)
    run = quick(lambda p, x, mask: module.apply(p, x, mask, train=False))
    ours = run(params, x, mask)
    chex.assert_shape(ours, (len(SAMPLES), 5))
    assert np.isfinite(ours).all()
    size = np.abs(ours).max()
    longer = [((0, 0), (0, 3200)), ((0, 0), (0, 3200))]
    junk = np.pad(np.where(mask, x, np.nan), longer[0], constant_values=np.nan)
    np.testing.assert_allclose(run(params, junk, np.pad(mask, longer[1])), ours, atol=1e-4 * size)
    np.testing.assert_allclose(run(params, 0.1 * x, mask)[:3], ours[:3], atol=0.05 * size)
    # Twenty frames of silence before: what was said is the same.
    late = np.pad(x, ((0, 0), (3200, 0)))
    before = np.pad(mask, ((0, 0), (3200, 0)), constant_values=True)
    np.testing.assert_allclose(run(params, late, before)[0], ours[0], atol=0.1 * size)


def test_gradients_are_finite_also_without_sound_and_training_changes_the_sound():
    x, mask = sounds()
    module = MelResNet((8, 16), 5, speed=0.2, changes={"steps": 0.3, "bands": 0.3, "shift": 2})
    params = module.init(jax.random.key(0), x, mask, train=False)

    def loss(params, x, seed):
        key = jax.random.key(seed)
        y = module.apply(params, x, mask, train=True, rngs={"dropout": key})
        return jnp.square(y).sum()

    found = quick(jax.grad(loss, (0, 1)))(params, x, 0)
    chex.assert_tree_all_finite(found)
    first, second = (quick(loss)(params, x, seed) for seed in (0, 1))
    assert first != second
