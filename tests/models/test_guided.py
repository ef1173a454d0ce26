"""The recognisers that concepts guide: faces, one sequence, three; masked frames; exact sizes.

Letters: B examples, T steps or frames, E of the guided feature, C classes, H height, W width.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy_mcr import draw, quick, wide

from affectjax.modalities import MODALITIES
from affectjax.models.guided import Guided
from affectjax.models.mult import Encoders
from affectjax.models.resnet import ResNet18

B, E, C, WIDTH = 6, 8, 3, 4
STEPS = {"text": (5, 7), "audio": (4, 3), "vision": (6, 5)}
MEMORY = {"heads": 2, "layers": 1}
DROPS = {"dropout": jax.random.key(5)}


def faces(**changes):
    fields = {"width": WIDTH, **changes}
    return Guided(C, ("vision",), {"vision": fields}, E)


def sequences(*modalities):
    return Guided(C, modalities, dict.fromkeys(modalities, MEMORY), E)


def frames_batch(junk=0.0, size=32):
    """Two frames, one, one, one; one that pads with frames, one that is not there.

    Four frames of six rows count; `junk` stands everywhere else.
    """
    mask = np.array([[1, 1], [1, 0], [0, 1], [1, 0], [1, 1], [0, 0]], bool)
    counts = mask & (np.arange(B) != 4)[:, None]
    x = np.random.default_rng(0).integers(0, 256, (B, 2, size, size, 3)).astype(np.float32)
    x = np.where(counts[..., None, None, None], x, np.float32(junk))
    weight = np.array([1, 1, 1, 1, 0, 1], np.float32)
    return {"vision": {"x": x, "mask": mask}, "present": {"vision": mask.any(1)}, "weight": weight}


def sequence_batch(modalities, junk=0.0):
    """All there; shorter; each modality in turn absent; one row that pads."""
    rng, batch = np.random.default_rng(0), {"present": {}}
    batch["weight"] = np.array([1, 1, 1, 1, 0, 1], np.float32)
    for place, m in enumerate(MODALITIES):
        steps, width = STEPS[m]
        lengths = np.array([steps, steps - 2, steps, 1, 2, steps])
        lengths[2 + place] = 0 if place != 2 else 2
        mask = np.arange(steps) < lengths[:, None]
        counts = mask & (batch["weight"] > 0)[:, None]
        x = rng.standard_normal((B, steps, width))
        if m in modalities:
            x = np.where(counts[..., None], x, junk).astype(np.float32)
            batch[m] = {"x": x, "mask": mask}
            batch["present"][m] = mask.any(1)
    return batch


def prepared(net, batch):
    """Returns drawn variables, the evaluated model, and a step of training with its gradient."""
    shapes = jax.eval_shape(lambda: net.init(jax.random.key(0), batch, train=False))
    rng = np.random.default_rng(1)

    def running(path, x):  # means below zero: what comes out of a ReLU is not all zero
        low, high = (0.5, 2) if path[-1].key == "var" else (-1, 0)
        return rng.uniform(low, high, x.shape).astype(np.float32)

    stats = jax.tree_util.tree_map_with_path(running, shapes.pop("batch_stats", {}))
    params, rest = draw(shapes["params"], 2), {"batch_stats": stats} if stats else {}

    def loss(params, batch):
        (logits, out), after = net.apply(
            {"params": params, **rest}, batch, train=True, rngs=DROPS, mutable=list(rest)
        )
        counted = (batch["weight"] > 0)[:, None]
        total = jnp.sum(jnp.where(counted, jnp.sin(logits) * jnp.arange(1, C + 1), 0.0))
        return total, (logits, out, after)

    evaluate = quick(functools.partial(net.apply, train=False))
    step = quick(jax.value_and_grad(loss, has_aux=True))
    return {"params": params, **rest}, evaluate, lambda batch: step(params, batch)


KINDS = {
    "faces": (faces(), frames_batch),
    "one": (sequences("audio"), functools.partial(sequence_batch, ("audio",))),
    "three": (sequences(*MODALITIES), functools.partial(sequence_batch, MODALITIES)),
}


@pytest.fixture(scope="module", params=KINDS.values(), ids=KINDS.keys())
def subject(request):
    net, batch = request.param
    return net, batch, *prepared(net, batch())


@pytest.mark.parametrize("junk", [200.0, np.nan, 1e30])
def test_masked_places_and_padded_rows_change_nothing(subject, junk):
    """Frames are bytes, but a sequence may hold anything."""
    net, batch, variables, evaluate, step = subject
    if net.modalities == ("vision",) and junk != 200.0:
        batch_of = batch(junk=255.0)
    else:
        batch_of = batch(junk=junk)
    counted = batch_of["weight"] > 0
    expected, other = evaluate(variables, batch()), evaluate(variables, batch_of)
    for ours, theirs in zip(jax.tree.leaves(other), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours[counted], theirs[counted], atol=1e-5)
        assert np.isfinite(ours).all()
    (total, (_, _, after)), gradient = step(batch())
    (same, (_, _, moved)), again = step(batch_of)
    np.testing.assert_allclose(same, total, rtol=1e-5)
    scale = max(float(np.abs(x).max()) for x in jax.tree.leaves(gradient))
    close = lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5 * scale)  # noqa: E731
    jax.tree.map(close, (moved, again), (after, gradient))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradient))


def test_the_feature_is_what_the_head_reads(subject):
    net, batch, variables, evaluate, _ = subject
    logits, out = evaluate(variables, batch())
    head = wide(variables["params"]["head"])
    assert out["feature"].shape == (B, E) and logits.shape == (B, C)
    assert {f"feature/{m}" for m in net.modalities} | {"feature"} == set(out)
    expected = np.asarray(out["feature"], np.float64) @ head["kernel"] + head["bias"]
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    assert np.ptp(np.asarray(logits)[:3], axis=0).max() > 1e-3


def test_a_face_is_resnet_on_each_frame_their_mean_and_a_dense():
    """By PyTorch's rules for pixels: from 0 to 1, less the mean, by the deviation."""
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    net, batch = faces(mean=mean, std=std), frames_batch()
    variables, evaluate, _ = prepared(net, batch)
    _, out = evaluate(variables, batch)
    own = variables["params"]["vision"], variables["batch_stats"]["vision"]["resnet"]
    tower = quick(functools.partial(ResNet18(WIDTH).apply, train=False))
    for b in (0, 1, 2, 3):
        x, mask = batch["vision"]["x"][b], batch["vision"]["mask"][b]
        pixels = (x / 255 - np.array(mean)) / np.array(std)
        seen, _ = tower({"params": own[0]["resnet"], "batch_stats": own[1]}, pixels)
        dense = wide(own[0]["dense"])
        feature = np.asarray(seen)[mask].mean(0) @ dense["kernel"] + dense["bias"]
        np.testing.assert_allclose(out["feature"][b], feature, rtol=1e-4, atol=1e-3)
        assert np.abs(feature - dense["bias"]).max() > 0.1
    assert (np.asarray(out["feature"])[5] == 0).all()


def test_a_masked_frame_is_in_no_batch_norm():
    """A step on the frames that count gives what a step on them alone does."""
    batch = frames_batch()
    variables, _, step = prepared(faces(), batch)
    x, mask = batch["vision"]["x"], batch["vision"]["mask"]
    counted = mask & (batch["weight"] > 0)[:, None]
    alone = {
        "vision": {"x": x[counted][:, None], "mask": np.ones((counted.sum(), 1), bool)},
        "present": {"vision": np.ones(counted.sum(), bool)},
        "weight": np.ones(counted.sum(), np.float32),
    }
    (_, (_, _, after)), _ = step(batch)
    tower = faces()
    _, same = quick(functools.partial(tower.apply, train=True, mutable=["batch_stats"]))(
        variables, alone
    )
    assert counted.sum() == 5
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), after, same)


def test_a_sequence_is_the_last_step_of_a_memory_stack():
    net = sequences("audio")
    batch = sequence_batch(("audio",))
    variables, evaluate, _ = prepared(net, batch)
    _, out = evaluate(variables, batch)
    own = variables["params"]["audio"]
    stack = Encoders(E, 2, 1, 0.0, 0.0, 0.0, 0.0, False)
    run = jax.jit(lambda x, mask: stack.apply(
        {"params": own["memory"]}, [x], [mask], [None], [mask], train=False)[0][0])  # fmt: skip
    for b in range(B):
        length = int(batch["audio"]["mask"][b].sum())
        if batch["weight"][b] == 0 or not length:
            continue
        x = batch["audio"]["x"][b, :length].astype(np.float64)
        # A convolution of one step: the projection of MulT.
        projected = (x @ wide(own["project"]["conv"]["kernel"])[0]).astype(np.float32)
        encoded = run(projected[None], np.ones((1, length), bool))
        np.testing.assert_allclose(out["feature"][b], encoded[0, -1], atol=1e-4)


def test_three_sequences_are_put_side_by_side():
    """In the paper 3 x 256 = 768 features become 256."""
    variables, evaluate, _ = prepared(sequences(*MODALITIES), sequence_batch(MODALITIES))
    batch = sequence_batch(MODALITIES)
    _, out = evaluate(variables, batch)
    dense = wide(variables["params"]["together"])
    assert dense["kernel"].shape == (3 * E, E)
    side = np.concatenate([out[f"feature/{m}"] for m in MODALITIES], axis=1)
    expected = side.astype(np.float64) @ dense["kernel"] + dense["bias"]
    np.testing.assert_allclose(out["feature"], expected, atol=1e-4)
    for m in MODALITIES:
        absent = ~batch["present"][m]
        assert (np.asarray(out[f"feature/{m}"])[absent] == 0).all()
    assert not batch["present"]["text"][2] and not batch["present"]["audio"][3]


def size(net, batch):
    shapes = jax.eval_shape(lambda: net.init(jax.random.key(0), batch, train=False))["params"]
    return {name: sum(math.prod(x.shape) for x in jax.tree.leaves(own))
            for name, own in shapes.items()}  # fmt: skip


def test_exact_size_of_the_resnet_of_the_paper():
    """torchvision's ResNet-18 has 11 689 512 parameters, 513 000 of them in its classifier."""
    net = Guided(7, ("vision",), {"vision": {"width": 64}})
    found = size(net, frames_batch(size=64))
    assert found == {"vision": 11_689_512 - 513_000 + 512 * 256 + 256, "head": 256 * 7 + 7}
    assert sum(found.values()) == 11_309_639


def test_exact_size_of_the_memory_stacks_of_the_paper():
    net = Guided(2, MODALITIES, {m: {"heads": 8, "layers": 4} for m in MODALITIES})
    found = size(net, sequence_batch(MODALITIES))
    layer = 4 * (256 * 256 + 256) + 256 * 1024 + 1024 + 1024 * 256 + 256 + 2 * 512
    stack = 4 * layer + 512
    assert found == {m: STEPS[m][1] * 256 + stack for m in MODALITIES} | {
        "together": 768 * 256 + 256,
        "head": 2 * 256 + 2,
    }


def test_nothing_there_at_all_is_the_bias_of_the_head():
    batch = sequence_batch(MODALITIES)
    variables, evaluate, _ = prepared(sequences(*MODALITIES), batch)
    none = {m: {**batch[m], "mask": batch[m]["mask"] & False} for m in MODALITIES}
    none |= {"present": {m: np.zeros(B, bool) for m in MODALITIES}, "weight": batch["weight"]}
    logits, out = evaluate(variables, none)
    params = wide(variables["params"])
    expected = params["together"]["bias"] @ params["head"]["kernel"] + params["head"]["bias"]
    np.testing.assert_allclose(logits, np.broadcast_to(expected, (B, C)), atol=1e-5)
    assert np.isfinite(out["feature"]).all()
