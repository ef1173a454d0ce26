"""MCR against its NumPy version, and what every switch of Table 5 does."""

import functools
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import numpy_mcr as slow
import pytest
from numpy_mcr import quick

from affectjax.models import mcr

D, H, B = 8, 2, 5
LENGTHS = {"text": 5, "audio": 4, "vision": 6}
DIMS = {"text": 7, "audio": 5, "vision": 6}
# Rows: whole; padded at the end; audio absent; text absent; nothing there at all.
VALID = {"text": (5, 3, 4, 0, 0), "audio": (4, 2, 0, 3, 0), "vision": (6, 4, 5, 1, 0)}
TOLERANCE = 1e-5


def lengths_mask(m):
    return np.arange(LENGTHS[m])[None] < np.array(VALID[m])[:, None]


MASKS = {m: lengths_mask(m) for m in LENGTHS}


def stream(m, seed, width=D):
    """Returns random `[B, T, D]`, zero at padded steps as all streams of MCR are."""
    x = np.random.default_rng(seed).standard_normal((B, LENGTHS[m], width)).astype(np.float32)
    return np.where(MASKS[m][..., None], x, 0)


def batch_of(modalities=slow.ORDER):
    return {
        m: {"x": stream(m, 50 + i, DIMS[m]), "mask": MASKS[m]} for i, m in enumerate(modalities)
    }


def fresh(module, *inputs, seed=0, **keywords):
    """Returns random parameters of a module."""
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), *inputs, **keywords))
    return slow.draw(shapes.get("params", {}), seed)


def run(module, params, *inputs, **keywords):
    return quick(lambda p, xs: module.apply({"params": p}, *xs, **keywords))(params, inputs)


def model(modalities=slow.ORDER, **switches):
    settings = {"width": D, "heads": H, "layers": 1, "outputs": 2} | switches
    return mcr.MCR(modalities=modalities, kernels={"text": 3, "audio": 1, "vision": 5}, **settings)


def close(ours, theirs):
    chex.assert_trees_all_equal_shapes(ours, theirs)
    chex.assert_trees_all_close(jax.device_get(ours), theirs, atol=TOLERANCE, rtol=0)


# ---- CMU, eq. 2-5 -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sources", "kernel", "mutual"),
    [
        (("audio", "vision"), 1, True),
        (("audio", "vision"), 3, True),
        (("audio", "vision"), 1, False),
        (("vision",), 1, True),
        (("text",), 1, True),
    ],
    ids=["two", "two, kernel 3", "not mutual", "one", "itself"],
)
def test_cross_mutual_unit_is_equations_2_to_5(sources, kernel, mutual):
    unit = mcr.CrossMutualUnit(D, kernel, mutual)
    heard = {s: stream(s, 1 + i) for i, s in enumerate(sources)}
    masks = {s: MASKS[s] for s in sources}
    inputs = (stream("text", 0), MASKS["text"], heard, masks)
    params = fresh(unit, *inputs, train=False)
    ours = run(unit, params, *inputs, train=False)
    close(
        ours,
        slow.over_batch(functools.partial(slow.cmu, slow.wide(params), mutual=mutual), *inputs),
    )
    chex.assert_shape(ours[0], (B, LENGTHS["text"], D))
    exchanges = mutual and len(sources) == 2
    assert any("exchange" in name for name in params) == exchanges
    assert ("alpha/vision" in ours[1]) == exchanges


def test_alpha_is_shared_by_the_valid_steps_of_both_sources():
    unit = mcr.CrossMutualUnit(D)
    heard = {s: stream(s, 3) for s in ("audio", "vision")}
    inputs = (stream("text", 0), MASKS["text"], heard, {s: MASKS[s] for s in heard})
    _, out = run(unit, fresh(unit, *inputs, train=False), *inputs, train=False)
    total = sum(np.asarray(out[f"alpha/{s}"]).sum(-1) for s in heard)
    np.testing.assert_allclose(total, (1, 1, 1, 1, 0), atol=1e-6)  # the last row has no source
    for s in heard:
        assert (np.asarray(out[f"alpha/{s}"])[~MASKS[s]] == 0).all()
        weights = np.asarray(out[f"attention/{s}"])
        expected = np.broadcast_to(MASKS[s].any(-1)[:, None], weights.shape[:2])
        np.testing.assert_allclose(weights.sum(-1), expected, atol=1e-6)


# ---- SCU, eq. 6-11 ------------------------------------------------------------------------------


def scu_inputs():
    joined = np.concatenate([stream("audio", 1), stream("vision", 2)], axis=1)
    joined_mask = np.concatenate([MASKS["audio"], MASKS["vision"]], axis=1)
    return stream("text", 0), MASKS["text"], joined, joined_mask


@pytest.mark.parametrize("attention_layer", mcr.ATTENTION_LAYERS)
def test_self_cross_unit_is_equations_6_to_11(attention_layer):
    unit, inputs = mcr.SelfCrossUnit(D, H, attention_layer), scu_inputs()
    params = fresh(unit, *inputs, train=False)
    ours = run(unit, params, *inputs, train=False)
    reference = functools.partial(
        slow.scu, slow.wide(params), heads=H, attention_layer=attention_layer
    )
    close(ours, slow.over_batch(reference, *inputs))
    if attention_layer == "none":
        assert "gamma" not in ours[1]
    else:
        gamma = np.asarray(ours[1]["gamma"])
        np.testing.assert_allclose(gamma.sum(-1), 1, atol=1e-6)
        assert np.ptp(gamma[:, 0]) > 0.05, "the weights should depend on the example"


def test_collapsed_attention_layer_is_the_full_one_with_one_vector():
    inputs, size = scu_inputs(), LENGTHS["text"] * D
    full = mcr.SelfCrossUnit(D, H, "full")
    params = fresh(full, *inputs, train=False)
    chex.assert_shape(params["beta_cross"]["kernel"], (size, size))
    chex.assert_shape(params["beta_shared"]["kernel"], (size, 1))
    shared = params["beta_shared"]["kernel"].astype(np.float64)  # U; Flax multiplies from the right
    collapsed = {k: v for k, v in params.items() if k != "beta_shared"}
    for name in ("beta_cross", "beta_self"):
        kernel = params[name]["kernel"].astype(np.float64) @ shared  # U^T W
        bias = params[name]["bias"].astype(np.float64) @ shared  # U^T b
        collapsed[name] = {"kernel": kernel.astype("f4"), "bias": bias.astype("f4")}
    unit = mcr.SelfCrossUnit(D, H, "collapsed")
    expected = run(full, params, *inputs, train=False)
    chex.assert_trees_all_close(
        run(unit, collapsed, *inputs, train=False), expected, atol=TOLERANCE, rtol=0
    )
    # The constant counts: gamma is a softmax over two branches with a bias each.
    for name in ("beta_cross", "beta_self"):
        collapsed[name] = collapsed[name] | {"bias": np.zeros(1, "f4")}
    off = run(unit, collapsed, *inputs, train=False)[1]["gamma"]
    assert np.abs(off - expected[1]["gamma"]).max() > 1e-2


# ---- SUM, eq. 12-16 -----------------------------------------------------------------------------


@pytest.mark.parametrize("time_bias", [True, False])
@pytest.mark.parametrize("update", mcr.SOURCE_UPDATES)
def test_source_update_is_equations_12_to_14(update, time_bias):
    unit = mcr.SourceUpdate(D, update, time_bias)
    inputs = (stream("vision", 1), stream("vision", 2), MASKS["vision"])
    params = fresh(unit, *inputs)
    ours = run(unit, params, *inputs)
    close(
        ours,
        slow.over_batch(functools.partial(slow.memory, slow.wide(params), update=update), *inputs),
    )
    assert ("gate" in params) == (update == "memory")
    if update == "memory":
        shape = (LENGTHS["vision"], D) if time_bias else (D,)
        chex.assert_shape(params["gate"]["bias"], shape)
    if update == "low_level":
        assert not params
        np.testing.assert_array_equal(ours, inputs[0])
    if update in ("feed_forward", "low_level"):
        deaf = run(unit, params, inputs[0], inputs[1] + 1, inputs[2])
        np.testing.assert_array_equal(deaf, ours)


# ---- the layer, and the model -------------------------------------------------------------------

LAYERS = {
    "as published": {},
    "full attention layer": {"attention_layer": "full", "targets": ("text",)},
    "w/o attention layer": {"attention_layer": "none", "targets": ("text",)},
    "w/o mutual attention": {"mutual": False, "targets": ("audio",)},
    "w/o cmu": {"cmu": False, "targets": ("vision",)},
    "w/o scu": {"scu": False, "targets": ("vision",)},
    "low-level sources": {"source_update": "low_level", "targets": ("text",)},
    "feed-forward sources": {"source_update": "feed_forward", "targets": ("text",)},
    "w/o selective memory": {"source_update": "sum", "targets": ("text",)},
    "serial": {"structure": "serial", "targets": ("audio",)},
    "serial w/o cmu": {"structure": "serial", "cmu": False, "targets": ("audio",)},
    "serial w/o scu": {"structure": "serial", "scu": False, "targets": ("audio",)},
    "one bias for all steps": {"time_bias": False, "targets": ("text",)},
    "exchange over three steps": {"exchange_kernel": 3, "targets": ("text",)},
    "two modalities": {"modalities": ("text", "vision")},
    "one modality": {"modalities": ("audio",)},
}


def carried(net):
    """Returns random inputs of one layer: targets, sources and joined sources that all differ."""
    targets = {m: stream(m, 10 + i) for i, m in enumerate(net.modalities)}
    sources = {m: stream(m, 20 + i) for i, m in enumerate(net.modalities)}
    others = {m: stream(m, 30 + i) for i, m in enumerate(net.modalities)}
    masks = {m: MASKS[m] for m in net.modalities}
    joined, joined_masks = {}, {}
    for t in net.reinforced:
        names = slow.sources_of(t, net.modalities)
        joined[t] = np.concatenate([others[s] for s in names], axis=1)
        joined_masks[t] = np.concatenate([masks[s] for s in names], axis=1)
    return (targets, sources, joined), masks, joined_masks


@pytest.mark.parametrize("switches", LAYERS.values(), ids=LAYERS.keys())
def test_layer_is_figure_1b_whatever_the_switches(switches):
    net = model(**switches)
    layer = mcr.Reinforcement(net)
    carry, masks, joined_masks = carried(net)
    params = fresh(layer, carry, masks, joined_masks, train=False)
    ours = run(layer, params, carry, masks, joined_masks, train=False)
    reference = functools.partial(
        slow.reinforcement,
        slow.wide(params),
        modalities=net.modalities,
        reinforced=net.reinforced,
        heads=H,
        **{k: v for k, v in switches.items() if k in slow.DEFAULTS},
    )
    close(ours, slow.over_batch(reference, *carry, masks))
    assert any(k.startswith("cmu_") for k in params) == net.cmu
    assert any(k.startswith("scu_") for k in params) == net.scu
    assert {k[4:] for k in params if k.startswith(("cmu_", "scu_"))} == set(net.reinforced)
    for m in net.modalities:
        if m not in net.reinforced:
            np.testing.assert_array_equal(ours[0][0][m], carry[0][m])


def test_serial_structure_is_scu_of_cmu():
    net = model(structure="serial", targets=("text",))
    (targets, sources, joined), masks, joined_masks = carried(net)
    layer = mcr.Reinforcement(net)
    inputs = ((targets, sources, joined), masks, joined_masks)
    params = fresh(layer, *inputs, train=False)
    ours = run(layer, params, *inputs, train=False)[0][0]["text"]
    heard = {s: sources[s] for s in ("audio", "vision")}
    fine, _ = run(
        mcr.CrossMutualUnit(D), params["cmu_text"], targets["text"], masks["text"], heard,
        {s: masks[s] for s in heard}, train=False,
    )  # fmt: skip
    expected, _ = run(
        mcr.SelfCrossUnit(D, H), params["scu_text"], fine, masks["text"], joined["text"],
        joined_masks["text"], train=False,
    )  # fmt: skip
    np.testing.assert_allclose(ours, expected, atol=TOLERANCE)


MODELS = {
    "three modalities, two layers": {"layers": 2, "encoder_layers": 2},
    "two modalities, last step": {"modalities": ("text", "audio"), "pool": "last"},
    "one modality": {"modalities": ("vision",)},
    "one direction": {"targets": ("vision",), "layers": 2},
}


@pytest.fixture(scope="module", params=MODELS.values(), ids=MODELS.keys())
def whole(request):
    """Returns a model, its switches, parameters and evaluated output."""
    net = model(**request.param)
    params = fresh(net, batch_of(), train=False)
    return net, request.param, params, run(net, params, batch_of(), train=False)


def test_whole_model_is_the_slow_one(whole):
    net, switches, params, (logits, out) = whole
    keep = {k: v for k, v in switches.items() if k in slow.DEFAULTS or k == "targets"}
    reference = functools.partial(
        slow.mcr, slow.wide(params), modalities=net.modalities, heads=H, **keep
    )
    batch = {m: batch_of()[m] for m in net.modalities}
    close((logits, out["fused"]), slow.over_batch(reference, batch))


def test_whole_model_names_what_it_saw(whole):
    net, _, _, (logits, out) = whole
    chex.assert_shape(logits, (B, 2))
    expected = {"fused": (B, len(net.reinforced) * D)}
    for i in range(net.layers):
        for t in net.reinforced:
            sources = slow.sources_of(t, net.modalities)
            steps = LENGTHS[t]
            for s in sources:
                expected[f"cmu/attention/{s}_to_{t}/{i}"] = (B, steps, LENGTHS[s])
                if len(sources) == 2:
                    expected[f"cmu/alpha/{s}_to_{t}/{i}"] = (B, LENGTHS[s])
            joined = sum(LENGTHS[s] for s in sources)
            expected[f"scu/attention/joined_to_{t}/{i}"] = (B, H, steps, joined)
            expected[f"scu/attention/self_to_{t}/{i}"] = (B, H, steps, steps)
            expected[f"scu/gamma/{t}/{i}"] = (B, 2)
    assert {k: v.shape for k, v in out.items()} == expected


def test_modality_that_is_not_used_does_not_matter():
    net = model(("text",))
    shapes = jax.eval_shape(lambda: net.init(jax.random.key(0), batch_of(), train=False))
    alone = jax.eval_shape(lambda: net.init(jax.random.key(0), batch_of(("text",)), train=False))
    chex.assert_trees_all_equal_shapes(shapes, alone)


# ---- configuration ------------------------------------------------------------------------------


def size(net):
    init = lambda: net.init(jax.random.key(0), batch_of(net.modalities), train=False)  # noqa: E731
    shapes = jax.eval_shape(init)
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


def test_parameters_grow_by_the_same_number_with_every_layer():
    sizes = [size(model(("text", "audio"), layers=n)) for n in range(1, 7)]
    steps = {b - a for a, b in itertools.pairwise(sizes)}
    assert len(steps) == 1
    assert steps.pop() > 0


@pytest.mark.parametrize(
    "switch",
    [
        {"attention_layer": "half"},
        {"source_update": "high"},
        {"structure": "crossed"},
        {"pool": "max"},
        {"cmu": False, "scu": False},
    ],
)
def test_value_that_is_not_allowed_is_refused_by_name(switch):
    with pytest.raises(ValueError, match=r"model\." + next(iter(switch))):
        model(**switch)


def test_training_drops_and_evaluation_does_not():
    net = model(("text", "audio"))
    params = fresh(net, batch_of(), train=False)
    apply = quick(
        lambda p, key: net.apply({"params": p}, batch_of(), train=True, rngs={"dropout": key})
    )
    first, again, other = (apply(params, jax.random.key(k)) for k in (0, 0, 1))
    np.testing.assert_array_equal(first[0], again[0])
    assert np.abs(jnp.subtract(first[0], other[0])).max() > 1e-3
    assert set(first[1]) == {"fused"}
