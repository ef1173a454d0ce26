"""BERT: sizes, masks, bfloat16. That it is BERT is shown in tests/weights/test_from_bert.py.

Letters: B examples, T tokens, D width.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy_mcr import draw, quick

from affectjax.errors import InputError
from affectjax.models.bert import Bert

SMALL = {
    "vocab": 40, "length": 12, "types": 2, "width": 16, "layers": 3, "heads": 4, "hidden": 24,
}  # fmt: skip


def parameters(tower):
    return draw(jax.eval_shape(lambda: tower.init(jax.random.key(0), *texts())), 0)


def texts():
    """Returns tokens `[4, 9]` and a mask: whole, padded, one token, none."""
    tokens = np.random.default_rng(0).integers(0, SMALL["vocab"], (4, 9)).astype(np.int32)
    return tokens, np.arange(9) < np.array([9, 5, 1, 0])[:, None]


def size_by_hand(vocab, length, types, width, layers, heads, hidden):
    linear = lambda i, o: i * o + o  # noqa: E731
    norm = 2 * width
    mlp = linear(width, hidden) + linear(hidden, width)
    tables = (vocab + length + types) * width + norm
    return tables + layers * (4 * linear(width, width) + mlp + 2 * norm)


@pytest.mark.parametrize(
    ("args", "known"),
    [
        (tuple(SMALL.values()), 6_776),
        # What transformers counts for the two, less the pooler's width * width + width.
        ((30522, 512, 2, 768, 12, 12, 3072), 109_482_240 - 590_592),
        ((30522, 512, 2, 384, 6, 12, 1536), 22_713_216 - 147_840),
    ],
    ids=["small", "base", "MiniLM-L6"],
)
def test_exact_size(args, known):
    shapes = jax.eval_shape(lambda: Bert(*args).init(jax.random.key(0), *texts()))
    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))
    assert count == size_by_hand(*args) == known


def test_masked_tokens_change_nothing():
    tower = Bert(**SMALL)
    run, variables, (tokens, mask) = quick(tower.apply), parameters(tower), texts()
    expected = run(variables, tokens, mask)
    for junk in (7, -1, 10**6):
        got = run(variables, np.where(mask, tokens, junk), mask)
        jax.tree.map(np.testing.assert_array_equal, got, expected)
    # Nor does the padding itself.
    short, _ = run(variables, tokens[1:2, :5], mask[1:2, :5])
    np.testing.assert_allclose(short, expected[0][1:2], atol=1e-5)


def test_every_valid_token_tells_every_other():
    tower = Bert(**SMALL)
    run, variables, (tokens, mask) = quick(tower.apply), parameters(tower), texts()
    changed = np.where(np.arange(9) == 4, (tokens + 1) % SMALL["vocab"], tokens)
    before, after = (run(variables, t, mask)[1]["last"] for t in (tokens, changed))
    heard = mask & mask[:, 4:5]
    np.testing.assert_array_equal(np.abs(before - after).max(-1) > 1e-6, heard)


def test_sentence_without_tokens_is_zero_with_finite_gradients():
    tower = Bert(**SMALL)
    tokens, mask = texts()

    def loss(variables):
        mean, out = tower.apply(variables, tokens, mask)
        return jnp.sin(mean).sum(), (mean, out["last"])

    (_, found), grads = quick(jax.value_and_grad(loss, has_aux=True))(parameters(tower))
    for value in map(np.asarray, found):
        assert (value[3] == 0).all() and np.abs(value[:3]).max() > 0.1
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


def test_bfloat16_is_close_and_keeps_float32_parameters():
    """Within 5 % of the largest feature: bfloat16 has 8 bits, and there are three layers."""
    tower, half = Bert(**SMALL), Bert(**SMALL, dtype=jnp.bfloat16)
    variables = parameters(tower)
    made = jax.eval_shape(lambda: half.init(jax.random.key(0), *texts()))
    assert {leaf.dtype for leaf in jax.tree.leaves(made)} == {jnp.dtype("float32")}
    expected, got = (quick(t.apply)(variables, *texts()) for t in (tower, half))
    assert got[0].dtype == got[1]["last"].dtype == jnp.float32
    assert 0 < np.abs(got[0] - expected[0]).max() < 0.05 * np.abs(expected[0]).max()


def test_what_does_not_fit_is_refused():
    with pytest.raises(InputError, match="texts of 9 tokens reach a tower for at most 8"):
        parameters(Bert(**SMALL | {"length": 8}))
    with pytest.raises(InputError, match="a width of 16 cannot be split among 3 heads"):
        parameters(Bert(**SMALL | {"heads": 3}))
