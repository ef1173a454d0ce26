"""CLAP's audio tower: sizes, windows, folding, neighbours, and a few steps of training.

That it is CLAP's is shown against PyTorch in tests/weights/test_from_clap.py.
Letters: B examples, T frames, H rows and W columns of tokens, D width.
"""

import math
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numpy_mcr import draw, quick

from affectjax.errors import InputError
from affectjax.models.clap import AudioTower, Block, stretch
from affectjax.ops import mel
from affectjax.ops.mel import FrontEnd

SMALL = {
    "spec_size": 64, "mels": 16, "patch": 4, "width": 12, "depths": (2, 2), "heads": (2, 3),
    "window": 4, "projection": 10,
}  # fmt: skip
# Of the published towers.
FULL = {
    "spec_size": 256, "mels": 64, "patch": 4, "width": 96, "depths": (2, 2, 6, 2),
    "heads": (4, 8, 16, 32), "window": 8, "projection": 512,
}  # fmt: skip


def spectrograms(batch=3, frames=256, mels=16):
    rng = np.random.default_rng(0)
    return (-40 + 25 * rng.standard_normal((batch, frames, mels))).astype(np.float32)


def small_tower(**changes):
    """Returns a small tower and parameters for it, with biases that are not zero."""
    tower = AudioTower(**SMALL | changes)
    shapes = jax.eval_shape(lambda: tower.init(jax.random.key(0), spectrograms(1)))
    rng = np.random.default_rng(1)

    def leaf(path, x):
        drawn = 0.2 * rng.standard_normal(x.shape)
        centre = {"scale": 1.0, "mel_scale": 1 / 25, "mel_bias": 1.6}.get(path[-1].key, 0.0)
        spread = 0.02 if path[-1].key == "mel_scale" else 1.0
        return (centre + spread * drawn).astype(np.float32)

    return tower, jax.tree_util.tree_map_with_path(leaf, shapes)


# ---- sizes, worked out by hand ------------------------------------------------------------------


def linear(i, o):
    return i * o + o


def tower_size(spec_size, mels, patch, width, depths, heads, window, projection):
    total = 2 * mels + linear(patch**2, width) + 2 * width
    for stage, (depth, count) in enumerate(zip(depths, heads, strict=True)):
        if stage:
            total += 2 * 4 * width + 4 * width * 2 * width
            width = 2 * width
        norms, table = 2 * 2 * width, (2 * window - 1) ** 2 * count
        mlp = linear(width, 4 * width) + linear(4 * width, width)
        total += depth * (norms + table + 4 * linear(width, width) + mlp)
    return total + 2 * width + linear(width, projection) + linear(projection, projection)


@pytest.mark.parametrize(
    ("sizes", "known"), [(SMALL, 20_622), (FULL, 28_190_872)], ids=["small", "published"]
)
def test_exact_size(sizes, known):
    x = jnp.zeros((1, 9, sizes["mels"]))
    shapes = jax.eval_shape(lambda: AudioTower(**sizes).init(jax.random.key(0), x))
    held = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))
    assert held == tower_size(**sizes) == known
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}


def test_attention_kernels_are_found_by_their_names():
    x = jnp.zeros((1, 9, 64))
    shapes = jax.eval_shape(lambda: AudioTower(**FULL).init(jax.random.key(0), x))["params"]
    paths = {
        "/".join(k.key for k in path): leaf.shape
        for path, leaf in jax.tree_util.tree_leaves_with_path(shapes)
    }
    found = {path for path in paths if re.search("(query|key|value|out)/kernel$", path)}
    expected = {
        f"stage_{stage}_{i}/{name}/kernel": (96 * 2**stage, 96 * 2**stage)
        for stage, depth in enumerate((2, 2, 6, 2))
        for i in range(depth)
        for name in ("query", "key", "value", "out")
    }
    assert {path: paths[path] for path in found} == expected


def test_shapes():
    tower, variables = small_tower()
    got, out = quick(tower.apply)(variables, spectrograms(3, 200))
    chex.assert_shape(got, (3, 10))
    chex.assert_shape(out["last"], (3, 32, 2, 24))
    chex.assert_shape(out["pooled"], (3, 24))
    np.testing.assert_allclose(out["pooled"], np.mean(out["last"], (1, 2)), atol=1e-6)
    chex.assert_type([got, out["last"], out["pooled"]], jnp.float32)


# ---- windows ------------------------------------------------------------------------------------


@pytest.mark.parametrize("shift", [0, 2])
def test_a_token_hears_its_window_and_no_other(shift):
    """Tokens `[8, 8]`, windows of 4: who moves when one token does."""
    block = Block(width=6, heads=2, hidden=8, window=4)
    x = np.random.default_rng(0).standard_normal((1, 8, 8, 6)).astype(np.float32)
    variables = draw(jax.eval_shape(lambda: block.init(jax.random.key(0), x, shift)), 0)
    run = quick(block.apply, static_argnums=2)
    before = run(variables, x, shift)
    # Borders of windows of 4 that begin at 0, or at 2 with what is cut off at both ends.
    window = [0, 0, 0, 0, 1, 1, 1, 1] if shift == 0 else [0, 0, 1, 1, 1, 1, 2, 2]
    for row, column in ((0, 0), (1, 6), (3, 2), (5, 4), (7, 7)):
        changed = x.copy()
        changed[0, row, column, 0] += 1
        moved = np.abs(run(variables, changed, shift) - before).max(-1)[0] > 1e-7
        same = np.equal.outer(np.array(window), np.array(window))
        np.testing.assert_array_equal(moved, np.outer(same[row], same[column]))


def test_attention_is_a_loop():
    """One window of 3 x 3 tokens, head by head, in float64, with the biases of places."""
    block = Block(width=6, heads=2, hidden=8, window=3)
    x = np.random.default_rng(0).standard_normal((1, 3, 3, 6)).astype(np.float32)
    shapes = jax.eval_shape(lambda: block.init(jax.random.key(0), x, 0))
    params = draw(shapes, 0, scale=1.0)
    got = quick(block.apply, static_argnums=2)(params, x, 0)
    p = jax.tree.map(lambda a: a.astype(np.float64), params["params"])

    def norm(y, name):
        y = (y - y.mean(-1, keepdims=True)) / np.sqrt(y.var(-1, keepdims=True) + 1e-5)
        return y * p[name]["scale"] + p[name]["bias"]

    tokens = x.astype(np.float64).reshape(9, 6)
    y = norm(tokens, "attention_norm")
    q, k, v = (y @ p[n]["kernel"] + p[n]["bias"] for n in ("query", "key", "value"))
    gathered = np.zeros((9, 6))
    for head in range(2):
        own = slice(3 * head, 3 * head + 3)
        for i in range(9):
            score = np.zeros(9)
            for j in range(9):
                down, right = i // 3 - j // 3, i % 3 - j % 3
                bias = p["position"][(down + 2) * 5 + right + 2, head]
                score[j] = q[i, own] @ k[j, own] / math.sqrt(3) + bias
            weight = np.exp(score - score.max())
            gathered[i, own] = weight / weight.sum() @ v[:, own]
    z = tokens + gathered @ p["out"]["kernel"] + p["out"]["bias"]
    up = norm(z, "feed_norm") @ p["up"]["kernel"] + p["up"]["bias"]
    up = up * 0.5 * (1 + np.vectorize(math.erf)(up / math.sqrt(2)))
    expected = z + up @ p["down"]["kernel"] + p["down"]["bias"]
    np.testing.assert_allclose(got[0].reshape(9, 6), expected, atol=1e-4)


# ---- the whole tower ----------------------------------------------------------------------------


def test_tokens_stand_in_order_of_time_and_frequency():
    """No layer, one stage: a token is its own patch of 4 frames and 4 bands."""
    tower = AudioTower(**SMALL | {"depths": (0,), "heads": (2,)})
    x = spectrograms(1)
    variables = quick(tower.init)(jax.random.key(0), x)
    _, out = quick(tower.apply)(variables, x)
    chex.assert_shape(out["last"], (1, 64, 4, 12))
    for time, band in ((0, 0), (15, 3), (16, 0), (41, 2)):
        changed = x.copy()
        changed[:, 4 * time : 4 * time + 4, 4 * band : 4 * band + 4] += 9 * np.arange(4)
        other = quick(tower.apply)(variables, changed)[1]["last"]
        moved = np.argwhere(np.abs(other - out["last"])[0].max(-1) > 1e-6)
        np.testing.assert_array_equal(moved, [[time, band]])


def test_an_example_does_not_depend_on_its_neighbours():
    tower, variables = small_tower()
    run, x = quick(tower.apply), spectrograms()
    together = run(variables, x)
    assert np.abs(together[0][0] - together[0][1]).max() > 0.01
    changed = x.copy()
    changed[1:] = np.nan
    chex.assert_trees_all_equal(
        *(jax.tree.map(lambda a: a[0], found) for found in (run(variables, changed), together))
    )
    alone = run(variables, x[1:2])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b[1:2], atol=1e-5), alone, together)


def test_padding_of_a_batch_changes_no_feature():
    """From waveforms on: sounds of 0.1 s, of one sample and of none, in two buffers."""
    tower, variables = small_tower()
    front = FrontEnd(mels=16, length=16000)
    x = np.random.default_rng(3).standard_normal((3, 8000)).astype(np.float32)
    mask = np.arange(8000) < np.array([1600, 1, 0])[:, None]
    hear = quick(lambda x, m: tower.apply(variables, mel.spectrogram(x, m, 16000, front))[0])
    expected = hear(x, mask)
    chex.assert_tree_all_finite(expected)
    assert np.abs(expected[0] - expected[2]).max() > 0.01
    for junk in (np.nan, 1e30):
        padded = np.where(mask, x, junk).astype(np.float32)
        chex.assert_trees_all_equal(hear(padded, mask), expected)
    np.testing.assert_allclose(hear(x[:, :3200], mask[:, :3200]), expected, atol=1e-5)


def test_stretch_by_hand():
    """Twice as dense: each frame stays, and halfway 19/32 of the next two less 3/32 of theirs."""
    x = np.random.default_rng(0).standard_normal((2, 5, 3)).astype(np.float32)
    got = stretch(x, 9)
    np.testing.assert_allclose(got[:, ::2], x, atol=1e-6)
    padded = np.pad(x, ((0, 0), (1, 1), (0, 0)), mode="edge")
    expected = (
        19 * (padded[:, 1:-2] + padded[:, 2:-1]) - 3 * (padded[:, :-3] + padded[:, 3:])
    ) / 32
    np.testing.assert_allclose(got[:, 1::2], expected, atol=1e-6)
    np.testing.assert_allclose(stretch(x[:, :1], 4), np.repeat(x[:, :1], 4, 1), atol=1e-6)
    assert stretch(x, 5) is x


def test_silence_has_finite_features_and_gradients():
    tower, variables = small_tower()
    x = np.full((2, 100, 16), -100, np.float32)
    x[1] = spectrograms(1, 100)

    def loss(variables, x):
        got, out = tower.apply(variables, x)
        return jnp.sin(got).sum(), (got, out)

    (_, found), grads = quick(jax.value_and_grad(loss, (0, 1), has_aux=True))(variables, x)
    chex.assert_tree_all_finite((found, grads))
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(grads))


@pytest.mark.slow
def test_a_small_tower_learns_which_band_sounds():
    """From scratch, on spectrograms of noise with one of three bands louder, under a Dense head."""
    tower = AudioTower(**SMALL)
    rng = np.random.default_rng(0)
    label = np.arange(12) % 3
    x = -40 + 10 * rng.standard_normal((12, 64, 16))
    x[np.arange(12), :, 3 + 5 * label] += 20
    x = x.astype(np.float32)
    params = {"tower": quick(tower.init)(jax.random.key(0), x), "head": jnp.zeros((10, 3))}
    tx = optax.adamw(3e-3)

    def loss(params):
        logits = tower.apply(params["tower"], x)[0] @ params["head"]
        return optax.softmax_cross_entropy_with_integer_labels(logits, label).mean()

    @quick
    def step(params, state):
        value, grads = jax.value_and_grad(loss)(params)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state, value

    state, losses = tx.init(params), []
    for _ in range(35):
        params, state, value = step(params, state)
        losses.append(float(value))
    np.testing.assert_allclose(losses[0], math.log(3), atol=1e-5)
    assert losses[-1] < 0.5


def test_first_weights_are_those_of_swin():
    tower = AudioTower(**SMALL | {"width": 48})
    params = quick(tower.init)(jax.random.key(0), spectrograms(1))["params"]
    for drawn in (params["merge_1"], params["stage_1_1"]["up"], params["patches"]):
        np.testing.assert_allclose(np.std(drawn["kernel"]), 0.02, rtol=0.1)
    assert (np.asarray(params["patches"]["bias"]) == 0).all()


def test_bfloat16_is_close():
    tower, variables = small_tower()
    half, x = tower.clone(dtype=jnp.bfloat16), spectrograms()
    expected, got = (quick(t.apply)(variables, x)[0] for t in (tower, half))
    assert got.dtype == jnp.float32
    assert 0 < np.abs(got - expected).max() < 0.05 * np.abs(expected).max()


def test_what_does_not_fit_is_refused():
    def make(**changes):
        x = jnp.zeros((1, changes.pop("frames", 100), changes.pop("given", 16)))
        jax.eval_shape(lambda: AudioTower(**SMALL | changes).init(jax.random.key(0), x))

    for changes, message in (
        (
            {"frames": 257},
            r"spectrograms of shape \(257, 16\) reach a tower for at most \(256, 16\)",
        ),
        ({"frames": 0}, r"spectrograms of shape \(0, 16\)"),
        ({"given": 12}, r"spectrograms of shape \(100, 12\) reach"),
        ({"heads": (2,)}, "depths has 2 stages, but heads has 1"),
        ({"window": 5}, "spec_size is 64; allowed with .* a multiple of 40"),
        ({"mels": 24, "given": 24}, "spec_size is 64; allowed with .* a multiple of 24"),
        ({"mels": 4, "given": 4}, "mels is 4; allowed with .* a multiple of 8"),
        ({"heads": (2, 5)}, "a width of 24 cannot be split among 5 heads"),
        ({"activation": "swish"}, "activation 'swish' is none of gelu, "),
        ({"projection_activation": "swish"}, "activation 'swish' is none of gelu, "),
    ):
        with pytest.raises(InputError, match=message):
            make(**changes)
