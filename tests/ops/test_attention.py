"""Attention against literal loops and against PyTorch's."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from affectjax.ops import attention

B, TQ, TK, H, DH = 3, 4, 5, 2, 3
MASK = np.arange(TK)[None] < np.array([[5], [3], [0]])  # whole, padded, nothing to attend to


def loops(query, key, value, mask=None, bias=None):
    """Returns eq. 1 a number at a time, and the weights; a row that may see nothing gives zeros."""
    query, key, value = (np.asarray(x, np.float64) for x in (query, key, value))
    batch, targets, heads, size = query.shape
    sources = key.shape[1]
    bias = np.zeros((1, 1, 1, 1)) if bias is None else np.asarray(bias, np.float64)
    bias = np.broadcast_to(bias, (batch, heads, targets, sources))
    gathered = np.zeros((batch, targets, heads, size))
    weights = np.zeros((batch, heads, targets, sources))
    for b in range(batch):
        for h in range(heads):
            for i in range(targets):
                seen = [j for j in range(sources) if mask is None or mask[b, j]]
                seen = [j for j in seen if bias[b, h, i, j] > -np.inf]
                scores = {
                    j: sum(query[b, i, h] * key[b, j, h]) / np.sqrt(size) + bias[b, h, i, j]
                    for j in seen
                }
                top = max(scores.values(), default=0)
                total = sum(np.exp(s - top) for s in scores.values())
                for j in seen:
                    weights[b, h, i, j] = np.exp(scores[j] - top) / total
                    gathered[b, i, h] += weights[b, h, i, j] * value[b, j, h]
    return gathered, weights


def inputs(seed=0):
    rng = np.random.default_rng(seed)
    shapes = ((B, TQ, H, DH), (B, TK, H, DH), (B, TK, H, DH))
    return [rng.standard_normal(shape).astype(np.float32) for shape in shapes]


def biases():
    rng = np.random.default_rng(7)
    full = rng.standard_normal((B, H, TQ, TK)).astype(np.float32)
    some = np.where(rng.random((1, 1, TQ, TK)) < 0.4, -np.inf, 0).astype(np.float32)
    some[..., 0, :] = -np.inf  # a target step that may see nothing
    return {
        "no bias": None,
        "bias a head": full,
        "bias for all": full[:1, :1],
        "bias a step": full[:1, :1, :, :1],
        "some forbidden": some,
        "some forbidden, others biased": np.where(np.isinf(some), some, full),
        "future forbidden": np.asarray(attention.causal_bias(TQ, TK)),
    }


def attend(query, key, value, key_mask=None, bias=None):
    scores = attention.attention_scores(query, key, key_mask=key_mask)
    return attention.crossmodal_attention(scores, value, key_mask=key_mask, bias=bias)


def gather(*args, **kwargs):
    return attend(*args, **kwargs)[0]


@pytest.mark.parametrize("bias", biases().values(), ids=biases().keys())
@pytest.mark.parametrize("mask", [None, MASK], ids=["no mask", "mask"])
def test_attention_is_the_loops(mask, bias):
    q, k, v = inputs()
    expected, expected_weights = loops(q, k, v, mask, bias)
    ours, weights = attend(q, k, v, key_mask=mask, bias=bias)
    chex.assert_shape(ours, (B, TQ, H, DH))
    np.testing.assert_allclose(ours, expected, atol=1e-5)
    chex.assert_shape(weights, (B, H, TQ, TK))
    np.testing.assert_allclose(weights, expected_weights, atol=1e-6)
    nothing = np.swapaxes(expected_weights.sum(-1) == 0, 1, 2)
    assert (np.asarray(ours)[nothing] == 0).all(), "exact zeros where nothing may be seen"


def test_masked_source_may_hold_anything():
    q, k, v = inputs()
    forbidden = biases()["some forbidden"]

    def loss(q, k, v):
        return jnp.sum(jnp.sin(gather(q, k, v, key_mask=MASK, bias=forbidden)))

    both = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2)))
    expected = both(q, k, v)
    chex.assert_tree_all_finite(expected)
    for junk in (np.nan, np.inf, -np.inf, 1e38):
        fill = lambda x, junk=junk: np.where(MASK[..., None, None], x, np.float32(junk))  # noqa: E731
        chex.assert_trees_all_equal(both(q, fill(k), fill(v)), expected)
    # An example without source steps, and a target step without any, pass no gradient on.
    for gradient in expected[1]:
        assert (np.asarray(gradient)[2] == 0).all()
    assert (np.asarray(expected[1][0])[:, 0] == 0).all()


def test_gradient_of_attention_is_pytorchs():
    torch = pytest.importorskip("torch", reason="parity with PyTorch needs torch")
    mask = MASK | (np.arange(TK) < 1)  # PyTorch gives NaN where nothing may be seen
    bias = biases()["bias a head"]
    q, k, v = inputs()
    ours = jax.grad(
        lambda *x: jnp.sum(jnp.sin(gather(*x, key_mask=mask, bias=bias))), argnums=(0, 1, 2)
    )(q, k, v)
    tensors = [torch.tensor(x, requires_grad=True) for x in (q, k, v)]
    heads_first = [x.transpose(1, 2) for x in tensors]
    allowed = torch.tensor(np.where(mask[:, None, None], bias, -np.inf))
    theirs = torch.nn.functional.scaled_dot_product_attention(*heads_first, attn_mask=allowed)
    expected = theirs.transpose(1, 2).detach().numpy()
    np.testing.assert_allclose(gather(q, k, v, key_mask=mask, bias=bias), expected, atol=1e-5)
    torch.sin(theirs).sum().backward()
    for gradient, tensor in zip(ours, tensors, strict=True):
        np.testing.assert_allclose(gradient, tensor.grad.numpy(), atol=1e-5)


def test_scores_far_from_zero_do_not_overflow():
    scores = jnp.array([[3e38, -3e38, 0.0], [-1e30, -1e30, -1e30]])
    allowed = jnp.array([[True, True, False], [True, True, False]])
    weights = attention.masked_softmax(scores, allowed)
    np.testing.assert_allclose(weights, [[1, 0, 0], [0.5, 0.5, 0]], atol=1e-6)


def test_masked_softmax_is_plain_without_a_mask():
    scores = np.random.default_rng(0).standard_normal((2, 3, 4)).astype(np.float32)
    expected = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    np.testing.assert_allclose(attention.masked_softmax(scores, None), expected, atol=1e-6)
    everything = np.ones((2, 3, 4), bool)
    np.testing.assert_allclose(attention.masked_softmax(scores, everything), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("targets", "sources", "allowed"),
    [
        (3, 3, [[1, 0, 0], [1, 1, 0], [1, 1, 1]]),
        (2, 4, [[1, 1, 1, 0], [1, 1, 1, 1]]),  # difference 2: step i sees up to i + 2
        (4, 2, [[1, 1], [1, 1], [1, 1], [1, 1]]),
        (4, 3, [[1, 1, 0], [1, 1, 1], [1, 1, 1], [1, 1, 1]]),
        (1, 1, [[1]]),
    ],
)
def test_causal_bias_by_hand(targets, sources, allowed):
    bias = attention.causal_bias(targets, sources)
    chex.assert_shape(bias, (1, 1, targets, sources))
    expected = np.where(np.array(allowed, bool), 0, -np.inf)
    np.testing.assert_array_equal(bias[0, 0], expected)
