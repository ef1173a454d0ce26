"""What coincides: by hand, with absent modalities, and found by training."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numpy_mcr import quick

from affectjax.models import coincidence
from affectjax.models.coincidence import Coincidence
from affectjax.models.mcr import MCR
from affectjax.ops import masking

KEY = jax.random.key(0)
B, WORDS, SOUNDS, D = 3, 4, 6, 5


def inputs(seed=0):
    """Returns words, their mask, sounds and theirs; the last example has no sound."""
    rng = np.random.default_rng(seed)
    words = rng.standard_normal((B, WORDS, D)).astype("f4")
    sounds = rng.standard_normal((B, SOUNDS, D)).astype("f4")
    said = np.arange(WORDS) < np.array([4, 2, 3])[:, None]
    heard = np.arange(SOUNDS) < np.array([6, 5, 0])[:, None]
    return words, said, {"audio": sounds}, {"audio": heard}


def test_shares_lie_in_the_middle_of_their_steps():
    mask = np.array([[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]], bool)
    expected = [[0.125, 0.375, 0.625, 0.875], [0.25, 0.75, 0, 0], [0, 0, 0, 0]]
    np.testing.assert_allclose(masking.shares(mask), expected)


def test_a_target_is_averaged_around_the_moments_of_its_source():
    unit, given = Coincidence(2, 2), inputs()
    params = quick(lambda key: unit.init(key, *given, train=False)["params"])(KEY)
    found, out = quick(lambda p, x: unit.apply({"params": p}, *x, train=False))(params, given)
    words, said, sounds, heard = given
    p = jax.tree.map(np.asarray, params)
    for b in range(B):
        count, steps = said[b].sum(), heard["audio"][b].sum()
        if not steps:
            np.testing.assert_array_equal(found[b], 0)
            continue
        x = sounds["audio"][b, :steps] - sounds["audio"][b, :steps].mean(0)
        x = np.pad(x, ((1, 1), (0, 0)))
        kernel, bias = p["see_audio"]["kernel"], p["see_audio"]["bias"]
        seen = [sum(x[t + i] @ kernel[i] for i in range(3)) + bias for t in range(steps)]
        scores = np.maximum(seen, 0) @ p["score_audio"]["kernel"] + p["score_audio"]["bias"]
        value = words[b, :count] @ p["value_audio"]["kernel"] + p["value_audio"]["bias"]
        for h in range(2):
            moments = np.exp(coincidence.SCALE * scores[:, h])
            moments /= moments.sum()
            np.testing.assert_allclose(out["moments/audio"][b, h, :steps], moments, atol=1e-5)
            weight = np.zeros(count)
            for q in range(count):
                apart = (q + 0.5) / count - (np.arange(steps) + 0.5) / steps
                weight[q] = (np.exp(-0.5 * (apart / coincidence.SPREAD) ** 2) * moments).sum()
            expected = (weight / (weight.sum() + 1e-3)) @ value
            np.testing.assert_allclose(found[b].reshape(2, 2)[h], expected, atol=1e-5)


def test_what_is_masked_does_not_matter_and_gradients_are_finite():
    unit, (words, said, sounds, heard) = Coincidence(2, 1), inputs()
    start = quick(lambda key: unit.init(key, words, said, sounds, heard, train=False))
    params = start(KEY)["params"]
    other = np.where(heard["audio"][..., None], sounds["audio"], 7)

    def total(params, sounds):
        made, _ = unit.apply({"params": params}, words, said, {"audio": sounds}, heard, train=False)
        return made.sum(), made

    run = quick(jax.value_and_grad(total, has_aux=True))
    (_, one), grads = run(params, sounds["audio"])
    (_, two), _ = run(params, other)
    np.testing.assert_allclose(one, two, atol=1e-6)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


def test_it_learns_which_of_two_words_the_voice_stresses():
    """Neither modality alone tells the class: words name both, the stress only a place."""
    rng = np.random.default_rng(0)
    count = 256
    late, first = rng.integers(0, 2, (2, count))
    words = rng.normal(0, 0.1, (count, 8, 2)).astype("f4")
    sounds = rng.normal(0, 0.3, (count, 16, 2)).astype("f4")
    rows = np.arange(count)
    for place, name in ((1, first), (6, 1 - first)):
        words[rows, place, name] += 2
    sounds[rows, np.where(late, 13, 2), 0] += 3
    label = np.where(late, 1 - first, first)
    batch = {
        "text": {"x": words, "mask": np.ones((count, 8), bool)},
        "audio": {"x": sounds, "mask": np.ones((count, 16), bool)},
    }
    half = lambda x, start: jax.tree.map(lambda leaf: leaf[start::2], x)  # noqa: E731
    unit = Coincidence(4, 1)
    head = jnp.zeros((4, 2))

    def logits(params, batch):
        text, audio = batch["text"], batch["audio"]
        made, _ = unit.apply(
            {"params": params["unit"]}, text["x"], text["mask"], {"audio": audio["x"]},
            {"audio": audio["mask"]}, train=False,
        )  # fmt: skip
        return made @ params["head"]

    text, audio = half(batch, 0)["text"], half(batch, 0)["audio"]
    args = text["x"], text["mask"], {"audio": audio["x"]}, {"audio": audio["mask"]}
    start = quick(lambda key: unit.init(key, *args, train=False)["params"])(KEY)
    params, tx = {"unit": start, "head": head}, optax.adam(0.03)

    def fit(params):
        def loss(params):
            made = logits(params, half(batch, 0))
            return optax.softmax_cross_entropy_with_integer_labels(made, half(label, 0)).mean()

        def step(carry, _):
            params, state = carry
            updates, state = tx.update(jax.grad(loss)(params), state)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, tx.init(params)), None, 60)[0][0]

    said = np.asarray(logits(quick(fit)(params), half(batch, 1))).argmax(-1)
    assert (said == half(label, 1)).mean() > 0.9


def model(**keys):
    kernels = {"text": 1, "audio": 1}
    return MCR(2, tuple(kernels), kernels, width=8, heads=2, layers=1, **keys)


def init(of, batch):
    return quick(lambda key: of.init(key, batch, train=False)["params"])(KEY)


def run(of, params, batch):
    return quick(lambda p, b: of.apply({"params": p}, b, train=False))(params, batch)


def batch_of():
    words, said, sounds, heard = inputs()
    return {
        "text": {"x": words, "mask": said},
        "audio": {"x": sounds["audio"], "mask": heard["audio"]},
    }


@pytest.mark.parametrize(
    ("keys", "added"),
    [
        ({"linear_path": "mean"}, {"linear_text": (D, 2), "linear_audio": (D, 2)}),
        ({"linear_path": "moments"}, {"linear_text": (2 * D, 2), "linear_audio": (2 * D, 2)}),
        ({"coincidence": {"text": 3}}, {"linear_coincidence": (24, 2)}),
        ({"coincidence": {"text": 1, "audio": 1}}, {"linear_coincidence": (16, 2)}),
    ],
)
def test_what_stands_beside_the_network_adds_nothing_at_first(keys, added):
    plain, more, batch = model(), model(**keys), batch_of()
    old, new = (init(of, batch) for of in (plain, more))
    for name, shape in added.items():
        assert new[name]["kernel"].shape == shape
        assert not new[name]["kernel"].any() and not new[name]["bias"].any()
    expected, _ = run(plain, old, batch)
    merged = {**new, **old}
    found, out = run(more, merged, batch)
    np.testing.assert_array_equal(found, expected)
    assert ("moments/audio_to_text" in out) == ("coincidence" in keys)
    # What it adds is the linear map of means, and deviations, over valid steps.
    for name in added if "linear_path" in keys else ():
        m = name.removeprefix("linear_")
        merged[name] = {"kernel": np.ones(added[name], "f4"), "bias": np.zeros(2, "f4")}
        x, mask = batch[m]["x"], batch[m]["mask"]
        for b in range(B):
            valid = x[b, mask[b]]
            total = valid.mean(0).sum() if len(valid) else 0
            if keys["linear_path"] == "moments":
                total += np.sqrt(valid.var(0) + 1e-6).sum() if len(valid) else D * 1e-3
            expected = np.asarray(expected).copy()
            expected[b] += total
    found, _ = run(more, merged, batch)
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize(
    "keys",
    [{"coincidence": {"text": 0}}, {"coincidence": {"vision": 1}}, {"linear_path": "max"}],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused(keys):
    with pytest.raises(ValueError, match="allowed"):
        model(**keys)
