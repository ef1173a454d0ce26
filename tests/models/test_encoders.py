"""The encoders of single modalities against literal loops, and what padding must not do.

Letters: B examples, T steps, S samples, F frames, D features, H height, W width.
"""

import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import numpy_umbenet as ref
import pytest
from numpy_mcr import draw, quick, wide

from affectjax.models.encoders import AudioConv, FrameHead, ImageConv, SequenceEncoder

CHANNELS = (6, 8, 10, 8, 6, 7)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def compiled(module, *inputs, **kwargs):
    """Returns weights for a module, and its forward, compiled."""
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), *inputs, **kwargs))
    return draw(shapes, 0), quick(lambda p, *args: module.apply(p, *args, **kwargs))


def prefix_mask(lengths, steps):
    return np.arange(steps) < np.array(lengths)[:, None]


# ---- sound --------------------------------------------------------------------------------------

# Around the ends of windows, one sample, all of it; and no sound at all.
SAMPLES = (137, 136, 101, 26, 25, 5, 1, 0)


@pytest.fixture(scope="module")
def sound():
    module = AudioConv(8, CHANNELS)
    x, mask = normal(len(SAMPLES), max(SAMPLES)), prefix_mask(SAMPLES, max(SAMPLES))
    params, run = compiled(module, x, mask, train=False)
    return params, run, np.where(mask, x, 0), mask


def test_audio_conv_equals_loops_over_each_sound_alone(sound):
    params, run, x, mask = sound
    ours = run(params, x, mask)
    chex.assert_shape(ours, (len(SAMPLES), 8))
    for b, length in enumerate(SAMPLES):
        theirs = ref.audio_conv(wide(params)["params"], x[b, :length])
        np.testing.assert_allclose(ours[b], theirs, atol=1e-4, err_msg=f"{length} samples")
    # ReLU left something of every sound: no two are the same.
    assert (
        np.linalg.norm(ours[:, None] - ours, axis=-1)[~np.eye(len(ours), dtype=bool)].min() > 0.01
    )


def test_audio_conv_has_kernels_of_15_and_six_layers():
    x = jnp.zeros((1, 40))
    shapes = jax.eval_shape(lambda: AudioConv(8).init(jax.random.key(0), x, x == 0, train=False))
    channels = (1, 16, 32, 64, 128, 256, 512)
    for i, (before, after) in enumerate(itertools.pairwise(channels)):
        chex.assert_shape(shapes["params"][f"conv_{i}"]["kernel"], (15 * before, after))
    assert "conv_6" not in shapes["params"]
    chex.assert_shape(shapes["params"]["dense"]["kernel"], (512, 8))


@pytest.mark.parametrize("more", [1, 5, 88])
def test_the_padding_of_a_batch_of_sounds_changes_nothing(sound, more):
    params, run, x, mask = sound
    expected = run(params, x, mask)
    junk = np.concatenate([np.where(mask, x, np.nan), np.full((len(x), more), np.inf)], axis=1)
    longer = np.concatenate([mask, np.zeros((len(x), more), bool)], axis=1)
    np.testing.assert_allclose(run(params, junk.astype(np.float32), longer), expected, atol=1e-5)


def test_gradients_of_the_audio_conv_are_finite_also_without_sound(sound):
    params, _, x, mask = sound
    module = AudioConv(8, CHANNELS)

    def total(params, x):
        return jnp.sum(jnp.sin(module.apply(params, x, mask, train=False)))

    to_params, to_x = quick(jax.grad(total, (0, 1)))(params, np.where(mask, x, np.nan))
    chex.assert_tree_all_finite((to_params, to_x))
    assert not np.any(np.asarray(to_x)[~mask])
    np.testing.assert_array_equal(np.any(to_x, axis=1), mask.any(1))


# ---- images -------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(12, 12), (10, 13), (4, 4)], ids=str)
def test_image_conv_equals_loops(shape):
    module, images = ImageConv((4, 5, 3), 6), normal(2, *shape, 3, seed=1)
    params, run = compiled(module, images)
    ours = run(params, images)
    chex.assert_shape(ours, (2, 6))
    for image, row in zip(images, ours, strict=True):
        np.testing.assert_allclose(row, ref.image_conv(wide(params)["params"], image, 3), atol=1e-4)


def test_an_image_of_one_colour_is_finite_forward_and_backward():
    module, images = ImageConv((4, 5), 6), jnp.zeros((1, 8, 8, 3))
    params = draw(jax.eval_shape(lambda: module.init(jax.random.key(0), images)), 0)
    chex.assert_tree_all_finite(
        quick(jax.value_and_grad(lambda p: module.apply(p, images).sum()))(params)
    )


# ---- frames -------------------------------------------------------------------------------------

FRAMES = (4, 3, 1, 0)


@pytest.mark.parametrize("layers", [0, 2])
def test_frame_head_equals_loops(layers):
    """Its mask may have holes: a frame keeps the position where it stands."""
    module = FrameHead(5, 8, layers, 2)
    x, mask = normal(5, 4, 8, seed=2), np.concatenate([prefix_mask(FRAMES, 4), [[1, 0, 0, 1]]]) > 0
    params, run = compiled(module, x, mask, train=False)
    ours = run(params, np.where(mask[..., None], x, np.nan).astype(np.float32), mask)
    chex.assert_shape(ours, (5, 8))
    for b in range(len(x)):
        theirs = ref.frame_head(wide(params)["params"], x[b], mask[b], 2)
        np.testing.assert_allclose(ours[b], theirs, atol=1e-4)
    assert not np.any(ours[3])


def test_frame_head_adds_its_input():
    """With layers that add nothing, what is left is the input twice and the positions once."""
    module = FrameHead(4, 8, 1, 2)
    x, mask = normal(2, 3, 8, seed=3), prefix_mask((3, 2), 3)
    params, run = compiled(module, x, mask, train=False)
    silent = jax.tree.map(np.zeros_like, params["params"]["temporal"])
    params = {"params": {**params["params"], "temporal": silent}}
    table = params["params"]["positions"]
    expected = [(2 * x[b, :n] + table[:n]).mean(0) for b, n in enumerate((3, 2))]
    np.testing.assert_allclose(run(params, x, mask), expected, atol=1e-5)


def test_the_order_of_frames_matters():
    module, x = FrameHead(4, 8, 1, 2), normal(1, 4, 8, seed=4)
    mask = np.ones((1, 4), bool)
    params, run = compiled(module, x, mask, train=False)
    assert np.abs(run(params, x, mask) - run(params, x[:, ::-1], mask)).max() > 1e-3


# ---- features -----------------------------------------------------------------------------------


@pytest.mark.parametrize("layers", [0, 2])
def test_sequence_encoder_equals_loops(layers):
    module = SequenceEncoder(8, layers, 2)
    x, mask = normal(5, 4, 6, seed=5), np.concatenate([prefix_mask(FRAMES, 4), [[1, 0, 0, 1]]]) > 0
    params, run = compiled(module, x, mask, train=False)
    ours = run(params, np.where(mask[..., None], x, np.nan).astype(np.float32), mask)
    chex.assert_shape(ours, (5, 8))
    for b in range(len(x)):
        theirs = ref.sequence(wide(params)["params"], x[b], mask[b], 2)
        np.testing.assert_allclose(ours[b], theirs, atol=1e-4)
    assert not np.any(ours[3])


def test_features_are_dropped_in_training_alone():
    module = SequenceEncoder(8, 1, 2, dropout=0.5)
    x, mask = normal(2, 3, 6), np.ones((2, 3), bool)
    params, run = compiled(module, x, mask, train=False)
    train = quick(lambda key: module.apply(params, x, mask, train=True, rngs={"dropout": key}))
    one, other = train(jax.random.key(1)), train(jax.random.key(2))
    assert np.abs(one - other).max() > 1e-3
    np.testing.assert_array_equal(one, train(jax.random.key(1)))
    np.testing.assert_array_equal(run(params, x, mask), run(params, x, mask))
