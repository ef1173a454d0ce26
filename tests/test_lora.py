"""LoRA: towers of PyTorch with `(x @ a) @ b` added by hooks, draws of dropout, gradients, sizes.

Letters: B examples, T steps, L layers, I inputs, O outputs, R rank.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from affectjax import weights
from affectjax.errors import InputError
from affectjax.models.bert import Bert
from affectjax.models.clip import ImageTower, TextTower
from affectjax.models.layers import Attention
from affectjax.weights import lora
from affectjax.weights.lora import Lora

SETTINGS = Lora(rank=3, alpha=12.0, dropout=0.25)
SCALE = 4.0  # 12 / 3
NAMES = ("query", "key", "value", "out")


def drawn(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def filled(tree, scale=0.1):
    """Returns parameters of LoRA that are all drawn, `b` too."""
    leaves, shape = jax.tree.flatten(tree)
    return shape.unflatten([scale * drawn(*leaf.shape, seed=i) for i, leaf in enumerate(leaves)])


def hooked(linear, a, b):
    """Makes a linear map of PyTorch return also `SCALE * (x @ a) @ b`."""
    a, b = torch_of(a), torch_of(b)
    linear.register_forward_hook(lambda module, given, y: y + SCALE * (given[0] @ a) @ b)


def torch_of(x):
    torch = pytest.importorskip("torch")
    return torch.from_numpy(np.array(x))


def changed(params):
    """Returns what LoRA adds to a tower, and the tower with it, merged."""
    added = filled(lora.init(jax.random.key(0), params, SETTINGS.rank))
    return added, lora.adapt(params, added, SETTINGS)


def test_image_tower_of_clip(tmp_path):
    towers = pytest.importorskip("torch_towers")
    model = towers.clip_model()
    model.save_pretrained(tmp_path)
    found = weights.clip(tmp_path)
    params = found.params["image_tower"]
    added, merged = changed(params)
    images, run = drawn(3, 12, 12, 3), ImageTower(**found.image).apply
    for i, layer in enumerate(model.vision_model.encoder.layers):
        own = layer.self_attn
        maps = (own.q_proj, own.k_proj, own.v_proj, own.out_proj)
        for name, linear in zip(NAMES, maps, strict=True):
            part = added["blocks"][name]["kernel"]
            hooked(linear, part["a"][i], part["b"][i])
    expected = model.get_image_features(torch_of(images.transpose(0, 3, 1, 2))).pooler_output
    feature, _ = run({"params": merged}, images)
    np.testing.assert_allclose(feature, expected.detach().numpy(), atol=1e-4, rtol=0)
    assert np.abs(feature - run({"params": params}, images)[0]).max() > 0.1


def test_bert(tmp_path):
    towers = pytest.importorskip("torch_towers")
    model = towers.bert_model()
    model.save_pretrained(tmp_path)
    found = weights.bert(tmp_path)
    added, merged = changed(found.params)
    tokens, mask = towers.sentences()
    for i, layer in enumerate(model.encoder.layer):
        own = layer.attention.self
        maps = (own.query, own.key, own.value, layer.attention.output.dense)
        for name, linear in zip(NAMES, maps, strict=True):
            part = added["blocks"][name]["kernel"]
            hooked(linear, part["a"][i], part["b"][i])
    expected = model(torch_of(tokens).long(), torch_of(mask).long()).last_hidden_state
    _, out = Bert(**found.args).apply({"params": merged}, tokens, mask)
    np.testing.assert_allclose(
        out["last"][mask], expected.detach().numpy()[mask], atol=1e-4, rtol=0
    )
    plain = Bert(**found.args).apply({"params": found.params}, tokens, mask)[1]["last"]
    assert np.abs(out["last"] - plain).max() > 0.1


def attention():
    """Returns an attention whose layers are not stacked, its parameters, and its inputs."""
    net, x = Attention(8, 2), drawn(2, 5, 8)
    given = x, x, np.ones((2, 5), bool)
    return net, net.init(jax.random.key(0), *given, train=False)["params"], given


@pytest.mark.parametrize("key", [None, 7])
def test_kernels_that_are_not_stacked(key):
    """Against the literal sum, in whose dropout the inputs of `a` are dropped."""
    _, params, _ = attention()
    added = filled(lora.init(jax.random.key(0), params, 3))
    key = None if key is None else jax.random.key(key)
    merged = lora.adapt(params, added, SETTINGS, key)
    assert set(added) == {"query", "key_value", "out"}
    for name, part in added.items():
        a, b, kernel = part["kernel"]["a"], part["kernel"]["b"], params[name]["kernel"]
        # Which rows of a were kept: it is solved for, b having full rank.
        rows = np.linalg.lstsq(b.T, (merged[name]["kernel"] - kernel).T / SCALE, rcond=None)[0].T
        keep = np.abs(rows).max(-1) > 1e-3
        assert keep.all() == (key is None)
        x = drawn(4, 8, seed=5)
        dropped = x if key is None else np.where(keep, x / 0.75, 0)
        expected = x @ kernel + SCALE * (dropped @ a) @ b
        np.testing.assert_allclose(x @ merged[name]["kernel"], expected, atol=1e-5)
        np.testing.assert_array_equal(merged[name]["bias"], params[name]["bias"])


def test_dropout_is_drawn_for_each_layer_kernel_and_step():
    params = {n: {"kernel": np.zeros((3, 400, 8), np.float32)} for n in ("query", "value")}
    added = filled(lora.init(jax.random.key(0), params, 3))

    def kept(key):
        found = lora.adapt(params, added, SETTINGS, jax.random.key(key))
        return np.concatenate([np.abs(found[n]["kernel"]).max(-1) > 0 for n in ("query", "value")])

    keep = kept(1)  # [6, 400]
    np.testing.assert_array_equal(kept(1), keep)
    assert abs(keep.mean() - 0.75) < 5 * np.sqrt(0.75 * 0.25 / keep.size)
    draws = [*keep, *kept(2)]
    for i, first in enumerate(draws):
        for second in draws[:i]:  # two draws differ in 2 * .75 * .25 of the places
            assert abs((first != second).mean() - 0.375) < 5 * np.sqrt(0.375 * 0.625 / 400)
    mean = np.mean(
        [
            lora.adapt(params, added, SETTINGS, key)["query"]["kernel"]
            for key in jax.random.split(jax.random.key(3), 600)
        ],
        axis=0,
    )
    merged = lora.adapt(params, added, SETTINGS)["query"]["kernel"]
    # Kept or not changes a value by merged / sqrt(3) on average: a 42nd of that after 600 draws.
    assert np.abs(mean - merged).max() < 6 * np.abs(merged).max() / np.sqrt(3 * 600)


def test_at_first_nothing_is_added():
    net, params, given = attention()
    added = lora.init(jax.random.key(0), params, 2)
    for key in (None, jax.random.key(1)):
        merged = lora.adapt(params, added, Lora(rank=2), key)
        jax.tree.map(np.testing.assert_array_equal, merged, params)
    y, _ = net.apply({"params": merged}, *given, train=False)
    np.testing.assert_array_equal(y, net.apply({"params": params}, *given, train=False)[0])


def test_a_is_uniform_and_of_its_own_in_every_layer():
    params = {"blocks": {"query": {"kernel": np.zeros((2, 400, 8))}}, "query": {"bias": 1}}
    found = lora.init(jax.random.key(0), params, 50)["blocks"]["query"]["kernel"]
    a = np.asarray(found["a"])
    assert a.shape == (2, 400, 50) and found["b"].shape == (2, 50, 8) and not found["b"].any()
    assert 0.0499 < np.abs(a).max() <= 0.05  # 1 / sqrt(400)
    assert abs(a.std() - 0.05 / math.sqrt(3)) < 2e-4
    assert abs(np.corrcoef(a[0].ravel(), a[1].ravel())[0, 1]) < 0.03


def test_gradients_reach_a_and_b_alone():
    """At first that of `a` is zero, since `b` is; after a step none is."""
    net, params, given = attention()
    added = lora.init(jax.random.key(0), params, 2)

    @jax.jit
    def step(added, key):
        def loss(added):
            merged = lora.adapt(params, added, Lora(rank=2), key)
            return jnp.sum(jnp.sin(net.apply({"params": merged}, *given, train=False)[0]))

        gradient = jax.grad(loss)(added)
        return jax.tree.map(lambda p, g: p - 0.1 * g, added, gradient), gradient

    added, first = step(added, jax.random.key(1))
    added, second = step(added, jax.random.key(2))
    assert jax.tree.structure(first) == jax.tree.structure(added)
    for name in ("query", "key_value", "out"):
        part = first[name]["kernel"]
        assert not part["a"].any() and np.abs(part["b"]).max() > 0
        assert np.abs(second[name]["kernel"]["a"]).max() > 0


def test_exact_size_on_the_towers_of_clip():
    """ViT-B/32, rank 6: four maps D -> D in each of 12 layers, 6 (D + D) numbers a map."""
    image = ImageTower(224, 32, 768, 12, 12, 3072, 512)
    text = TextTower(49408, 77, 512, 12, 8, 2048, 512)
    tokens = jnp.zeros((1, 4), jnp.int32)

    def size(tower, *inputs):
        params = jax.eval_shape(lambda: tower.init(jax.random.key(0), *inputs)["params"])
        added = jax.eval_shape(lambda p: lora.init(jax.random.key(0), p, 6), params)
        return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(added))

    assert size(image, jnp.zeros((1, 224, 224, 3))) == 12 * 4 * 6 * (768 + 768) == 442_368
    assert size(text, tokens, tokens == 0) == 12 * 4 * 6 * (512 + 512) == 294_912


def test_pattern_chooses():
    params = {"up": {"kernel": np.zeros((4, 6))}, "query": {"kernel": np.zeros((4, 4))}}
    assert set(lora.init(jax.random.key(0), params, 2)) == {"query"}
    assert set(lora.init(jax.random.key(0), params, 2, "up/kernel")) == {"up"}
    with pytest.raises(InputError, match=r"no parameter .* 'down'; it has up/kernel, query/kernel"):
        lora.init(jax.random.key(0), params, 2, "down")
    with pytest.raises(InputError, match=r"query/bias of shape .4,. matches .* but is no matrix"):
        lora.init(jax.random.key(0), {"query": {"bias": np.zeros(4)}}, 2, "query")


@pytest.mark.parametrize(
    "changes, match",
    [
        ({"rank": 0}, "the rank of LoRA is 0; allowed: a whole number from 1"),
        ({"rank": 1.5}, "the rank of LoRA is 1.5"),
        ({"alpha": 0}, "alpha of LoRA is 0; allowed: numbers above 0"),
        ({"alpha": math.nan}, "alpha of LoRA is nan"),
        ({"dropout": 1}, "dropout of LoRA is 1; allowed: from 0 to below 1"),
        ({"dropout": -0.1}, "dropout of LoRA is -0.1"),
    ],
)
def test_settings_that_cannot_be_meant(changes, match):
    with pytest.raises(InputError, match=match):
        Lora(**changes)


def test_parameters_of_another_tower_are_refused():
    params = {"query": {"kernel": np.zeros((4, 4), np.float32)}}
    added = lora.init(jax.random.key(0), params, 3)
    with pytest.raises(InputError, match="parameters for query/kernel, which the tower has not"):
        lora.adapt({"key": params["query"]}, added, SETTINGS)
    wide = {"query": {"kernel": np.zeros((4, 5), np.float32)}}
    with pytest.raises(InputError, match=r"for query/kernel; a kernel .4, 5. and rank 3 allow"):
        lora.adapt(wide, added, SETTINGS)
    with pytest.raises(InputError, match="and rank 6 allow"):
        lora.adapt(params, added, Lora())
    with pytest.raises(InputError, match="the rank of LoRA is 0"):
        lora.init(jax.random.key(0), params, 0)
