"""The towers of CLIP: sizes, masks, and class prompts against the plain forward of every text.

That they are CLIP is shown against PyTorch in tests/weights/test_from_clip.py.
Letters: B examples, C classes, P tokens of a prefix, S tokens of a class, T tokens, D width.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy_mcr import draw, quick

from affectjax.errors import InputError
from affectjax.models.clip import ImageTower, TextTower

TEXT = {
    "vocab": 40, "length": 14, "width": 16, "layers": 3, "heads": 4, "hidden": 24, "projection": 10,
}  # fmt: skip
IMAGE = {
    "image_size": 12, "patch": 4, "width": 16, "layers": 2, "heads": 2, "hidden": 24,
    "projection": 10,
}  # fmt: skip
# Of the published towers.
B32_TEXT = (49408, 77, 512, 12, 8, 2048, 512)
B32_IMAGE = (224, 32, 768, 12, 12, 3072, 512)
L14_TEXT = (49408, 77, 768, 12, 12, 3072, 768)
L14_IMAGE = (224, 14, 1024, 24, 16, 4096, 768)


def parameters(tower, *inputs):
    return draw(jax.eval_shape(lambda: tower.init(jax.random.key(0), *inputs)), 0)


def compiled(tower, method=None):
    return quick(functools.partial(tower.apply, method=method))


def text_tower(**changes):
    """Returns a small text tower and parameters for it."""
    tower = TextTower(**TEXT | changes)
    return tower, parameters(tower, *texts())


def image_tower():
    """Returns a small image tower, parameters for it and three images."""
    tower = ImageTower(**IMAGE)
    images = np.random.default_rng(0).standard_normal((3, 12, 12, 3)).astype(np.float32)
    return tower, parameters(tower, images), images


def texts():
    """Returns tokens `[4, 9]` and a mask: with a hole, padded, one token, none."""
    tokens = np.random.default_rng(0).integers(0, TEXT["vocab"], (4, 9)).astype(np.int32)
    mask = np.arange(9) < np.array([9, 5, 1, 0])[:, None]
    mask[0, 3] = False
    return tokens, mask


def prompts():
    """Returns a prefix `[2, 6, D]`, class tokens `[4, 5]` and their mask.

    The classes: whole; with a hole, which a causal mask alone would not hide; one token; none.
    """
    rng = np.random.default_rng(1)
    prefix = 0.3 * rng.standard_normal((2, 6, TEXT["width"])).astype(np.float32)
    suffix = rng.integers(0, TEXT["vocab"], (4, 5)).astype(np.int32)
    mask = np.arange(5) < np.array([5, 3, 1, 0])[:, None]
    mask[1, 1] = False
    return prefix, suffix, mask


def plain(tower, variables, prefix, suffix, mask):
    """Returns `[B, C, projection]` through every text in full, from prefix embeddings.

    Embeddings reach the tower as rows of a vocabulary of their own.
    """
    (b, p, d), (c, s) = prefix.shape, suffix.shape
    params = variables["params"]
    vocab = jnp.concatenate([params["token"], prefix.reshape(b * p, d)])
    own = len(params["token"]) + jnp.arange(b * p).reshape(b, 1, p)
    tokens = jnp.concatenate(
        [jnp.broadcast_to(own, (b, c, p)), jnp.broadcast_to(suffix, (b, c, s))], axis=-1
    )
    valid = jnp.concatenate([jnp.ones((b, c, p), bool), jnp.broadcast_to(mask, (b, c, s))], axis=-1)
    wide = tower.clone(vocab=len(vocab))
    variables = {"params": params | {"token": vocab}}
    projected, _ = wide.apply(variables, tokens.reshape(b * c, -1), valid.reshape(b * c, -1))
    return projected.reshape(b, c, -1)


# ---- sizes, worked out by hand ------------------------------------------------------------------


def linear(i, o):
    return i * o + o


def blocks(width, layers, hidden):
    norms = 2 * 2 * width
    mlp = linear(width, hidden) + linear(hidden, width)
    return layers * (norms + 4 * linear(width, width) + mlp)


def text_size(vocab, length, width, layers, heads, hidden, projection):
    tables = (vocab + length) * width
    return tables + blocks(width, layers, hidden) + 2 * width + width * projection


def image_size(side, patch, width, layers, heads, hidden, projection):
    tables = 3 * patch**2 * width + width + (1 + (side // patch) ** 2) * width
    return tables + blocks(width, layers, hidden) + 2 * 2 * width + width * projection


def size(tower, *inputs):
    shapes = jax.eval_shape(lambda: tower.init(jax.random.key(0), *inputs))
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))


@pytest.mark.parametrize(
    ("args", "known"),
    [(tuple(TEXT.values()), 6936), (B32_TEXT, 63_428_096), (L14_TEXT, 123_650_304)],
    ids=["small", "B/32", "L/14"],
)
def test_exact_size_of_text_towers(args, known):
    tokens = jnp.zeros((1, 4), jnp.int32)
    assert size(TextTower(*args), tokens, tokens == 0) == text_size(*args) == known


@pytest.mark.parametrize(
    ("args", "known"),
    [(tuple(IMAGE.values()), 5088), (B32_IMAGE, 87_849_216), (L14_IMAGE, 303_966_208)],
    ids=["small", "B/32", "L/14"],
)
def test_exact_size_of_image_towers(args, known):
    images = jnp.zeros((1, args[0], args[0], 3))
    assert size(ImageTower(*args), images) == image_size(*args) == known


def test_published_totals():
    """With the logit scale, what transformers counts for the two checkpoints."""
    assert text_size(*B32_TEXT) + image_size(*B32_IMAGE) + 1 == 151_277_313
    assert text_size(*L14_TEXT) + image_size(*L14_IMAGE) + 1 == 427_616_513


# ---- the text tower -----------------------------------------------------------------------------


def test_masked_tokens_change_nothing():
    tower, variables = text_tower()
    run, (tokens, mask) = compiled(tower), texts()
    expected = run(variables, tokens, mask)
    for junk in (7, -1, 10**6):
        got = run(variables, np.where(mask, tokens, junk), mask)
        jax.tree.map(np.testing.assert_array_equal, got, expected)
    # Nor does the padding itself.
    short, _ = run(variables, tokens[1:2, :5], mask[1:2, :5])
    np.testing.assert_allclose(short, expected[0][1:2], atol=1e-5)


def test_text_without_tokens_is_zero_with_finite_gradients():
    tower, variables = text_tower()
    tokens, mask = texts()

    def loss(variables):
        projected, out = tower.apply(variables, tokens, mask)
        return jnp.sin(projected).sum(), (projected, out["last"], out["pooled"])

    (_, found), grads = quick(jax.value_and_grad(loss, has_aux=True))(variables)
    for value in map(np.asarray, found):
        assert (value[3] == 0).all() and np.abs(value[:3]).max() > 0.1
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


def test_text_is_causal_and_read_at_its_end():
    tower, variables = text_tower()
    run, (tokens, mask) = compiled(tower), texts()
    projected, out = run(variables, tokens, mask)
    changed = np.where(np.arange(9) == 4, (tokens + 1) % TEXT["vocab"], tokens)
    moved = np.abs(out["last"] - run(variables, changed, mask)[1]["last"]).max(-1) > 1e-6
    np.testing.assert_array_equal(moved, mask & (np.arange(9) >= 4))
    ends = np.stack([out["last"][i, n] for i, n in enumerate((8, 4, 0))])
    np.testing.assert_array_equal(out["pooled"][:3], ends)
    kernel = variables["params"]["project"]["kernel"]
    np.testing.assert_allclose(projected[:3], ends @ kernel, atol=1e-5)


def test_embed_is_a_look_up():
    tower, variables = text_tower()
    tokens, _ = texts()
    got = tower.apply(variables, tokens, method="embed")
    np.testing.assert_array_equal(got, variables["params"]["token"][tokens])


def test_each_method_makes_the_same_parameters():
    tower, key = TextTower(**TEXT), jax.random.key(3)
    by_call = quick(tower.init)(key, *texts())
    by_prompts = quick(functools.partial(tower.init, method="class_prompts"))(key, *prompts())
    jax.tree.map(np.testing.assert_array_equal, by_prompts, by_call)


def test_first_weights_have_the_spread_of_the_paper():
    tower = TextTower(**TEXT | {"vocab": 4000, "width": 64, "hidden": 256, "layers": 8})
    params = quick(tower.init)(jax.random.key(0), *texts())["params"]
    held = {
        "token": (params["token"], 0.02),
        "position": (params["position"], 0.01),
        "query": (params["blocks"]["query"]["kernel"], 64**-0.5),
        "out": (params["blocks"]["out"]["kernel"], 64**-0.5 / 4),
        "up": (params["blocks"]["up"]["kernel"], 128**-0.5),
        "down": (params["blocks"]["down"]["kernel"], 64**-0.5 / 4),
        "project": (params["project"]["kernel"], 64**-0.5),
    }
    for name, (value, spread) in held.items():
        np.testing.assert_allclose(np.std(value), spread, rtol=0.1, err_msg=name)
    first, second = params["blocks"]["query"]["kernel"][:2]
    assert np.abs(first - second).max() > 0.1  # each layer draws its own


# ---- class prompts ------------------------------------------------------------------------------


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_class_prompts_equal_every_text_in_full(layers):
    tower, variables = text_tower(layers=layers)
    prefix, suffix, mask = prompts()
    got = compiled(tower, "class_prompts")(variables, prefix, suffix, mask)
    expected = quick(functools.partial(plain, tower))(variables, prefix, suffix, mask)
    assert got.dtype == jnp.float32 and got.shape == (2, 4, TEXT["projection"])
    np.testing.assert_allclose(got[:, :3], expected[:, :3], atol=1e-5)
    assert np.abs(got[0] - got[1])[:3].max() > 0.1 and np.abs(got[:, 0] - got[:, 1]).max() > 0.1
    assert (np.asarray(got[:, 3]) == 0).all()


def test_class_prompts_have_the_gradients_of_every_text_in_full():
    tower, variables = text_tower()
    prefix, suffix, mask = prompts()
    weight = np.random.default_rng(2).standard_normal((2, 4, TEXT["projection"]))
    weight[:, 3] = 0  # The class without tokens, which in full is read at the prefix's end.

    def shared(variables, prefix):
        got = tower.apply(variables, prefix, suffix, mask, method="class_prompts")
        return jnp.sum(jnp.sin(got) * weight)

    def full(variables, prefix):
        return jnp.sum(jnp.sin(plain(tower, variables, prefix, suffix, mask)) * weight)

    got, expected = (quick(jax.grad(f, argnums=(0, 1)))(variables, prefix) for f in (shared, full))
    assert np.abs(expected[1]).max() > 0.1
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4, rtol=1e-4), got, expected)


def test_masked_tokens_of_a_class_change_nothing():
    tower, variables = text_tower()
    run, (prefix, suffix, mask) = compiled(tower, "class_prompts"), prompts()
    expected = run(variables, prefix, suffix, mask)
    got = run(variables, prefix, np.where(mask, suffix, 10**6), mask)
    np.testing.assert_array_equal(got, expected)


def test_a_class_does_not_depend_on_the_others():
    tower, variables = text_tower()
    run, (prefix, suffix, mask) = compiled(tower, "class_prompts"), prompts()
    together = run(variables, prefix, suffix, mask)
    for c in range(4):
        alone = run(variables, prefix, suffix[c : c + 1], mask[c : c + 1])
        np.testing.assert_allclose(alone[:, 0], together[:, c], atol=1e-5)


# ---- the image tower ----------------------------------------------------------------------------


def test_image_tower_shapes_and_class_token():
    tower, variables, images = image_tower()
    run = compiled(tower)
    projected, out = run(variables, images)
    assert projected.shape == (3, 10) and projected.dtype == jnp.float32
    assert out["last"].shape == (3, 1 + 9, 16) and out["pooled"].shape == (3, 16)
    first = np.asarray(out["last"][:, 0], np.float64)
    first = (first - first.mean(-1, keepdims=True)) / np.sqrt(first.var(-1, keepdims=True) + 1e-5)
    norm = variables["params"]["last_norm"]
    np.testing.assert_allclose(out["pooled"], first * norm["scale"] + norm["bias"], atol=1e-5)
    alone, _ = run(variables, images[1:2])
    np.testing.assert_allclose(alone, projected[1:2], atol=1e-5)


# ---- bfloat16 and errors ------------------------------------------------------------------------


def assert_close_in_bfloat16(tower, variables, *inputs, method=None):
    """Within 5 % of the largest feature: bfloat16 has 8 bits, and there are two or three layers."""
    half = tower.clone(dtype=jnp.bfloat16)
    made = jax.eval_shape(lambda: half.init(jax.random.key(0), *inputs, method=method))
    assert {leaf.dtype for leaf in jax.tree.leaves(made)} == {jnp.dtype("float32")}
    # Of the two results, where there are two, the first is the feature.
    expected, got = (
        jax.tree.leaves(compiled(t, method)(variables, *inputs))[0] for t in (tower, half)
    )
    assert got.dtype == jnp.float32
    assert 0 < np.abs(got - expected).max() < 0.05 * np.abs(expected).max()


def test_bfloat16_is_close_and_keeps_float32_parameters():
    assert_close_in_bfloat16(*text_tower(), *texts())
    assert_close_in_bfloat16(*text_tower(), *prompts(), method="class_prompts")
    assert_close_in_bfloat16(*image_tower())


def test_what_does_not_fit_is_refused():
    tower, variables = text_tower()
    tokens = np.zeros((1, 15), np.int32)
    with pytest.raises(InputError, match="texts of 15 tokens reach a tower for at most 14"):
        tower.apply(variables, tokens, tokens == 0)
    with pytest.raises(InputError, match=r"a prefix of 10 and a suffix of 5 tokens .* at most 14"):
        prefix = jnp.zeros((1, 10, 16))
        tower.apply(variables, prefix, tokens[:, :5], tokens[:, :5] == 0, method="class_prompts")
    with pytest.raises(InputError, match="a width of 16 cannot be split among 3 heads"):
        text_tower(heads=3)
    with pytest.raises(InputError, match="activation 'swish' is none of gelu, "):
        text_tower(activation="swish")
    with pytest.raises(InputError, match="an image size of 12 is not a multiple of the patch 5"):
        parameters(ImageTower(**IMAGE | {"patch": 5}), jnp.zeros((1, 12, 12, 3)))
    with pytest.raises(InputError, match=r"images of shape \(8, 12, 3\) reach a tower for"):
        parameters(ImageTower(**IMAGE), jnp.zeros((1, 8, 12, 3)))
