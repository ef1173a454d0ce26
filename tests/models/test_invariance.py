"""What holds for every model: masked places do not matter, neither do neighbours; exact sizes.

A new module in `affectjax/models` needs a row in `MODELS` and in `COUNTS`, or tests fail by name.
"""

import functools
import importlib
import math
import pkgutil

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy_mcr import draw, quick

import affectjax.models
from affectjax.modalities import MODALITIES
from affectjax.models.encoders import SequenceEncoder

DIMS = {"text": 7, "audio": 5, "vision": 6}
LENGTHS = {"text": 5, "audio": 4, "vision": 6}
# Rows: whole; padded at the end; audio absent; text absent; two absent; nothing there at all.
VALID = {"text": (5, 3, 4, 0, 0, 0), "audio": (4, 2, 0, 3, 0, 0), "vision": (6, 4, 5, 1, 2, 0)}
B = 6

# Towers, encoders and layers are no models of a batch, and have tests of their own.
NOT_MODELS = {
    "bert", "clap", "clip", "coincidence", "encoders", "layers", "norms", "residual", "resnet",
    "wav2vec2",
}  # fmt: skip
FOUND = {m.name for m in pkgutil.iter_modules(affectjax.models.__path__)} - NOT_MODELS

KERNELS = {"text": 3, "audio": 1, "vision": 3}
SMALL = {"modalities": MODALITIES, "kernels": KERNELS, "width": 8, "heads": 2, "layers": 2}

# Of UMBEnet's text tower, whose feature is as wide as the model; of its prompts and classes.
TOWER = {"vocab": 9, "length": 9, "width": 6, "layers": 2, "heads": 2, "hidden": 10}
POOL = {"pool_size": 5, "top_k": 2, "prompt_tokens": 3, "inherent_tokens": 2, "gate_hidden": 4}
CLASS_TOKENS = ((3, 2), (4, 5, 2))


def encoder_of(width, layers, heads, **name):
    """Returns what makes an encoder of features."""
    return functools.partial(SequenceEncoder, width, layers, heads, **name)


def umbenet_arguments(outputs, modalities, kernels, width, heads, layers):
    """Returns the arguments of UMBEnet on features: its classes are rows of tokens."""
    del kernels
    return {
        "modalities": modalities,
        "encoders": {m: encoder_of(width, layers, heads, name=f"{m}_features") for m in modalities},
        "towers": {},
        "text": TOWER | {"projection": width},
        "sos": 1,
        "class_tokens": CLASS_TOKENS[:outputs],
        "heads": heads,
        "temporal_heads": heads,
        "fusion_layers": layers,
        "logit_scale": 1.0,
        **POOL,
    }


# E of the emotion features of the supramodal learner.
HIDDEN = 12


def supramodal_arguments(outputs, modalities, kernels, width, heads, layers):
    """Returns the arguments of the learner on features: it always tells seven and three."""
    del outputs, kernels
    return {
        "modalities": modalities,
        "encoders": dict.fromkeys(modalities, encoder_of(width, layers, heads)),
        "width": width,
        "hidden": HIDDEN,
    }


def guided_arguments(outputs, modalities, kernels, width, heads, layers):
    """Returns the arguments of the recogniser on sequences."""
    del kernels
    return {
        "classes": outputs,
        "modalities": modalities,
        "encoders": {m: {"heads": heads, "layers": layers} for m in modalities},
        "feature": width,
    }


# By module, where they are not those of a model of sequences.
ARGUMENTS = {
    "umbenet": umbenet_arguments,
    "supramodal": supramodal_arguments,
    "guided": guided_arguments,
}

# By module: class, and the arguments of the variant whose invariance is checked.
MODELS = {
    "mcr": ("MCR", {"outputs": 2, **SMALL}),
    "mult": ("MulT", {"outputs": 2, **SMALL}),
    "umbenet": ("UMBEnet", {"outputs": 2, **SMALL}),
    "supramodal": ("Supramodal", {"outputs": 7, **SMALL}),
    "guided": ("Guided", {"outputs": 2, **SMALL}),
}


def build(module, name, **arguments):
    arguments = ARGUMENTS.get(module, dict)(**arguments)
    return getattr(importlib.import_module(f"affectjax.models.{module}"), name)(**arguments)


def masks_of():
    return {m: np.arange(LENGTHS[m])[None] < np.array(VALID[m])[:, None] for m in MODALITIES}


def inputs_of(fill=None, seed=0):
    """Returns the masks and `x` by modality, with what `fill` draws at all masked places."""
    rng, masks, x = np.random.default_rng(seed), masks_of(), {}
    for m in MODALITIES:
        x[m] = rng.standard_normal((B, LENGTHS[m], DIMS[m])).astype(np.float32)
        junk = np.zeros_like(x[m]) if fill is None else fill(x[m].shape)
        x[m] = np.where(masks[m][..., None], x[m], junk).astype(np.float32)
    return x, masks


def batch_of(x, masks):
    present = {m: masks[m].any(-1) for m in x}
    return {m: {"x": x[m], "mask": masks[m]} for m in x} | {"present": present}


def first_value(path, x):
    """Returns what a variable that is no parameter starts with: a variance one, all else zero."""
    return jnp.full(x.shape, path[-1].key.startswith("var"), x.dtype)


@pytest.fixture(scope="module", params=sorted(FOUND))
def subject(request):
    """Returns parameters, the evaluated model and its training gradients, both compiled."""
    if request.param not in MODELS:
        pytest.fail(f"affectjax/models/{request.param}.py has no row in MODELS of {__file__}")
    name, arguments = MODELS[request.param]
    net = build(request.param, name, **arguments)
    batch = batch_of(*inputs_of())
    shapes = jax.eval_shape(lambda: net.init(jax.random.key(0), batch, train=False))
    params = draw({"params": shapes.pop("params")}, 0)
    counts = jax.tree_util.tree_map_with_path(first_value, shapes)

    def loss(params, x, masks):
        drops = {"dropout": jax.random.key(1)}
        variables = {**params, **counts}
        (logits, _), _ = net.apply(
            variables, batch_of(x, masks), train=True, rngs=drops, mutable=list(counts)
        )
        return jnp.sum(jnp.sin(logits) * jnp.arange(1, logits.size + 1).reshape(logits.shape))

    # Masks are constants of the programs: where they lie is the model's own business.
    evaluate = quick(
        lambda p, x, masks: net.apply({**p, **counts}, batch_of(x, masks), train=False)
    )
    return params, evaluate, quick(jax.value_and_grad(loss, argnums=(0, 1)))


def random(shape):
    return np.random.default_rng(9).standard_normal(shape)


FILLS = {
    "random": random,
    "huge": lambda shape: 1e37 * np.sign(random(shape)),
    "NaN": lambda shape: np.full(shape, np.nan),
    "inf": lambda shape: np.inf * np.sign(random(shape)),
}


@pytest.mark.parametrize("fill", FILLS.values(), ids=FILLS.keys())
def test_masked_places_change_no_output(subject, fill):
    params, evaluate, _ = subject
    expected = evaluate(params, *inputs_of())
    chex.assert_tree_all_finite(expected)
    chex.assert_trees_all_equal(evaluate(params, *inputs_of(fill)), expected)


@pytest.mark.parametrize("fill", FILLS.values(), ids=FILLS.keys())
def test_masked_places_change_no_gradient(subject, fill):
    params, _, gradients = subject
    x, masks = inputs_of()
    expected = gradients(params, x, masks)
    chex.assert_tree_all_finite(expected)
    chex.assert_trees_all_equal(gradients(params, *inputs_of(fill)), expected)
    to_inputs = expected[1][1]
    for m in MODALITIES:
        assert (np.asarray(to_inputs[m])[~masks[m]] == 0).all()
        assert (np.abs(to_inputs[m])[masks[m]].max(-1) > 0).any()


def test_valid_places_matter(subject):
    """The other side of the invariance: the tests above are not passed by a deaf model."""
    params, evaluate, _ = subject
    x, masks = inputs_of()
    before, _ = evaluate(params, x, masks)
    for m in MODALITIES:
        after, _ = evaluate(params, x | {m: x[m] + 1}, masks)
        moved = np.abs(np.subtract(after, before)).max(-1) > 1e-6
        np.testing.assert_array_equal(moved, masks[m].any(-1), err_msg=m)


def test_example_does_not_depend_on_its_neighbours(subject):
    params, evaluate, _ = subject
    x, masks = inputs_of()
    together, _ = evaluate(params, x, masks)
    order = np.random.default_rng(4).permutation(B)
    shuffle = functools.partial(jax.tree.map, lambda a: a[order])
    np.testing.assert_allclose(
        evaluate(params, shuffle(x), shuffle(masks))[0], together[order], atol=2e-6, rtol=1e-6
    )
    for b in range(B):
        one = functools.partial(jax.tree.map, lambda a, b=b: a[b : b + 1])
        alone, _ = evaluate(params, one(x), one(masks))
        np.testing.assert_allclose(alone, together[b : b + 1], atol=2e-6, rtol=1e-6)


def test_example_without_any_modality_is_finite(subject):
    params, evaluate, _ = subject
    logits, out = evaluate(params, *inputs_of())
    assert np.isfinite(logits[-1]).all()
    for name, value in out.items():
        assert np.isfinite(value).all(), name
        if "attention" in name:
            assert (np.asarray(value)[-1] == 0).all(), name


# ---- sizes, worked out by hand ------------------------------------------------------------------
# d width, T steps of the target, T1 and T2 steps of its sources.


def linear(i, o):
    return i * o + o


def norm(d):
    return 2 * d


def attention(d):
    return 4 * linear(d, d)  # query, key, value, output


def feed(d):
    return norm(d) + linear(d, 4 * d) + linear(4 * d, d)


def cmu(d, sources):
    own = norm(d) + linear(d, d) + feed(d)  # of the target: norm, query, feed-forward
    heard = len(sources) * (norm(d) + 2 * linear(d, d))  # norm, key and value of each source
    # Convolutions of length 1 from T1 to T2 channels and from T2 to T1; none without a partner.
    exchange = linear(*sources) + linear(*sources[::-1]) if len(sources) == 2 else 0
    return own + heard + exchange


def scu(d, steps):
    beta = 2 * linear(steps * d, 1)  # collapsed: a vector of length T d and a number, two branches
    return 2 * norm(d) + 2 * attention(d) + beta + feed(d)


def memory(d, steps):
    forward = linear(d, 4 * d) + linear(4 * d, d)
    return forward + 2 * d * d + steps * d  # gate: two maps and a bias [T, d]


def select(d, sources):
    return d * d + sum(sources) * d  # gate: one map and a bias [T1 + T2, d]


def mcr(d, layers, lengths, dims, kernels, outputs):
    """Returns the size of the default MCR over the modalities of `lengths`, in their order."""
    sources = {t: [n for s, n in lengths.items() if s != t] or [lengths[t]] for t in lengths}
    layer = sum(
        cmu(d, sources[t]) + scu(d, steps) + memory(d, steps) + select(d, sources[t])
        for t, steps in lengths.items()
    )
    fused = len(lengths) * d
    return (
        sum(kernels[m] * dims[m] * d for m in lengths)  # projections, no bias
        + layers * layer
        + (norm(d) + attention(d) + feed(d))  # one transformer layer over the targets
        + norm(d)
        + linear(fused, fused)
        + linear(fused, outputs)
    )


def mult(d, layers, lengths, dims, kernels, outputs):
    """Returns the size of MulT over the modalities of `lengths`."""
    count = len(lengths)
    sources = max(count - 1, 1)
    encoder = lambda w: layers * (norm(w) + attention(w) + feed(w)) + norm(w)  # noqa: E731
    fused = count * sources * d
    return (
        sum(kernels[m] * dims[m] * d for m in lengths)
        + count * sources * encoder(d)  # crossmodal
        + count * encoder(sources * d)  # memory
        + 2 * linear(fused, fused)  # residual head
        + linear(fused, outputs)
    )


def umbenet(d, layers, lengths, dims, kernels, outputs):
    """Returns the size of UMBEnet on features of the modalities of `lengths`."""
    dt, hidden = TOWER["width"], TOWER["hidden"]
    block = norm(d) + attention(d) + feed(d)
    encoders = sum(linear(dims[m], d) + layers * block + norm(d) for m in lengths)
    fusion = len(lengths) * d + layers * block
    tower = TOWER["layers"] * (
        2 * norm(dt) + attention(dt) + linear(dt, hidden) + linear(hidden, dt)
    )
    tower += (TOWER["vocab"] + TOWER["length"]) * dt + norm(dt) + dt * d
    pool = POOL["pool_size"] * (d + POOL["prompt_tokens"] * dt)
    gates = linear(dt, POOL["gate_hidden"]) + linear(POOL["gate_hidden"], 1)
    return encoders + fusion + tower + pool + gates + POOL["inherent_tokens"] * dt


def supramodal(d, layers, lengths, dims, kernels, outputs):
    """Returns the size of the learner on features of the modalities of `lengths`."""
    block = norm(d) + attention(d) + feed(d)
    towers = sum(linear(dims[m], d) + layers * block + norm(d) for m in lengths)
    # Dense without bias and batch norm, twice: of emotions, and of the rest of each modality.
    encoder = d * HIDDEN + HIDDEN * HIDDEN + 2 * norm(HIDDEN)
    return towers + (1 + len(lengths)) * encoder + linear(HIDDEN, 7) + linear(HIDDEN, 3)


def guided(d, layers, lengths, dims, kernels, outputs):
    """Returns the size of the recogniser: memory stacks of width d, and a Dense for several."""
    stack = layers * (norm(d) + attention(d) + feed(d)) + norm(d)
    together = linear(len(lengths) * d, d) if len(lengths) > 1 else 0
    return sum(dims[m] * d + stack for m in lengths) + together + linear(d, outputs)


ALIGNED = {"text": 50, "audio": 50, "vision": 50}
UNALIGNED = {"text": 50, "audio": 375, "vision": 500}
PAPER = {"text": 300, "audio": 74, "vision": 35}
K333 = {"text": 3, "audio": 3, "vision": 3}
K335 = {"text": 3, "audio": 5, "vision": 3}  # the paper lists language, vision, audio

# module, width, heads, layers, lengths, dims, kernels, outputs, and the sum written out once.
COUNTS = {
    "mcr small": ("mcr", 8, 2, 2, LENGTHS, DIMS, KERNELS, 2, 20_834),
    "mcr small, two": ("mcr", 8, 2, 1, {"text": 5, "audio": 4}, DIMS, KERNELS, 2, 7_166),
    "mcr small, one": ("mcr", 8, 2, 1, {"vision": 6}, DIMS, KERNELS, 2, 4_052),
    "mcr mosi aligned": ("mcr", 40, 10, 3, ALIGNED, PAPER, K333, 1, 810_559),
    "mcr mosi unaligned": ("mcr", 40, 10, 3, UNALIGNED, PAPER, K333, 1, 2_622_709),
    "mcr mosei aligned": ("mcr", 40, 8, 4, ALIGNED, PAPER, K333, 1, 1_052_905),
    "mcr mosei unaligned": ("mcr", 40, 8, 4, UNALIGNED, PAPER, K333, 1, 3_469_105),
    "mcr iemocap aligned": ("mcr", 40, 10, 3, ALIGNED, PAPER, K335, 8, 817_326),
    "mcr iemocap unaligned": ("mcr", 40, 10, 3, UNALIGNED, PAPER, K335, 8, 2_629_476),
    "mult small": ("mult", 8, 2, 2, LENGTHS, DIMS, KERNELS, 2, 35_490),
    "mult mosi": ("mult", 40, 10, 4, UNALIGNED, PAPER, K333, 1, 1_573_321),
    "mult mosei": ("mult", 40, 8, 4, UNALIGNED, PAPER, K333, 1, 1_573_321),
    "mult iemocap": ("mult", 40, 10, 4, UNALIGNED, PAPER, K335, 8, 1_580_928),
    "umbenet small": ("umbenet", 8, 2, 2, LENGTHS, DIMS, KERNELS, 2, 8_215),
    "umbenet small, two": ("umbenet", 8, 2, 1, {"text": 5, "vision": 4}, DIMS, KERNELS, 2, 3_783),
    "supramodal small": ("supramodal", 8, 2, 2, LENGTHS, DIMS, KERNELS, 7, 6_730),
    "supramodal small, two": (
        "supramodal", 8, 2, 1, {"text": 5, "audio": 4}, DIMS, KERNELS, 7, 2_882,
    ),
    "guided mosi, one": ("guided", 256, 8, 4, {"vision": 500}, PAPER, K333, 2, 3_169_026),
    "guided mosi, three": ("guided", 256, 8, 4, UNALIGNED, PAPER, K333, 2, 9_780_738),
    "mult published size": (
        "mult", 30, 10, 4, UNALIGNED, PAPER, dict.fromkeys(K333, 1), 1, 874_651,
    ),
}  # fmt: skip
BY_HAND = {
    "mcr": mcr,
    "mult": mult,
    "umbenet": umbenet,
    "supramodal": supramodal,
    "guided": guided,
}


@pytest.mark.parametrize("module", sorted(FOUND))
def test_every_model_has_a_row(module):
    assert module in MODELS
    assert module in {row[0] for row in COUNTS.values()}


@pytest.mark.parametrize("row", COUNTS.values(), ids=COUNTS.keys())
def test_exact_size(row):
    module, width, heads, depth, lengths, dims, kernels, outputs, known = row
    name, _ = MODELS[module]
    net = build(
        module,
        name,
        outputs=outputs,
        modalities=tuple(lengths),
        kernels=kernels,
        width=width,
        heads=heads,
        layers=depth,
    )
    batch = {
        m: {"x": jnp.zeros((1, n, dims[m])), "mask": jnp.ones((1, n), bool)}
        for m, n in lengths.items()
    } | {"present": dict.fromkeys(lengths, jnp.ones(1, bool))}
    shapes = jax.eval_shape(lambda: net.init(jax.random.key(0), batch, train=False)["params"])
    expected = BY_HAND[module](width, depth, lengths, dims, kernels, outputs)
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes)) == expected
    assert expected == known
