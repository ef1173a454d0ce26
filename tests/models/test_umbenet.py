"""UMBEnet against loops over its equations; what is absent and who stands beside must not matter.

Letters: B examples, M modalities, D width, N prompts, k chosen ones, L tokens, C classes, F frames.
"""

import dataclasses
import functools
import itertools
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import numpy_umbenet as ref
import pytest
from numpy_mcr import draw, quick, wide

from affectjax.encoders.clip import Images
from affectjax.errors import InputError
from affectjax.modalities import MODALITIES
from affectjax.models.clip import ImageTower
from affectjax.models.encoders import AudioConv, ImageConv, MelConv, SequenceEncoder
from affectjax.models.umbenet import (
    Fusion,
    Pool,
    SparseFusion,
    UMBEnet,
    normalize,
    pad_tokens,
    weigh,
)

D, DT, N, K, L, LI, C = 8, 6, 7, 3, 3, 2, 4
SIDE, FRAMES, SAMPLES, TOKENS = 8, 3, 60, 5
# Every subset of the modalities, none of them first.
PRESENT = np.array(list(itertools.product((False, True), repeat=3)))
B = len(PRESENT)
TEXT = {
    "vocab": 20, "length": 12, "width": DT, "layers": 2, "heads": 2, "hidden": 8, "projection": D,
}  # fmt: skip
IMAGE = {
    "image_size": SIDE, "patch": 4, "width": 6, "layers": 1, "heads": 2, "hidden": 8,
    "projection": D,
}  # fmt: skip
NET = UMBEnet(
    modalities=MODALITIES,
    encoders={"audio": functools.partial(AudioConv, D, name="audio_conv")},
    towers={"text": None, "vision": functools.partial(Images, **IMAGE, name="image_tower")},
    text=TEXT,
    sos=1,
    class_tokens=((5, 6, 2), (7, 2), (8, 9, 3, 2), (4, 2)),
    frames=FRAMES,
    temporal_layers=1,
    temporal_heads=2,
    heads=2,
    pool_size=N,
    prompt_tokens=L,
    inherent_tokens=LI,
    top_k=K,
    gate_hidden=5,
    logit_scale=10.0,
)


def features_net(layers=1, **changes):
    """Returns the network of features."""
    encoders = {
        m: functools.partial(SequenceEncoder, D, layers, 2, name=f"{m}_features")
        for m in MODALITIES
    }
    return NET.clone(encoders=encoders, towers={}, **changes)


FEATURES = features_net()
WIDTHS = {"text": 5, "audio": 4, "vision": 6}


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def unpadded(shape, seed):
    """Returns a mask `[B, T]` of at least one valid step a row, at the start, and all of it."""
    lengths = np.random.default_rng(seed).integers(1, shape[1] + 1, shape[0])
    lengths[-1] = shape[1]
    return np.arange(shape[1]) < lengths[:, None]


def media(seed=0, junk=None):
    """Returns a batch of tokens, waveforms and frames; `junk` draws what stands where nothing is.

    Args:
      seed: of what is there.
      junk: by modality, `shape -> array`; None for zeros.
    """
    rng = np.random.default_rng(seed)
    x = {
        "text": rng.integers(0, TEXT["vocab"], (B, TOKENS)).astype(np.int32),
        "audio": rng.uniform(-1, 1, (B, SAMPLES)).astype(np.float32),
        "vision": rng.integers(0, 256, (B, FRAMES, SIDE, SIDE, 3)).astype(np.uint8),
    }
    return assemble(x, seed, junk)


def sequences(seed=0, junk=None):
    """Returns a batch of features of the widths `WIDTHS`; see `media`."""
    x = {m: normal(B, 4, width, seed=seed + i) for i, (m, width) in enumerate(WIDTHS.items())}
    return assemble(x, seed, junk)


def assemble(x, seed, junk):
    batch = {"present": {m: PRESENT[:, i] for i, m in enumerate(MODALITIES)}}
    for i, m in enumerate(MODALITIES):
        mask = unpadded(x[m].shape, seed + i) & PRESENT[:, i, None]
        rubbish = np.zeros_like(x[m]) if junk is None else junk[m](x[m].shape).astype(x[m].dtype)
        wide_mask = mask.reshape(*mask.shape, *[1] * (x[m].ndim - 2))
        batch[m] = {"x": np.where(wide_mask, x[m], rubbish), "mask": mask}
    batch["weight"] = np.ones(B, np.float32)
    return batch


def weights(net, make, seed=0):
    """Returns params drawn anew, and the variables of the pool."""
    shapes = jax.eval_shape(lambda: net.init(jax.random.key(0), make(), train=False))
    zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes["pool"])
    return draw(shapes["params"], seed), zeros


def evaluate(net):
    run = lambda p, pool, batch: net.apply({"params": p, "pool": pool}, batch, train=False)  # noqa: E731
    return quick(run)


def training(net, p, pool, batch):
    """Returns `(logits, out)` and the changed pool of training."""
    rngs = {"dropout": jax.random.key(0)}
    variables = {"params": p, "pool": pool}
    return net.apply(variables, batch, train=True, rngs=rngs, mutable=["pool"])


def loss(p, x, pool, batch, share):
    """Returns something that all logits go into, the pull and the l1, by their shares `[3]`."""
    batch = batch | {m: batch[m] | {"x": x[m]} for m in x}
    (logits, out), _ = training(NET, p, pool, batch)
    spread = jnp.arange(1, logits.size + 1).reshape(logits.shape)
    terms = (jnp.sum(jnp.sin(logits) * spread), out["pull"].sum(), out["l1"])
    return sum(term * share[i] for i, term in enumerate(terms))


# The one network that most tests use: compiled once.
@pytest.fixture(scope="module")
def whole():
    """Returns params, pool, and the compiled network of media."""
    return *weights(NET, media), evaluate(NET)


# ---- adaptive fusion ----------------------------------------------------------------------------


@pytest.mark.parametrize("layers", [0, 2])
def test_fusion_of_every_subset_equals_loops(layers):
    module, tokens = Fusion(3, D, layers, 2), normal(B, 3, D)
    shapes = jax.eval_shape(
        lambda: module.init(jax.random.key(0), tokens, jnp.array(PRESENT), train=False)
    )
    params = draw(shapes, 1)
    junk = np.where(PRESENT[..., None], tokens, np.nan).astype(np.float32)
    fused = quick(functools.partial(module.apply, train=False))(params, junk, PRESENT)
    chex.assert_shape(fused, (B, D))
    for b in range(B):
        theirs = ref.fuse(wide(params)["params"], tokens[b], PRESENT[b], 2)
        np.testing.assert_allclose(fused[b], theirs, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(fused, axis=-1), PRESENT.any(1), atol=1e-6)

    def total(params, tokens):
        return jnp.sum(jnp.sin(module.apply(params, tokens, jnp.array(PRESENT), train=False)))

    to_params, to_tokens = quick(jax.grad(total, (0, 1)))(params, junk)
    chex.assert_tree_all_finite(to_params)
    np.testing.assert_array_equal(np.any(to_tokens, axis=-1), PRESENT)


def test_normalize_by_hand():
    ours = normalize(jnp.array([[3.0, 4.0], [0.0, 0.0], [-2.0, 0.0]]))
    np.testing.assert_allclose(ours, [[0.6, 0.8], [0, 0], [-1, 0]], atol=1e-6)
    chex.assert_tree_all_finite(jax.grad(lambda x: normalize(x).sum())(jnp.zeros((1, 2))))


# ---- the pool -----------------------------------------------------------------------------------


def pool_of(**changes):
    """Returns a pool and its drawn weights."""
    given = {
        "size": N, "length": L, "width": DT, "keys": D, "modalities": 3, "top_k": K,
        "query_map": "identity", "penalty": 0.0,
    }  # fmt: skip
    module = Pool(**given | changes)
    shapes = jax.eval_shape(
        lambda: module.init(
            jax.random.key(0), normal(B, D), jnp.array(PRESENT), jnp.ones(B), train=False
        )
    )
    zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes["pool"])
    return module, draw(shapes["params"], 2), zeros


@pytest.mark.parametrize("query_map", ["identity", "linear", "mlp"])
def test_retrieval_equals_loops(query_map):
    module, params, zeros = pool_of(query_map=query_map)
    fused = normal(B, D, seed=3)
    run = quick(functools.partial(module.apply, train=False))
    out = run({"params": params, "pool": zeros}, fused, PRESENT, np.ones(B))
    p = wide(params)
    for b in range(B):
        query = ref.query_of(p, fused[b].astype(np.float64), query_map)
        index, similarity = ref.retrieve(query, p["keys"], K)
        np.testing.assert_array_equal(out["index"][b], index)
        np.testing.assert_allclose(out["similarity"][b], similarity, atol=1e-5)
        np.testing.assert_array_equal(out["values"][b], params["values"][index])
        np.testing.assert_allclose(out["pull"][b], np.mean([1 - s for s in similarity]), atol=1e-5)
    chex.assert_shape(out["values"], (B, K, L, DT))


def test_equal_keys_go_to_the_lower_number():
    module, params, zeros = pool_of()
    params |= {"keys": params["keys"][[4, 2, 4, 2, 4, 2, 2]]}
    fused = params["keys"][[1, 0]]
    out = module.apply({"params": params, "pool": zeros}, fused, PRESENT[:2], 0, train=False)
    np.testing.assert_array_equal(out["index"], [[1, 3, 5], [0, 2, 4]])
    # An example that shows nothing: all cosines are 0.
    out = module.apply({"params": params, "pool": zeros}, 0 * fused, PRESENT[:2], 0, train=False)
    np.testing.assert_array_equal(out["index"], [[0, 1, 2]] * 2)


def test_activations_are_counted_by_what_an_example_shows():
    module, params, zeros = pool_of()
    weight = np.ones(B, np.float32)
    weight[[3, 7]] = 0, 0  # shows vision and audio; all three: padding
    weight[2] = 0.5  # counts as any other
    fused = normal(B, D, seed=4)
    before = zeros | {"epoch": zeros["epoch"] + 2, "turn": zeros["turn"] + 5}
    out, changed = module.apply(
        {"params": params, "pool": before}, fused, PRESENT, weight, train=True, mutable=["pool"]
    )
    epoch, index = np.full((4, N), 2.0), np.asarray(out["index"])
    for b in range(B):
        shown = [i for i in range(3) if PRESENT[b, i]]
        row = shown[0] if len(shown) == 1 else 3
        for n in index[b] if weight[b] > 0 else ():
            epoch[row, n] += 1
    np.testing.assert_array_equal(changed["pool"]["epoch"], epoch)
    np.testing.assert_array_equal(changed["pool"]["total"], (epoch - 2).sum(0))
    assert changed["pool"]["total"].sum() == 6 * K
    np.testing.assert_array_equal(changed["pool"]["turn"], 5)
    np.testing.assert_array_equal(changed["pool"]["served"], zeros["served"])
    # In evaluation nothing is counted: the collection need not even be mutable.
    _, changed = module.apply(
        {"params": params, "pool": before}, fused, PRESENT, weight, train=False, mutable=["pool"]
    )
    chex.assert_trees_all_equal(changed["pool"], before)


def test_a_prompt_often_chosen_is_chosen_less_in_training_alone():
    module, params, zeros = pool_of(penalty=1.5)
    fused = normal(B, D, seed=5)
    total = np.array([1, 0, 4, 0, 3, 0, 2], np.float32)
    variables = {"params": params, "pool": zeros | {"total": total}}
    p, run = wide(params), functools.partial(module.apply, variables, fused, PRESENT, np.ones(B))
    plain, (trained, _) = run(train=False), run(train=True, mutable=["pool"])
    for b in range(B):
        query = fused[b].astype(np.float64)
        np.testing.assert_array_equal(plain["index"][b], ref.retrieve(query, p["keys"], K)[0])
        index, _ = ref.retrieve(query, p["keys"], K, 1.5 * total / total.sum())
        np.testing.assert_array_equal(trained["index"][b], index)
        cosine = [ref.unit(query) @ ref.unit(p["keys"][n]) for n in index]
        np.testing.assert_allclose(trained["similarity"][b], cosine, atol=1e-5)
    assert (plain["index"] != trained["index"]).any()


def test_counts_of_a_split_batch_are_those_of_the_whole():
    fused, weight = normal(B, D, seed=6), np.array([1, 1, 1, 0, 1, 1, 1, 0], np.float32)
    counts = {}
    for axis in (None, "batch"):
        module, params, zeros = pool_of(axis_name=axis)

        variables = jax.tree.map(jnp.asarray, {"params": params, "pool": zeros})

        def run(*args, module=module, variables=variables):
            return module.apply(variables, *args, train=True, mutable=["pool"])[1]["pool"]

        args = (fused, PRESENT, weight)
        if axis is not None:
            run, args = jax.vmap(run, axis_name=axis), [x.reshape(2, 4, *x.shape[1:]) for x in args]
        counts[axis] = quick(run)(*args)
    for half in range(2):
        chex.assert_trees_all_equal(
            jax.tree.map(lambda x, i=half: x[i], counts["batch"]), counts[None]
        )
    assert counts[None]["total"].sum() == 6 * K


# ---- sparse fusion ------------------------------------------------------------------------------


def test_sparse_fusion_equals_loops():
    module, values = SparseFusion(5), normal(4, K, L, DT, seed=7)
    params = draw(jax.eval_shape(lambda: module.init(jax.random.key(0), values)), 3)
    merged, gates, l1 = module.apply(params, values)
    chex.assert_shape((merged, gates), [(4, L, DT), (4, K, L, 1)])
    p = wide(params)["params"]
    for b in range(4):
        theirs = ref.sparse_fusion(p, values[b].astype(np.float64))
        np.testing.assert_allclose(merged[b], theirs[0], atol=1e-5)
        np.testing.assert_allclose(gates[b, ..., 0], theirs[1], atol=1e-5)
    # Of W1 alone, not of W2 or of the biases (eq. 13).
    np.testing.assert_allclose(l1, sum(abs(w) for row in p["w1"] for w in row), rtol=1e-5)


# ---- the whole network --------------------------------------------------------------------------


def compare(net, params, logits, out, atol=1e-4):
    """Compares all outputs with the loops, from the encoders' features on."""
    p = wide(params)
    for b in range(B):
        features = [np.asarray(out[f"feature/{m}"][b], np.float64) for m in MODALITIES]
        theirs = ref.umbenet(p, features, PRESENT[b], net)
        for name, value in theirs.items():
            ours = logits if name == "logits" else out[name]
            np.testing.assert_allclose(ours[b], value, atol=atol, err_msg=f"{name} of {PRESENT[b]}")


@pytest.mark.parametrize("seed", [0, 1])
def test_network_of_media_equals_loops(whole, seed):
    _, pool, run = whole
    params, _ = weights(NET, media, seed)
    batch = media(seed)
    logits, out = run(params, pool, batch)
    compare(NET, params, logits, out)
    chex.assert_shape(logits, (B, C))
    chex.assert_shape([out["fused"], out["feature/audio"]], (B, D))
    chex.assert_shape([out["prompt_index"], out["prompt_similarity"]], (B, K))
    chex.assert_shape(out["gates"], (B, K, L, 1))
    chex.assert_shape(out["class_feature"], (B, C, D))
    chex.assert_shape([out["pull"], out["l1"]], [(B,), ()])
    p = wide(params)
    np.testing.assert_allclose(out["l1"], np.abs(p["sparse"]["w1"]).sum(), rtol=1e-5)
    for b in range(B):
        # No modality: no feature, so all classes are alike. A different answer for different ones.
        assert PRESENT[b].any() or not np.any(logits[b])
        features = encoded(p, batch, b, params)
        for m, theirs in features.items():
            np.testing.assert_allclose(out[f"feature/{m}"][b], theirs, atol=1e-4, err_msg=m)
    assert np.linalg.norm(logits[:, None] - logits, axis=-1)[np.triu_indices(B, 1)].min() > 1e-2


def encoded(p, batch, b, params):
    """Returns by modality the feature `[D]` of one example of media, without its padding."""
    out = {m: np.zeros(D) for m in MODALITIES}
    length = {m: int(batch[m]["mask"][b].sum()) for m in MODALITIES}
    if length["text"]:
        said = p["text_tower"]["token"][batch["text"]["x"][b, : length["text"]]]
        tower = ref.text_tower(p["text_tower"], said, TEXT["heads"])
        out["text"] = ref.dense(tower, p["text_dense"])
    if length["audio"]:
        out["audio"] = ref.audio_conv(p["audio_conv"], batch["audio"]["x"][b, : length["audio"]])
    if length["vision"]:
        seen = frames(params, batch["vision"]["x"][b, : length["vision"]])
        out["vision"] = ref.frame_head(p["frame_head"], seen, [True] * len(seen), 2)
    return out


def frames(params, pixels):
    """Returns what the image tower gives for frames `[F, H, W, 3]` uint8, normalised here."""
    normalised = (pixels.astype(np.float64) / 255 - np.array(NET.mean)) / np.array(NET.std)
    tower = ImageTower(**IMAGE)
    return tower.apply({"params": params["image_tower"]}, normalised.astype(np.float32))[0]


@pytest.mark.parametrize("query_map", ["linear", "mlp"])
def test_network_of_features_equals_loops(query_map):
    net = features_net(2, query_map=query_map, fusion_layers=2)
    params, pool = weights(net, sequences)
    batch = sequences()
    logits, out = evaluate(net)(params, pool, batch)
    compare(net, params, logits, out)
    p = wide(params)
    for m, b in itertools.product(MODALITIES, range(B)):
        encoder, mask = p[f"{m}_features"], batch[m]["mask"][b]
        theirs = ref.sequence(encoder, batch[m]["x"][b], mask, 2) if mask.any() else np.zeros(D)
        np.testing.assert_allclose(out[f"feature/{m}"][b], theirs, atol=1e-4)


def test_centred_classes_and_evidence_equal_loops():
    plain = features_net(2)
    params, pool = weights(plain, sequences)
    net = plain.clone(center_classes=True, evidence=True)
    params = weights(net, sequences)[0] | params
    batch = sequences()
    shown = np.array(list(itertools.product([False, True], repeat=3)))[: B - B // 2]
    shown = np.concatenate([shown, PRESENT[len(shown) :]])
    batch["shown"] = shown & PRESENT
    _, before = evaluate(plain)(params, pool, batch)
    logits, out = evaluate(net)(params, pool, batch)
    p = wide(params)
    for b in range(B):
        classes = np.asarray(before["class_feature"][b], np.float64)
        classes = classes - classes.mean(0)
        classes /= np.linalg.norm(classes, axis=-1, keepdims=True)
        np.testing.assert_allclose(out["class_feature"][b], classes, atol=1e-4)
        expected = net.logit_scale * classes @ np.asarray(out["fused"][b], np.float64)
        for m, there in zip(MODALITIES, batch["shown"][b], strict=True):
            if there:
                expected += ref.dense(np.float64(out[f"feature/{m}"][b]), p[f"{m}_evidence"])
        np.testing.assert_allclose(logits[b], expected, atol=1e-3)
    # Subsets that are asked for apart are those that are shown.
    features = np.stack([out[f"feature/{m}"] for m in MODALITIES], axis=1)
    again = net.apply(
        {"params": params},
        features,
        batch["shown"][:, None],
        out["class_feature"],
        out["evidence"],
        train=False,
        method="of_subsets",
    )
    np.testing.assert_allclose(again[:, 0], logits, atol=1e-4)


def test_words_at_moments_count_where_both_are_shown():
    """What the unit gives is tested in test_coincidence; here, what of it reaches the logits."""
    net = NET.clone(evidence=True, moments=2)
    params, pool = weights(net, media)
    batch = media()
    run = evaluate(net)
    _, out = run(params, pool, batch)
    pairs = np.asarray(out["evidence"])
    for b in range(B):
        _, audio, vision = PRESENT[b]
        text = batch["text"]["mask"][b].sum() > 2  # more than start and end
        for m, n in itertools.product(range(3), repeat=2):
            expected = m == n or (m == 0 and text and (audio, vision)[n - 1])
            assert np.any(pairs[b, m, n]) == bool(expected), (b, m, n)
    shown = np.ones((B, 1, 3), bool) & PRESENT[:, None]
    expected = np.zeros((B, pairs.shape[-1]))
    for b, m, n in itertools.product(range(B), range(3), range(3)):
        if PRESENT[b, m] and PRESENT[b, n]:
            expected[b] += pairs[b, m, n]
    np.testing.assert_allclose(weigh(pairs, shown)[:, 0], expected, atol=1e-5)
    # What is padded, and start and end of a text, have no part in it.
    junk = {m: dict(own) for m, own in batch.items() if m in MODALITIES}
    junk["text"]["x"] = np.where(batch["text"]["mask"], batch["text"]["x"], 3)
    rows = np.arange(B)
    last = batch["text"]["mask"].sum(1) - 1
    junk["text"]["x"][rows[last >= 0], last[last >= 0]] = 1
    junk["text"]["x"][:, 0] = 2
    _, other = run(params, pool, batch | junk)
    np.testing.assert_allclose(other["evidence"][:, 0, 1:], pairs[:, 0, 1:], atol=1e-5)


def test_each_frame_is_one_image_to_the_conv_tower():
    tower = functools.partial(ImageConv, channels=(4, 5), projection=D, name="image_tower")
    net = NET.clone(
        modalities=("vision",), encoders={}, towers={"vision": tower},
        mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4),
    )  # fmt: skip
    params, pool = weights(net, media)
    batch = media()
    _, out = evaluate(net)(params, pool, batch)
    p, x, mask = wide(params), batch["vision"]["x"], batch["vision"]["mask"]
    for b in np.flatnonzero(PRESENT[:, 2]):
        pixels = (x[b][mask[b]] / 255 - np.array(net.mean)) / np.array(net.std)
        seen = np.array([ref.image_conv(p["image_tower"], image, 2) for image in pixels])
        theirs = ref.frame_head(p["frame_head"], seen, [True] * len(seen), 2)
        np.testing.assert_allclose(out["feature/vision"][b], theirs, atol=1e-4)


def test_frames_already_encoded_equal_frames(whole):
    params, pool, run = whole
    batch = media()
    expected, _ = run(params, pool, batch)
    x = batch["vision"]["x"]
    seen = np.stack([frames(params, clip) for clip in x])
    logits, _ = run(params, pool, batch | {"vision": batch["vision"] | {"x": seen}})
    np.testing.assert_allclose(logits, expected, atol=1e-5)


def test_text_already_encoded_equals_tokens(whole):
    params, pool, run = whole
    batch = media()
    expected, _ = run(params, pool, batch)
    p, text = wide(params), batch["text"]
    said = np.full((B, 1, D), np.nan, np.float32)
    for b in np.flatnonzero(PRESENT[:, 0]):
        tokens = text["x"][b][text["mask"][b]]
        said[b] = ref.text_tower(p["text_tower"], p["text_tower"]["token"][tokens], TEXT["heads"])
    given = {"x": said, "mask": PRESENT[:, :1]}
    np.testing.assert_allclose(run(params, pool, batch | {"text": given})[0], expected, atol=1e-4)


def test_pad_tokens_by_hand():
    tokens, mask = pad_tokens(((5, 2), (6, 7, 2), (2,)))
    np.testing.assert_array_equal(tokens, [[5, 2, 0], [6, 7, 2], [2, 0, 0]])
    np.testing.assert_array_equal(mask, [[1, 1, 0], [1, 1, 1], [1, 0, 0]])
    assert tokens.dtype == np.int32


# ---- what must not matter -----------------------------------------------------------------------


def fill(value):
    return lambda shape: np.full(shape, value)


def drawn(make):
    return lambda shape: make(np.random.default_rng(9), shape)


def junk(text, audio, vision):
    return {"text": text, "audio": audio, "vision": vision}


JUNK = {
    "random": junk(
        drawn(lambda rng, shape: rng.integers(0, TEXT["vocab"], shape)),
        drawn(lambda rng, shape: rng.standard_normal(shape)),
        drawn(lambda rng, shape: rng.integers(0, 256, shape)),
    ),
    "huge": junk(fill(2**31 - 1), drawn(lambda rng, s: 1e37 * rng.choice([-1, 1], s)), fill(255)),
    "NaN": junk(fill(-(2**31)), fill(np.nan), fill(1)),
    "inf": junk(fill(TEXT["vocab"]), drawn(lambda r, s: np.inf * r.choice([-1, 1], s)), fill(128)),
    "below zero": junk(fill(-1), fill(-np.inf), fill(254)),
}


@pytest.mark.parametrize("rubbish", JUNK.values(), ids=JUNK.keys())
def test_absent_and_padded_places_change_no_output(whole, rubbish):
    params, pool, run = whole
    expected = run(params, pool, media())
    chex.assert_tree_all_finite(expected)
    batch = media(junk=rubbish)
    absent = ~PRESENT[:, 1]
    assert not np.array_equal(batch["audio"]["x"][absent], media()["audio"]["x"][absent])
    chex.assert_trees_all_close(run(params, pool, batch), expected, atol=1e-5)


def test_an_absent_sound_has_no_influence_through_the_mel_tower():
    """Exactly: whatever stands there, also under a mask that is true."""
    tower = functools.partial(MelConv, channels=(4, 6), projection=D, name="audio_mel")
    net = NET.clone(modalities=("text", "audio"), encoders={"audio": tower}, towers={"text": None})
    params, pool = weights(net, media)
    run, batch = evaluate(net), media()
    expected, out = run(params, pool, batch)
    absent = ~PRESENT[:, 1]
    for rubbish in (1.0, 1e37, np.nan):
        x = np.where(absent[:, None], np.float32(rubbish), batch["audio"]["x"])
        given = {"x": x, "mask": batch["audio"]["mask"] | absent[:, None]}
        logits, found = run(params, pool, batch | {"audio": given})
        np.testing.assert_array_equal(logits, expected)
        np.testing.assert_array_equal(found["fused"], out["fused"])
    louder = batch["audio"] | {"x": batch["audio"]["x"] * 0.1}
    moved = np.abs(run(params, pool, batch | {"audio": louder})[0] - expected).max(1) > 1e-4
    np.testing.assert_array_equal(moved, PRESENT[:, 1])


@pytest.fixture(scope="module")
def gradients():
    """Returns a loss and its gradients to params and to the waveforms, compiled once."""
    run = quick(jax.value_and_grad(loss, (0, 1)))

    def gradients(p, pool, batch, share=(1.0, 1.0, 1.0)):
        return run(p, {"audio": batch["audio"]["x"]}, pool, batch, jnp.array(share))

    return gradients


@pytest.mark.parametrize("rubbish", JUNK.values(), ids=JUNK.keys())
def test_masks_of_an_absent_modality_are_not_asked(whole, gradients, rubbish):
    """`present` alone says what is absent: a mask that is true there changes nothing."""
    params, pool, run = whole
    expected, slopes = run(params, pool, media())[0], gradients(params, pool, media())
    batch = media(junk=rubbish)
    for i, m in enumerate(MODALITIES):
        batch[m]["mask"] = batch[m]["mask"] | ~PRESENT[:, i, None]
    np.testing.assert_allclose(run(params, pool, batch)[0], expected, atol=1e-5)
    chex.assert_trees_all_close(gradients(params, pool, batch), slopes, atol=1e-4, rtol=1e-5)


def test_every_subset_is_finite_forward_and_backward(whole, gradients):
    """Each subset as a whole batch of its own, none of the modalities among them."""
    params, pool, _ = whole
    for shown in PRESENT:
        batch = media()
        for m, yes in zip(MODALITIES, shown, strict=True):
            everywhere = batch[m]["mask"].any(1)
            batch["present"][m] = everywhere & yes
        chex.assert_tree_all_finite(gradients(params, pool, batch))


@pytest.mark.parametrize("rubbish", JUNK.values(), ids=JUNK.keys())
def test_absent_and_padded_places_change_no_gradient(whole, gradients, rubbish):
    params, pool, _ = whole
    expected = gradients(params, pool, media())
    found = gradients(params, pool, media(junk=rubbish))
    chex.assert_tree_all_finite(found)
    chex.assert_trees_all_close(found, expected, atol=1e-4, rtol=1e-5)
    to_sound, mask = np.asarray(found[1][1]["audio"]), media()["audio"]["mask"]
    assert not np.any(to_sound[~mask]) and np.any(to_sound[mask])


@pytest.mark.parametrize("rubbish", [None, *JUNK.values()], ids=["zeros", *JUNK.keys()])
def test_an_example_alone_and_in_any_batch_is_the_same(whole, rubbish):
    params, pool, run = whole
    together, _ = run(params, pool, media())
    pick = lambda rows, seed=0: jax.tree.map(lambda x: x[rows], media(seed, rubbish))  # noqa: E731
    order = np.random.default_rng(1).permutation(B)
    np.testing.assert_allclose(run(params, pool, pick(order))[0], together[order], atol=1e-5)
    for b in range(B):
        alone, _ = run(params, pool, pick([b]))
        np.testing.assert_allclose(alone, together[b : b + 1], atol=1e-5)
    # Other neighbours: the odd ones keep their rows, the even ones are of another batch.
    mixed = jax.tree.map(lambda a, b: np.where(rows(a) % 2, a, b), media(), media(5, rubbish))
    logits, _ = run(params, pool, mixed)
    same = np.array([b for b in range(B) if b % 2])
    np.testing.assert_allclose(logits[same], together[same], atol=1e-5)
    assert np.abs(logits - together).max() > 1e-2


def rows(x):
    return np.arange(len(x)).reshape(-1, *[1] * (x.ndim - 1))


def test_what_is_there_matters(whole):
    """The other side of the invariances: the tests above are not passed by a deaf network."""
    params, pool, run = whole
    before, _ = run(params, pool, media())
    for i, m in enumerate(MODALITIES):
        after, _ = run(params, pool, media() | {m: media(3)[m] | {"mask": media()[m]["mask"]}})
        moved = np.abs(after - before).max(-1) > 1e-4
        np.testing.assert_array_equal(moved, PRESENT[:, i], err_msg=m)


@pytest.mark.parametrize("train", [False, True])
def test_encoders_of_what_nobody_has_need_not_run(whole, train):
    params, pool, _ = whole
    nets = (NET, NET.clone(skip_absent=False))
    skip, run = (
        quick(functools.partial(training, net)) if train else evaluate(net) for net in nets
    )
    for shown in (PRESENT[7], PRESENT[1], PRESENT[6], PRESENT[0]):
        batch = media()
        for m, yes in zip(MODALITIES, shown, strict=True):
            batch["present"][m] = batch["present"][m] & yes
        chex.assert_trees_all_close(skip(params, pool, batch), run(params, pool, batch), atol=1e-5)


# ---- who gets which gradient --------------------------------------------------------------------


LOGITS, PULL = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)


def flows(tree):
    """Returns the names of the parts of the params that get any gradient."""
    return {name for name, part in tree.items() if any(map(np.any, jax.tree.leaves(part)))}


def test_class_prompts_send_no_gradient_into_the_text_tower(whole, gradients):
    params, pool, _ = whole
    shown = {"text": {"text_tower", "text_dense"}, "audio": {"audio_conv"}}
    shown["vision"] = {"image_tower", "frame_head"}
    head = {"fusion", "pool", "sparse", "inherent"}
    for m, expected in shown.items():
        batch = media()
        for other in set(MODALITIES) - {m}:
            batch["present"][other] = np.zeros(B, bool)
        assert flows(gradients(params, pool, batch, LOGITS)[1][0]) == expected | head


def test_keys_are_moved_by_the_pull_alone(whole, gradients):
    params, pool, run = whole
    batch = media()
    logits, pull = (gradients(params, pool, batch, share)[1][0] for share in (LOGITS, PULL))
    assert not np.any(logits["pool"]["keys"]) and np.any(logits["pool"]["values"])
    assert flows(pull) == {"pool"} and not np.any(pull["pool"]["values"])
    chosen = np.unique(run(params, pool, batch)[1]["prompt_index"])
    moved = np.flatnonzero(np.any(pull["pool"]["keys"], axis=1))
    # An example without any modality chose too, and its query of zeros moves nothing.
    assert set(moved) <= set(chosen.tolist()) and len(moved) >= K
    valued = np.flatnonzero(np.any(logits["pool"]["values"], axis=(1, 2)))
    assert set(valued) <= set(chosen.tolist()) and len(valued) >= K


def test_class_prompts_are_those_of_the_tower_with_its_gradients_to_the_prompts(whole):
    """The gradient to P' and to the inherent prompts equals finite differences."""
    params, pool, _ = whole
    params, pool, batch = jax.tree.map(jnp.asarray, (params, pool, media()))

    def total(inherent):
        logits, _ = NET.apply(
            {"params": params | {"inherent": inherent}, "pool": pool}, batch, train=False
        )
        return jnp.sum(jnp.sin(logits))

    run, inherent = quick(jax.value_and_grad(total)), np.array(params["inherent"])
    _, gradient = run(inherent)
    step = 1e-2
    for place in ((0, 0), (1, DT - 1)):
        up, down = inherent.copy(), inherent.copy()
        up[place] += step
        down[place] -= step
        rise = (run(up)[0] - run(down)[0]) / (2 * step)
        np.testing.assert_allclose(gradient[place], rise, rtol=2e-2, atol=2e-3)


# ---- sizes, worked out by hand ------------------------------------------------------------------


def linear(i, o):
    return i * o + o


def layer(d):
    """A pre-norm layer: two norms, attention, feed-forward of 4 d."""
    return 2 * 2 * d + 4 * linear(d, d) + linear(d, 4 * d) + linear(4 * d, d)


def tower(width, layers, hidden):
    return layers * (4 * width + 4 * linear(width, width) + linear(width, hidden)
                     + linear(hidden, width))  # fmt: skip


def text_tower(t):
    tables = (t["vocab"] + t["length"]) * t["width"]
    return tables + tower(t["width"], t["layers"], t["hidden"]) + 2 * t["width"] + (
        t["width"] * t["projection"]
    )  # fmt: skip


def image_tower(t):
    patches = (t["image_size"] // t["patch"]) ** 2
    tables = 3 * t["patch"] ** 2 * t["width"] + t["width"] + (1 + patches) * t["width"]
    norms = 2 * 2 * t["width"]
    return tables + tower(t["width"], t["layers"], t["hidden"]) + norms + (
        t["width"] * t["projection"]
    )  # fmt: skip


def audio_conv(d):
    channels = (1, 16, 32, 64, 128, 256, 512)
    convolutions = sum(linear(15 * i, o) for i, o in itertools.pairwise(channels))
    return convolutions + linear(512, d) + 2 * d


def head(modalities, d, dt, fusion_layers, n, tokens, inherent, gate_hidden):
    fusion = modalities * d + fusion_layers * layer(d)
    pool = n * d + n * tokens * dt
    gates = linear(dt, gate_hidden) + linear(gate_hidden, 1)
    return fusion + pool + gates + inherent * dt


def counts(net, make):
    """Returns by name how many numbers the parts of the params hold."""
    shapes = jax.eval_shape(lambda: net.init(jax.random.key(0), make(), train=False)["params"])
    size = lambda tree: sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))  # noqa: E731
    return {name: size(tree) for name, tree in shapes.items()}


def test_exact_size_of_a_network_of_media():
    found = counts(NET, media)
    expected = {
        "text_tower": text_tower(TEXT),
        "text_dense": linear(D, D),
        "audio_conv": audio_conv(D),
        "image_tower": image_tower(IMAGE),
        "frame_head": FRAMES * D + layer(D),
    }
    assert {name: found[name] for name in expected} == expected
    known = head(3, D, DT, 1, N, L, LI, 5)
    assert sum(found.values()) - sum(expected.values()) == known == 1_131
    assert sum(found.values()) == 2_627_901


@pytest.mark.parametrize(
    ("query_map", "more"), [("identity", 0), ("linear", linear(D, D)), ("mlp", 2 * linear(D, D))]
)
def test_exact_size_of_a_network_of_features(query_map, more):
    net = features_net(2, query_map=query_map)
    encoders = sum(linear(w, D) + 2 * layer(D) + 2 * D for w in WIDTHS.values())
    expected = encoders + text_tower(TEXT) + head(3, D, DT, 1, N, L, LI, 5) + more
    assert sum(counts(net, sequences).values()) == expected


def test_vision_carries_most_of_the_encoders_at_the_papers_setting():
    text = {
        "vocab": 49408, "length": 77, "width": 512, "layers": 12, "heads": 8, "hidden": 2048,
        "projection": 512,
    }  # fmt: skip
    image = {
        "image_size": 224, "patch": 32, "width": 768, "layers": 12, "heads": 12, "hidden": 3072,
        "projection": 512,
    }  # fmt: skip
    defaults = {f.name: f.default for f in dataclasses.fields(UMBEnet)}
    names = ("frames", "temporal_layers", "temporal_heads", "pool_size", "prompt_tokens")
    names += ("inherent_tokens", "top_k")
    assert [defaults[name] for name in names] == [16, 12, 8, 32, 32, 32, 5]
    net = UMBEnet(
        modalities=MODALITIES, text=text, sos=0, class_tokens=((1, 2, 3), (4, 5, 6)),
        encoders={"audio": functools.partial(AudioConv, 512, name="audio_conv")},
        towers={"text": None, "vision": functools.partial(Images, **image, name="image_tower")},
    )  # fmt: skip

    def clips():
        present = {m: jnp.ones(1, bool) for m in MODALITIES}
        x = {"text": jnp.zeros((1, 12), jnp.int32), "audio": jnp.zeros((1, 80_000))}
        x["vision"] = jnp.zeros((1, 16, 224, 224, 3), jnp.uint8)
        mask = {m: jnp.ones(x[m].shape[:2], bool) for m in MODALITIES}
        return {m: {"x": x[m], "mask": mask[m]} for m in MODALITIES} | {"present": present}

    found = counts(net, clips)
    vision = found["image_tower"] + found["frame_head"]
    assert found["image_tower"] == image_tower(image) == 87_849_216
    assert found["frame_head"] == 16 * 512 + 12 * layer(512) == 37_836_800
    assert found["text_tower"] == text_tower(text) == 63_428_096
    assert found["audio_conv"] == audio_conv(512) == 2_883_808
    others = found["text_tower"] + found["text_dense"] + found["audio_conv"]
    assert vision > 0.6 * (vision + others)


# ---- refusals -----------------------------------------------------------------------------------

REFUSED = {
    "query map": ({"query_map": "quadratic"}, "'quadratic' .*allowed: identity, linear, mlp"),
    "too many prompts": ({"top_k": N + 1}, f"top_k {N + 1}; allowed: .*1 to pool_size .{N}"),
    "no prompt": ({"top_k": 0}, "top_k 0; allowed"),
}


@pytest.mark.parametrize(("changes", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_refused(changes, message):
    net = NET.clone(**changes)
    with pytest.raises(InputError, match=message):
        jax.eval_shape(lambda: net.init(jax.random.key(0), media(), train=False))
