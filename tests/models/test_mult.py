"""MulT against an independent PyTorch version with the same weights."""

import functools
import importlib

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy_mcr import draw, quick

from affectjax.models import layers, mult

ORDER = ("text", "audio", "vision")
DIMS = {"text": 7, "audio": 5, "vision": 6}
D, H, LAYERS, B = 8, 2, 2, 3
EQUAL = {"text": 5, "audio": 5, "vision": 5}
UNEQUAL = {"text": 4, "audio": 7, "vision": 5}
PAIRS = [(s, t) for t in ORDER for s in ORDER if s != t]


def pytorch():
    """Returns torch and the model written in it, or skips the test that asks."""
    torch = pytest.importorskip("torch", reason="parity with PyTorch needs torch")
    return torch, importlib.import_module("torch_mult")


def model(width=D, heads=H, depth=LAYERS, outputs=2, modalities=ORDER, **rates):
    kernels = {"text": 1, "audio": 1, "vision": 1}
    return mult.MulT(outputs, modalities, kernels, width=width, heads=heads, layers=depth, **rates)


def batch_of(lengths, dims=DIMS, size=B, seed=0):
    rng = np.random.default_rng(seed)
    return {
        m: {
            "x": rng.standard_normal((size, lengths[m], dims[m])).astype(np.float32),
            "mask": np.ones((size, lengths[m]), bool),
        }
        for m in ORDER
    }


def shapes_of(net, batch):
    init = lambda: net.init(jax.random.key(0), batch, train=False)["params"]  # noqa: E731
    return jax.eval_shape(init)


# ---- Flax parameters as a PyTorch state dict ----------------------------------------------------


def linear(p, name):
    return {f"{name}.weight": p["kernel"].T, f"{name}.bias": p["bias"]}


def norm(p, name):
    return {f"{name}.weight": p["scale"], f"{name}.bias": p["bias"]}


def encoder_state(p, unit, prefix):
    """Returns the state of encoder number `unit` of `Encoders` parameters `p`."""
    state = norm(jax.tree.map(lambda x: x[unit], p["norm"]["units"]["norm"]), f"{prefix}norm")
    stack = p["stack"]["layers"]["encoders"]["units"]
    for i in range(len(stack["norm"]["scale"])):
        block = jax.tree.map(lambda x, i=i: x[i, unit], stack)
        query, both = block["attention"]["query"], block["attention"]["key_value"]
        name = f"{prefix}blocks.{i}."
        weights = np.concatenate([query["kernel"], both["kernel"]], axis=1).T
        state[f"{name}attention.in_proj_weight"] = weights
        state[f"{name}attention.in_proj_bias"] = np.concatenate([query["bias"], both["bias"]])
        state |= linear(block["attention"]["out"], f"{name}attention.out_proj")
        state |= norm(block["norm"], f"{name}norm1")
        state |= norm(block["feed"]["norm"], f"{name}norm2")
        state |= linear(block["feed"]["up"], f"{name}fc1")
        state |= linear(block["feed"]["down"], f"{name}fc2")
    return state


def model_state(p):
    state = {}
    for m in ORDER:
        state[f"project.{m}.weight"] = np.transpose(p[f"project_{m}"]["conv"]["kernel"], (2, 1, 0))
    for i, (s, t) in enumerate(PAIRS):
        state |= encoder_state(p["crossmodal"], i, f"cross.{s}_to_{t}.")
    for i, m in enumerate(ORDER):
        state |= encoder_state(p["memory"], i, f"memory.{m}.")
    for name, theirs in (("head_up", "head1"), ("head_down", "head2"), ("head", "out")):
        state |= linear(p[name], theirs)
    return state


def load(module, state):
    """Loads the state, every key of it and no other, and leaves dropout out."""
    torch, _ = pytorch()
    tensors = {k: torch.tensor(np.array(v)) for k, v in state.items()}
    module.load_state_dict(tensors, strict=True)
    return module.eval()


# ---- the encoder --------------------------------------------------------------------------------

ENCODERS = {
    "equal lengths": ((6, 6), None),
    "short target": ((4, 7), None),
    "long target": ((7, 4), None),
    "itself": ((5, None), None),
    "padded source": ((4, 6), (6, 4, 1)),
    "itself, padded": ((6, None), (6, 3, 1)),
}


@pytest.mark.parametrize(("lengths", "valid"), ENCODERS.values(), ids=ENCODERS.keys())
def test_encoder_is_pytorchs(lengths, valid):
    torch, torch_mult = pytorch()
    rng = np.random.default_rng(1)
    x = rng.standard_normal((B, lengths[0], D)).astype(np.float32)
    itself = lengths[1] is None
    source = None if itself else rng.standard_normal((B, lengths[1], D)).astype(np.float32)
    keys = lengths[0] if itself else lengths[1]
    mask = np.ones((B, keys), bool)
    if valid:
        mask = np.arange(keys)[None] < np.array(valid)[:, None]
    target_mask = mask if itself else np.ones((B, lengths[0]), bool)

    net = mult.Encoders(D, H, LAYERS, 0.0, 0.0, 0.0, 0.0, stacked=False)
    apply = lambda p: net.apply({"params": p}, [x], [target_mask], [source], [mask], train=False)  # noqa: E731
    params = draw(
        jax.eval_shape(
            lambda: net.init(jax.random.key(0), [x], [target_mask], [source], [mask], train=False)
        )["params"],
        0,
    )
    (ours,), (weights,) = quick(apply)(params)

    theirs = torch_mult.Encoder(D, H, LAYERS, 0.0, 0.0, 0.0, 0.0)
    load(theirs, encoder_state(params, 0, ""))
    steps = lambda y: None if y is None else torch.tensor(y).transpose(0, 1)  # noqa: E731
    with torch.no_grad():
        expected = theirs(steps(x), steps(source), torch.tensor(~mask)).transpose(0, 1).numpy()
    chex.assert_shape(weights, (LAYERS, B, H, lengths[0], keys))
    # Padded targets give zeros; PyTorch leaves them as they fall.
    np.testing.assert_allclose(ours, np.where(target_mask[..., None], expected, 0), atol=1e-5)


def test_no_step_looks_ahead():
    """Of equal lengths no step attends to a later one; of unequal ones the longer may run ahead."""
    for lengths in ((5, 5), (3, 6), (6, 3)):
        ahead = np.arange(lengths[1])[None] - np.arange(lengths[0])[:, None]
        forbidden = ahead > abs(lengths[0] - lengths[1])
        net = layers.Attention(D, H)
        x = [np.random.default_rng(i).standard_normal((1, n, D)) for i, n in enumerate(lengths)]
        mask = np.ones((1, lengths[1]), bool)
        run = functools.partial(net.init_with_output, causal=True, train=False)
        (_, weights), _ = quick(run)(jax.random.key(0), *x, mask)
        weights = np.asarray(weights)[0]
        assert (weights[:, forbidden] == 0).all()
        assert (weights[:, ~forbidden] > 0).all()


# ---- the whole model ----------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[EQUAL, UNEQUAL], ids=["equal lengths", "unequal lengths"])
def pair(request):
    """Returns the batch, the parameters, our output and gradients, and PyTorch's model."""
    _, torch_mult = pytorch()
    batch, net = batch_of(request.param), model()
    params = draw(shapes_of(net, batch), 0)

    def loss(p):
        logits, out = net.apply({"params": p}, batch, train=False)
        return jnp.sum(logits * jnp.arange(1, 2 * B + 1).reshape(B, 2)), (logits, out)

    (_, (logits, out)), gradients = quick(jax.value_and_grad(loss, has_aux=True))(params)
    theirs = load(torch_mult.MulT(DIMS, D, H, LAYERS, outputs=2), model_state(params))
    return batch, logits, out, gradients, theirs


def torch_logits(theirs, batch):
    torch, _ = pytorch()
    return theirs({m: torch.tensor(batch[m]["x"]) for m in ORDER})


def test_model_is_pytorchs(pair):
    torch, _ = pytorch()
    batch, logits, _, _, theirs = pair
    with torch.no_grad():
        expected = torch_logits(theirs, batch).numpy()
    chex.assert_shape(logits, (B, 2))
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(logits, expected, atol=1e-5, rtol=0)


def test_gradients_are_pytorchs(pair):
    torch, _ = pytorch()
    batch, _, _, gradients, theirs = pair
    theirs.zero_grad()
    torch.sum(torch_logits(theirs, batch) * torch.arange(1, 2 * B + 1).reshape(B, 2)).backward()
    ours, compared = model_state(gradients), 0
    for name, parameter in theirs.named_parameters():
        expected = parameter.grad.numpy()
        bound = 1e-4 * max(np.abs(expected).max(), 1)
        np.testing.assert_allclose(ours[name], expected, atol=bound, rtol=0, err_msg=name)
        compared += 1
    assert compared == len(ours)


def test_model_names_its_attention(pair):
    batch, _, out, _, _ = pair
    lengths = {m: batch[m]["x"].shape[1] for m in ORDER}
    expected = {"fused": (B, 6 * D)} | {
        f"attention/{s}_to_{t}/{i}": (B, H, lengths[t], lengths[s])
        for s, t in PAIRS
        for i in range(LAYERS)
    }
    assert {k: v.shape for k, v in out.items()} == expected
    for name, weights in out.items():
        if name != "fused":
            np.testing.assert_allclose(np.asarray(weights).sum(-1), 1, atol=1e-6)


def test_published_size():
    # One layer at width d: attention 4 d^2 + 4 d, feed-forward 8 d^2 + 5 d, two norms 4 d.
    encoder = lambda d: 4 * (12 * d**2 + 13 * d) + 2 * d  # noqa: E731
    expected = (
        30 * (300 + 74 + 35)  # projections, kernel 1, no bias
        + 6 * encoder(30)  # crossmodal
        + 3 * encoder(60)  # memory
        + 2 * (180 * 180 + 180)  # residual head
        + (180 + 1)
    )
    assert expected == 874_651
    dims = {"text": 300, "audio": 74, "vision": 35}
    shapes = shapes_of(model(30, 10, 4, 1), batch_of({"text": 5, "audio": 6, "vision": 7}, dims, 1))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == expected


@pytest.mark.parametrize("modalities", [("text", "vision"), ("audio",)])
def test_fewer_modalities(modalities):
    """Two modalities: one source each, so memory of width D; one: it is its own source."""
    net, batch = model(depth=1, modalities=modalities), batch_of(UNEQUAL)
    params = draw(shapes_of(net, batch), 0)
    chex.assert_shape(params["memory"]["norm"]["units"]["norm"]["scale"], (len(modalities), D))
    logits, out = quick(lambda p: net.apply({"params": p}, batch, train=False))(params)
    chex.assert_shape(out["fused"], (B, len(modalities) * D))
    assert np.isfinite(logits).all()
    if len(modalities) == 1:
        assert "attention/audio_to_audio/0" in out


# ---- units side by side -------------------------------------------------------------------------


def test_stacked_encoders_give_the_loops_numbers_and_gradients():
    rng = np.random.default_rng(2)
    targets = [rng.standard_normal((B, 5, D)).astype(np.float32) for _ in range(3)]
    sources = [rng.standard_normal((B, 5, D)).astype(np.float32) for _ in range(3)]
    masks = [np.arange(5)[None] < rng.integers(1, 6, (B, 1)) for _ in range(3)]
    inputs = (targets, masks, sources, masks[::-1])
    one, many = (mult.Encoders(D, H, LAYERS, 0.2, 0.2, 0.2, 0.2, s) for s in (False, True))
    shapes = [
        jax.eval_shape(lambda net=net: net.init(jax.random.key(0), *inputs, train=False))
        for net in (one, many)
    ]
    chex.assert_trees_all_equal_shapes(*shapes)
    params = draw(shapes[0], 0)

    def both(net):
        def loss(p):
            drops = {"dropout": jax.random.key(3)}
            trained, _ = net.apply(p, *inputs, train=True, rngs=drops)
            return sum(jnp.sum(x**2) for x in trained), trained

        return quick(jax.value_and_grad(loss, has_aux=True))(params)

    (ours, gradients), (expected, expected_gradients) = both(many), both(one)
    chex.assert_trees_all_close(ours, expected, rtol=1e-5, atol=1e-5)
    chex.assert_trees_all_close(gradients, expected_gradients, rtol=1e-4, atol=1e-4)


def test_units_stack_only_where_shapes_are_equal_and_an_accelerator_is_there(monkeypatch):
    assert not layers.stack_units(EQUAL) or jax.default_backend() != "cpu"
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert layers.stack_units(EQUAL)
    assert not layers.stack_units(UNEQUAL)


def test_whole_model_is_the_same_stacked(monkeypatch):
    batch, net = batch_of(EQUAL), model(depth=1)
    params = draw(shapes_of(net, batch), 0)
    apply = lambda p: net.apply({"params": p}, batch, train=False)  # noqa: E731
    loop = quick(lambda p: apply(p))(params)
    monkeypatch.setattr(mult, "stack_units", lambda lengths: True)
    chex.assert_trees_all_close(quick(lambda p: apply(p))(params), loop, atol=2e-5, rtol=1e-5)
