"""The prompt pool against loops over its equations, ties, and who gets which gradient."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from affectjax.ops import prompts

B, N, D, K, L, DT, H = 7, 9, 6, 3, 4, 5, 8


def normal(*shape, seed=0, scale=1.0):
    return (scale * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


QUERY, KEYS, VALUES = normal(B, D, seed=1), normal(N, D, seed=2), normal(N, L, DT, seed=3)


def cosine_loop(query, keys):
    out = np.zeros((len(query), len(keys)))
    for b, q in enumerate(query.astype(np.float64)):
        for n, key in enumerate(keys.astype(np.float64)):
            lengths = np.sqrt(sum(q * q)) * np.sqrt(sum(key * key))
            out[b, n] = sum(q * key) / lengths if lengths > 0 else 0.0
    return out


def choose_loop(score, k):
    """Returns `[B, k]`, best first; only a better one displaces a lower index."""
    out = np.zeros((len(score), k), int)
    for b, row in enumerate(score):
        left = list(range(len(row)))
        for place in range(k):
            best = left[0]
            for n in left:
                if row[n] > row[best]:
                    best = n
            out[b, place] = best
            left.remove(best)
    return out


# ---- similarity ---------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", (1.0, 1e-9, 1e9))
def test_cosine_equals_loop_at_any_length(scale):
    ours = prompts.cosine(scale * QUERY, KEYS)
    chex.assert_shape(ours, (B, N))
    np.testing.assert_allclose(ours, cosine_loop(QUERY, KEYS), atol=1e-6)


def test_cosine_of_zero_vectors_is_zero_with_finite_gradients():
    query, keys = QUERY.copy(), KEYS.copy()
    query[2], keys[4] = 0, 0
    np.testing.assert_allclose(prompts.cosine(query, keys), cosine_loop(query, keys), atol=1e-6)
    weight = normal(B, N, seed=4)
    total = lambda q, k: jnp.sum(prompts.cosine(q, k) * weight)  # noqa: E731
    to_query, to_keys = jax.grad(total, argnums=(0, 1))(query, keys)
    chex.assert_tree_all_finite((to_query, to_keys))
    assert not np.any(to_query[2]) and not np.any(to_keys[4])
    assert np.all(np.any(np.delete(to_query, 2, 0), axis=1))


def test_cosine_gradient_equals_finite_differences():
    weight, step = normal(B, N, seed=4), 1e-5
    ours = jax.grad(lambda q: jnp.sum(prompts.cosine(q, KEYS) * weight))(QUERY)
    for b in range(B):
        for d in range(D):
            up, down = QUERY.astype(np.float64), QUERY.astype(np.float64)
            up[b, d] += step
            down[b, d] -= step
            rise = np.sum((cosine_loop(up, KEYS) - cosine_loop(down, KEYS)) * weight) / (2 * step)
            np.testing.assert_allclose(ours[b, d], rise, atol=1e-4)


# ---- retrieval ----------------------------------------------------------------------------------


@pytest.mark.parametrize("k", (1, K, N))
@pytest.mark.parametrize("penalised", (False, True))
def test_retrieve_equals_loop(k, penalised):
    penalty = np.linspace(0, 1.5, N, dtype=np.float32)[::-1].copy() if penalised else None
    retrieve = jax.jit(prompts.retrieve, static_argnums=3)
    values, index, similarity = retrieve(QUERY, KEYS, VALUES, k, penalty)
    cosine = cosine_loop(QUERY, KEYS)
    expected = choose_loop(cosine - (penalty if penalised else 0), k)
    assert index.dtype == jnp.int32
    np.testing.assert_array_equal(index, expected)
    chex.assert_shape(values, (B, k, L, DT))
    for b in range(B):
        for place in range(k):
            np.testing.assert_array_equal(values[b, place], VALUES[expected[b, place]])
            np.testing.assert_allclose(
                similarity[b, place], cosine[b, expected[b, place]], atol=1e-6
            )


def test_a_penalty_changes_the_choice():
    plain = prompts.retrieve(QUERY, KEYS, VALUES, K)[1]
    best = int(np.asarray(plain)[0, 0])
    changed = prompts.retrieve(QUERY, KEYS, VALUES, K, 3.0 * jax.nn.one_hot(best, N))[1]
    assert best not in np.asarray(changed)


def test_ties_go_to_the_lower_index():
    keys = KEYS[[5, 2, 5, 2, 5, 0, 2]]
    query = KEYS[[2, 5]]
    index = prompts.retrieve(query, keys, VALUES[:7], 3)[1]
    np.testing.assert_array_equal(index, [[1, 3, 6], [0, 2, 4]])


def test_a_zero_query_takes_the_first_prompts_whatever_the_signs_of_its_zeros():
    # top_k itself ranks 0 above -0.
    assert jax.lax.top_k(jnp.array([-0.0, 0.0]), 1)[1][0] == 1
    # One feature: the product of 0 with a key has the sign of the key.
    keys = jnp.array([[-1.0], [1.0], [-2.0], [3.0]])
    for query in (jnp.zeros((1, 1)), -jnp.zeros((1, 1))):
        for penalty in (None, jnp.zeros(4)):
            retrieved = prompts.retrieve(query, keys, jnp.ones((4, 1, 1)), 3, penalty)
            np.testing.assert_array_equal(retrieved[1], [[0, 1, 2]])
            np.testing.assert_array_equal(retrieved[2], np.zeros((1, 3)))


def test_an_example_does_not_depend_on_its_neighbours():
    whole = prompts.retrieve(QUERY, KEYS, VALUES, K)
    for b in range(B):
        alone = prompts.retrieve(QUERY[b : b + 1], KEYS, VALUES, K)
        for ours, theirs in zip(alone, whole, strict=True):
            np.testing.assert_allclose(ours[0], theirs[b], atol=1e-6)


def test_gradient_to_values_adds_up_over_the_examples_that_chose_them():
    query = np.concatenate([np.tile(KEYS[4], (30, 1)), QUERY])  # thirty examples alike
    weight = np.round(8 * normal(len(query), K, L, DT, seed=5)) / 8  # sums of eighths are exact

    def total(query, keys, values):
        return jnp.sum(prompts.retrieve(query, keys, values, K)[0] * weight)

    to_query, to_keys, to_values = jax.grad(total, argnums=(0, 1, 2))(query, KEYS, VALUES)
    expected, chosen = np.zeros(VALUES.shape), choose_loop(cosine_loop(query, KEYS), K)
    for b in range(len(query)):
        for place in range(K):
            expected[chosen[b, place]] += weight[b, place]
    assert np.sum(chosen == 4) >= 30
    np.testing.assert_array_equal(to_values, expected)
    assert not np.any(to_query) and not np.any(to_keys)


@pytest.mark.parametrize("k", (0, N + 1))
def test_more_prompts_than_the_pool_holds_are_refused(k):
    with pytest.raises(ValueError, match=rf"k = {k} prompts of a pool of {N}: allowed is 1 to {N}"):
        prompts.retrieve(QUERY, KEYS, VALUES, k)


# ---- what the choice costs ----------------------------------------------------------------------


def test_pull_loss_equals_loop_and_draws_keys_alone():
    index = choose_loop(cosine_loop(QUERY, KEYS), K)
    cosine = cosine_loop(QUERY, KEYS)
    expected = [np.mean([1 - cosine[b, n] for n in index[b]]) for b in range(B)]
    np.testing.assert_allclose(prompts.pull_loss(QUERY, KEYS, index), expected, atol=1e-6)

    def total(query, keys):
        return jnp.sum(prompts.pull_loss(query, keys, index))

    to_query, to_keys = jax.grad(total, argnums=(0, 1))(QUERY, KEYS)
    assert not np.any(to_query)
    chosen = np.isin(np.arange(N), index)
    np.testing.assert_array_equal(np.any(to_keys, axis=1), chosen)
    assert total(QUERY, KEYS - 0.1 * to_keys) < total(QUERY, KEYS)


def test_pull_loss_of_a_zero_query_moves_nothing():
    index = np.zeros((1, 2), np.int32) + np.array([0, 1])
    value, gradient = jax.value_and_grad(
        lambda keys: prompts.pull_loss(np.zeros((1, D), np.float32), keys, index).sum()
    )(KEYS)
    assert value == 1 and not np.any(gradient)


def test_usage_counts_by_weight():
    index = np.array([[0, 2], [2, 1], [2, 0], [3, 4]], np.int32)
    weight = np.array([1, 1, 0.5, 0], np.float32)
    np.testing.assert_array_equal(prompts.usage(index, weight, 6), [1.5, 1, 2.5, 0, 0, 0])


def test_usage_penalty_by_hand():
    counts = jnp.array([3.0, 1.0, 0.0, 4.0])
    np.testing.assert_allclose(prompts.usage_penalty(counts, 2.0), [0.75, 0.25, 0, 1], rtol=1e-6)
    np.testing.assert_array_equal(prompts.usage_penalty(jnp.zeros(4), 2.0), np.zeros(4))


def test_the_penalty_spreads_the_choices_of_equal_queries():
    """Without it one prompt serves all; with it the counts of later batches reach others."""
    query = np.tile(KEYS[4], (8, 1))
    seen = {}
    for rate in (0.0, 3.0):
        counts = jnp.zeros(N)
        for _ in range(20):
            penalty = prompts.usage_penalty(counts, rate)
            index = prompts.retrieve(query, KEYS, VALUES, 1, penalty)[1]
            counts = counts + prompts.usage(index, jnp.ones(8), N)
        seen[rate] = int(np.sum(np.asarray(counts) > 0))
        assert counts.sum() == 160
    assert seen[0.0] == 1 and seen[3.0] >= 3


def test_activated_by_hand():
    # Of 8 choices the uniform share is 2 for four prompts, and half of it 1; of 400, 100 and 50.
    counts = jnp.array([[5.0, 1.0, 0.0, 2.0], [400.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    np.testing.assert_array_equal(prompts.activated(counts, 0.5), [True, True, False, True])
    np.testing.assert_array_equal(prompts.activated(counts, 1.0), [True, False, False, True])
    np.testing.assert_array_equal(prompts.activated(counts, 1.01), [True, False, False, False])
    np.testing.assert_array_equal(prompts.activated(counts[1:], 0.5), [True, False, False, False])
    # A prompt that nothing chose is not activated, even where no share is asked for.
    np.testing.assert_array_equal(prompts.activated(counts, 0.0), [True, True, False, True])
    assert not np.any(prompts.activated(counts[2:], 0.5))


# ---- sparse feature fusion ----------------------------------------------------------------------


def test_gates_and_fusion_equal_loops():
    values = normal(B, K, L, DT, seed=6)
    w1, b1, w2, b2 = normal(DT, H), normal(H, seed=1), normal(H, 1, seed=2), normal(1, seed=3)
    gates = prompts.sparse_gates(values, w1, b1, w2, b2)
    chex.assert_shape(gates, (B, K, L, 1))
    fused = prompts.sparse_fuse(values, gates)
    chex.assert_shape(fused, (B, L, DT))
    for b in range(B):
        for token in range(L):
            total = np.zeros(DT)
            for place in range(K):
                x = values[b, place, token].astype(np.float64)
                hidden = [max(sum(x * w1[:, h]) + b1[h], 0) for h in range(H)]
                gate = 1 / (1 + np.exp(-(sum(hidden * w2[:, 0]) + b2[0])))
                np.testing.assert_allclose(gates[b, place, token, 0], gate, atol=1e-5)
                total += gate * x
            np.testing.assert_allclose(fused[b, token], total, atol=1e-5)


def test_gates_of_extreme_tokens_are_finite():
    w1, w2 = jnp.ones((DT, H)), jnp.ones((H, 1))
    gate = lambda x: prompts.sparse_gates(x, w1, jnp.zeros(H), w2, jnp.zeros(1)).sum()  # noqa: E731
    for scale in (-1e6, 1e6):
        value, gradient = jax.value_and_grad(gate)(jnp.full((1, DT), scale))
        np.testing.assert_allclose(value, 0.5 if scale < 0 else 1.0)
        chex.assert_tree_all_finite(gradient)


def test_l1_by_hand():
    w = jnp.array([[1.0, -2.0], [0.0, 0.5]])
    value, gradient = jax.value_and_grad(prompts.l1)(w)
    assert value == 3.5
    np.testing.assert_array_equal(gradient, [[1, -1], [0, 1]])
