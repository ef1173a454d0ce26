"""The supramodal network: towers, the shared encoder, batches that are neither paired nor alike.

Letters: B examples, T steps, S samples, D features, E of an emotion, H height, W width.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import numpy_supramodal as ref
import pytest
from numpy_mcr import draw, quick, wide

from affectjax.encoders.clip import Texts
from affectjax.modalities import MODALITIES
from affectjax.models.encoders import ImageConv, MelConv, SequenceEncoder
from affectjax.models.supramodal import Supramodal

D, E = 12, 10
SIZES = {"text": 5, "audio": 3, "vision": 7}
# Rows of weight 0 only pad.
WEIGHT = {
    "text": np.array([1, 1, 0, 1, 1], np.float32),
    "audio": np.array([1, 1, 1], np.float32),
    "vision": np.array([1, 0, 1, 1, 1, 1, 0], np.float32),
}
SHAPES = {"text": (4, 6), "audio": (5, 3), "vision": (2, 4)}


def sequences(width=D, layers=1, heads=2):
    """Returns what makes an encoder of features."""
    return functools.partial(SequenceEncoder, width, layers, heads)


DROPS = {"dropout": jax.random.key(5)}  # layers want a key, though nothing is dropped


def features_net(**changes):
    fields = {"width": D, "hidden": E} | changes
    return Supramodal(MODALITIES, dict.fromkeys(MODALITIES, sequences()), **fields)


def views_of(seed=0, junk=None):
    """Returns a batch of each modality, `junk` in the rows that only pad and in masked steps."""
    rng, views = np.random.default_rng(seed), {}
    for m, (steps, width) in SHAPES.items():
        x = rng.standard_normal((SIZES[m], steps, width)).astype(np.float32)
        mask = np.arange(steps) < rng.integers(1, steps + 1, SIZES[m])[:, None]
        if junk is not None:
            x = np.where(mask[..., None] & (WEIGHT[m] > 0)[:, None, None], x, np.float32(junk))
            # A row that pads may say that all of it is there.
            mask = mask | (WEIGHT[m] == 0)[:, None]
        views[m] = {"x": x, "mask": mask, "weight": WEIGHT[m]}
    return views


def drawn(net, views):
    """Returns drawn parameters, and running statistics that are not those of the start."""
    read = functools.partial(net.init, method="read", train=False)
    shapes = jax.eval_shape(lambda: read(jax.random.key(0), views))
    rng = np.random.default_rng(1)
    stats = jax.tree.map(
        lambda x: rng.uniform(0.5, 2, x.shape).astype(np.float32), shapes["batch_stats"]
    )
    return {"params": draw(shapes["params"], 0), "batch_stats": stats}


@functools.cache
def prepared(statistics):
    net = features_net(statistics=statistics)
    evaluate = quick(functools.partial(net.apply, method="read", train=False))
    train = quick(
        functools.partial(net.apply, method="read", train=True, mutable=["batch_stats"], rngs=DROPS)
    )
    return drawn(net, views_of()), evaluate, train


def assert_close(ours, theirs, names=("emotion", "non_emotion", "seven", "three")):
    assert ours.keys() == theirs.keys()
    for m in theirs:
        for name in names:
            counted = WEIGHT[m] > 0
            np.testing.assert_allclose(
                np.asarray(ours[m][name])[counted],
                np.asarray(theirs[m][name])[counted],
                atol=2e-4,
                err_msg=f"{m} {name}",
            )


# ---- behind the towers --------------------------------------------------------------------------


@pytest.mark.parametrize("shared", [False, True], ids=["modality", "shared"])
@pytest.mark.parametrize("train", [False, True], ids=["evaluated", "trained"])
def test_it_equals_loops_in_numpy(shared, train):
    """Batches of 5, 3 and 7, some of whose rows only pad."""
    variables, evaluate, trains = prepared("shared" if shared else "modality")
    found, after = trains(variables, views_of()) if train else (evaluate(variables, views_of()), {})
    features = {m: np.asarray(found[m]["feature"]) for m in MODALITIES}
    assert {m: x.shape for m, x in features.items()} == {m: (SIZES[m], D) for m in MODALITIES}
    running = variables["batch_stats"]
    theirs, moved = ref.read(
        features, WEIGHT, wide(variables["params"]), wide(running), train, shared
    )
    assert_close(found, theirs)
    for m in MODALITIES:
        assert found[m]["emotion"].shape == found[m]["non_emotion"].shape == (SIZES[m], E)
        assert found[m]["seven"].shape == (SIZES[m], 7) and found[m]["three"].shape == (SIZES[m], 3)
    if train:
        moved = {name: moved[name] for name in after["batch_stats"]}
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), after["batch_stats"], moved
        )
        assert all(
            np.abs(a - b).max() > 1e-3
            for a, b in zip(jax.tree.leaves(moved), jax.tree.leaves(running), strict=True)
        )


def test_statistics_of_a_modality_are_its_own():
    """What one batch moves is of that modality alone; the encoder of emotions is one."""
    variables, _, train = prepared("modality")
    _, after = train(variables, {"audio": views_of()["audio"]})
    before, after = variables["batch_stats"], after["batch_stats"]
    for place in ("norm_0", "norm_1"):
        for kind in ("mean", "var"):
            moved = {
                m: bool(
                    np.any(before["emotion"][place][f"{kind}_{m}"]
                           != after["emotion"][place][f"{kind}_{m}"])
                )
                for m in MODALITIES
            }  # fmt: skip
            assert moved == {"text": False, "audio": True, "vision": False}
    for m in MODALITIES:
        same = jax.tree.all(
            jax.tree.map(np.array_equal, before[f"non_emotion_{m}"], after[f"non_emotion_{m}"])
        )
        assert same is (m != "audio")
    assert set(variables["params"]["emotion"]["norm_0"]) == {"scale", "bias"}


@pytest.mark.parametrize("statistics", ["modality", "shared"])
def test_a_modality_alone_is_read_as_beside_the_others(statistics):
    variables, evaluate, _ = prepared(statistics)
    views = views_of()
    together = evaluate(variables, views)
    for m in MODALITIES:
        alone = evaluate(variables, {m: views[m]})
        assert list(alone) == [m]
        for name, value in alone[m].items():
            np.testing.assert_allclose(value, together[m][name], atol=1e-5)


@functools.cache
def gradients(statistics):
    """Returns `params, views -> ((value, (found, after)), gradient)` of a step of training."""
    net, (variables, _, _) = features_net(statistics=statistics), prepared(statistics)
    apply = functools.partial(net.apply, method="read", train=True, mutable=["batch_stats"])

    def value(params, views):
        found, after = apply({**variables, "params": params}, views, rngs=DROPS)
        total = 0.0
        for m, own in found.items():
            for x in own.values():
                x = jnp.where((WEIGHT[m] > 0)[:, None], x, 0.0)
                total += jnp.sum(jnp.sin(x) * x.shape[1])
        return total, (found, after)

    return quick(jax.value_and_grad(value, has_aux=True))


@pytest.mark.parametrize("junk", [np.nan, np.inf, 1e30])
@pytest.mark.parametrize("statistics", ["modality", "shared"])
def test_padded_rows_and_steps_change_nothing(junk, statistics):
    """Neither what the others give, nor the running statistics, nor any gradient."""
    params, run = prepared(statistics)[0]["params"], gradients(statistics)
    (expected, (found, after)), gradient = run(params, views_of())
    (total, (other, moved)), same = run(params, views_of(junk=junk))
    np.testing.assert_allclose(total, expected, rtol=1e-6)
    assert_close(other, found, names=("feature", "emotion", "non_emotion", "seven", "three"))
    close = lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5)  # noqa: E731
    jax.tree.map(close, (moved, same), (after, gradient))


def test_a_tower_of_another_width_is_followed_by_a_dense():
    views = views_of()
    encoders = {"text": sequences(6, 0), "audio": sequences(), "vision": sequences()}
    net = Supramodal(MODALITIES, encoders, D, E)
    params = drawn(net, views)["params"]
    assert params["text"]["dense"]["kernel"].shape == (6, D) and "dense" not in params["audio"]


# ---- sizes --------------------------------------------------------------------------------------


def size(tree):
    return sum(math.prod(x.shape) for x in jax.tree.leaves(tree))


def test_heads_of_the_paper_have_their_exact_size():
    """512 -> 256 -> 256 with batch norm: four of them, and heads of seven and three."""
    net = Supramodal(MODALITIES, dict.fromkeys(MODALITIES, sequences(512, 0, 8)))
    read = functools.partial(net.init, method="read", train=False)
    shapes = jax.eval_shape(lambda: read(jax.random.key(0), views_of()))
    encoder = 512 * 256 + 256 * 256 + 2 * 2 * 256
    params = shapes["params"]
    assert size(params["emotion"]) == encoder == 197_632
    for m in MODALITIES:
        assert size(params[f"non_emotion_{m}"]) == encoder
    assert size(params["seven"]) == 1_799 and size(params["three"]) == 771
    towers = sum(SHAPES[m][1] * 512 + 512 + 2 * 512 for m in MODALITIES)
    assert size(params) == 4 * encoder + 1_799 + 771 + towers
    # A mean and a variance for each of two norms; those of emotions for each modality.
    assert size(shapes["batch_stats"]) == 2 * 2 * 256 * (3 + 3)


# ---- raw inputs ---------------------------------------------------------------------------------

CLIP_TEXT = {
    "vocab": 20, "length": 8, "width": 8, "layers": 1, "heads": 2, "hidden": 16, "projection": D,
}  # fmt: skip
RAW = {
    "text": functools.partial(Texts, **CLIP_TEXT),
    "audio": functools.partial(MelConv, channels=(4, 6), projection=D),
    "vision": functools.partial(ImageConv, channels=(4, 6), projection=D),
}


def raw_batch(seed=0, junk=0.0):
    """Returns a batch of four: all there, part of it, one modality, nothing."""
    rng = np.random.default_rng(seed)
    batch = {
        "text": {
            "x": rng.integers(2, 19, (4, 8)).astype(np.int32),
            "mask": np.arange(8) < np.array([8, 5, 0, 0])[:, None],
        },
        "audio": {
            "x": rng.normal(0, 0.3, (4, 2400)).astype(np.float32),
            "mask": np.arange(2400) < np.array([2400, 1600, 0, 0])[:, None],
        },
        "vision": {
            "x": rng.integers(0, 256, (4, 2, 16, 16, 3)).astype(np.float32),
            "mask": np.arange(2) < np.array([2, 0, 1, 0])[:, None],
        },
        "weight": np.ones(4, np.float32),
    }
    for m in ("audio", "vision"):
        mask = batch[m]["mask"]
        x = batch[m]["x"]
        shaped = mask.reshape(*mask.shape, *[1] * (x.ndim - 2))
        batch[m]["x"] = np.where(shaped, x, np.float32(junk))
    batch["text"]["x"] = np.where(batch["text"]["mask"], batch["text"]["x"], int(bool(junk)))
    batch["present"] = {m: batch[m]["mask"].any(1) for m in MODALITIES}
    return batch


def test_masked_frames_samples_and_words_change_nothing():
    net = Supramodal(MODALITIES, RAW, D, E)
    batch = raw_batch()
    shapes = jax.eval_shape(lambda: net.init(jax.random.key(0), batch, train=False))
    stats = jax.tree.map(lambda x: np.ones(x.shape, x.dtype), shapes["batch_stats"])
    variables = {"params": draw(shapes["params"], 0), "batch_stats": stats}
    run = quick(functools.partial(net.apply, train=False))
    logits, out = run(variables, batch)
    assert logits.shape == (4, 7) and np.isfinite(logits).all()
    assert (np.asarray(logits)[3] == 0).all() and np.ptp(logits[:3], axis=0).max() > 1e-3
    for junk in (200.0, -3.0):
        other, more = run(variables, raw_batch(junk=junk))
        np.testing.assert_allclose(other, logits, atol=1e-5)
        for name, value in out.items():
            np.testing.assert_allclose(more[name], value, atol=1e-5, err_msg=name)
    # The mean over the modalities that are there, each of which says what `read` gives.
    for b, here in enumerate([MODALITIES, ("text", "audio"), ("vision",)]):
        mean = np.mean([out[f"seven/{m}"][b] for m in here], axis=0)
        np.testing.assert_allclose(logits[b], mean, atol=1e-5)
    for m in MODALITIES:
        absent = ~batch["present"][m]
        for name in ("feature", "emotion", "non_emotion", "seven", "three"):
            assert (np.asarray(out[f"{name}/{m}"])[absent] == 0).all()


# ---- sound --------------------------------------------------------------------------------------

# The whole, around the ends of frames and patches, 0.1 s, one sample, and none at all.
SAMPLES = (8000, 6400, 6401, 3999, 1600, 400, 1, 0)


@pytest.fixture(scope="module")
def mel():
    module = MelConv((4, 6, 6), D)
    rng = np.random.default_rng(0)
    mask = np.arange(SAMPLES[0]) < np.array(SAMPLES)[:, None]
    x = np.where(mask, rng.normal(0, 0.2, mask.shape), 0).astype(np.float32)
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), x, mask, train=False))
    run = quick(functools.partial(module.apply, train=False))
    return draw(shapes, 0), run, x, mask


@pytest.mark.parametrize("more", [1, 160, 5000])
@pytest.mark.parametrize("junk", [np.nan, 1e30])
def test_the_padding_of_a_sound_changes_nothing(mel, more, junk):
    params, run, x, mask = mel
    longer = np.concatenate([mask, np.zeros((len(x), more), bool)], axis=1)
    padded = np.where(longer, np.pad(x, ((0, 0), (0, more))), np.float32(junk))
    np.testing.assert_allclose(run(params, padded, longer), run(params, x, mask), atol=2e-4)


def test_a_sound_alone_is_read_as_among_longer_ones(mel):
    params, run, x, mask = mel
    together = run(params, x, mask)
    for b, length in enumerate(SAMPLES[:5]):
        alone = run(params, x[b : b + 1, :length], mask[b : b + 1, :length])
        np.testing.assert_allclose(alone[0], together[b], atol=2e-4, err_msg=f"{length} samples")


def test_silence_and_a_tenth_of_a_second_are_finite_and_so_are_their_gradients(mel):
    params, _, x, mask = mel
    module = MelConv((4, 6, 6), D)

    def loss(params, x):
        y = module.apply(params, x, mask, train=False)
        return jnp.sum(jnp.sin(y)), y

    run = quick(jax.value_and_grad(loss, (0, 1), has_aux=True))

    for sound in (x, np.zeros_like(x)):
        (_, y), gradients = run(params, sound)
        assert y.shape == (len(SAMPLES), D) and np.isfinite(y).all()
        for gradient in jax.tree.leaves(gradients):
            assert np.isfinite(gradient).all()
    (_, y), _ = run(params, x)
    assert np.ptp(y[:5], axis=0).max() > 1e-2  # it does hear


def test_a_sound_is_changed_in_training_alone_and_its_padding_changes_nothing(mel):
    params, run, x, mask = mel
    module = MelConv((4, 6, 6), D, changes={"steps": 0.5, "bands": 0.5, "shift": 4})

    def train(x, mask, seed):
        key = {"dropout": jax.random.key(seed)}
        return module.apply(params, x, mask, train=True, rngs=key)

    train = quick(train)
    first = train(x, mask, 0)
    there = np.array(SAMPLES) > 1000
    assert (np.abs(first - run(params, x, mask)).max(1)[there] > 1e-3).all()
    np.testing.assert_array_equal(first, train(x, mask, 0))
    assert (np.abs(first - train(x, mask, 1)).max(1)[there] > 1e-3).all()
    quiet = module.apply(params, x, mask, train=False)
    np.testing.assert_allclose(quiet, run(params, x, mask), atol=1e-5)
    longer = np.pad(mask, ((0, 0), (0, 5000)))
    padded = np.where(longer, np.pad(x, ((0, 0), (0, 5000))), np.float32(np.nan))
    np.testing.assert_allclose(train(padded, longer, 0), first, atol=2e-4)
