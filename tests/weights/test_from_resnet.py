"""ResNet-18 against PyTorch's, from folders that transformers saves: both modes, and refusals."""

import json

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy_mcr import quick
from torch_towers import bert_model, torch, transformers, widened

from affectjax import weights
from affectjax.errors import InputError
from affectjax.models.resnet import ResNet18

# Largest difference that float32 may make, as SPEC asks.
TOLERANCE = 1e-4


def resnet_model(kind="ResNetModel", width=8, **changes):
    """Returns a ResNet-18 of PyTorch whose parameters and running statistics are all drawn."""
    sizes = {
        "layer_type": "basic", "depths": [2, 2, 2, 2], "embedding_size": width,
        "hidden_sizes": [width, 2 * width, 4 * width, 8 * width],
    }  # fmt: skip
    model = widened(getattr(transformers, kind)(transformers.ResNetConfig(**sizes | changes)))
    generator = torch.Generator().manual_seed(1)
    for name, value in model.named_buffers():
        if value.ndim:
            drawn = torch.rand(value.shape, generator=generator)
            value.copy_(drawn + 0.5 if name.endswith("var") else drawn - 0.5)
    return model


def images_of(height=64, width=64, count=4):
    """Returns images `[B, H, W, 3]`, and the same as PyTorch takes them."""
    rng = np.random.default_rng(0)
    images = rng.standard_normal((count, height, width, 3)).astype(np.float32)
    return images, torch.from_numpy(images.transpose(0, 3, 1, 2).copy())


def variables_of(found):
    return {"params": found.params, "batch_stats": found.batch_stats}


@pytest.mark.parametrize("size", [(64, 64), (48, 48), (61, 38)])
def test_evaluation_is_that_of_torch(tmp_path, size):
    model = resnet_model()
    model.save_pretrained(tmp_path)
    found = weights.resnet(tmp_path)
    images, given = images_of(*size)
    with torch.no_grad():
        seen = model(given)
    run = quick(lambda v, x: ResNet18(**found.args).apply(v, x, train=False))
    feature, out = run(variables_of(found), images)
    last = seen.last_hidden_state.permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(out["last"], last, atol=TOLERANCE, rtol=0)
    np.testing.assert_allclose(
        feature, seen.pooler_output[..., 0, 0].numpy(), atol=TOLERANCE, rtol=0
    )
    assert np.abs(feature).max() > 0.1


def test_training_step_is_that_of_torch(tmp_path):
    """Features, running statistics and the gradient to every parameter."""
    model = resnet_model()
    model.save_pretrained(tmp_path)
    found = weights.resnet(tmp_path)
    images, given = images_of()
    feature = model.train()(given).pooler_output[..., 0, 0]
    (torch.sin(feature) * torch.arange(64)).sum().backward()

    def loss(params):
        (feature, _), moved = ResNet18(**found.args).apply(
            variables_of(found) | {"params": params}, images, train=True, mutable=["batch_stats"]
        )
        return jnp.sum(jnp.sin(feature) * jnp.arange(64)), (feature, moved["batch_stats"])

    (_, (ours, stats)), gradient = quick(jax.value_and_grad(loss, has_aux=True))(found.params)
    np.testing.assert_allclose(ours, feature.detach().numpy(), atol=TOLERANCE, rtol=0)
    with torch.no_grad():
        for _, value in model.named_parameters():
            assert value.grad.abs().max() > 0
        moved = tmp_path / "moved"
        model.save_pretrained(moved)
        expected = weights.resnet(moved).batch_stats
        chex.assert_trees_all_close(stats, expected, atol=TOLERANCE, rtol=0)
        # The gradients take the way of the weights, which the evaluation above has shown right.
        for value in model.parameters():
            value.copy_(value.grad)
        model.save_pretrained(tmp_path / "gradient")
    expected = weights.resnet(tmp_path / "gradient").params

    def close(ours, theirs):
        assert np.abs(ours - theirs).max() < 1e-3 * np.abs(theirs).max()

    jax.tree.map(close, gradient, expected)
    before, after = found.batch_stats["stem"]["norm"], stats["stem"]["norm"]
    assert np.abs(after["mean"] - before["mean"]).max() > 0.01


@pytest.mark.slow
def test_published_size_under_a_classifier(tmp_path):
    model = resnet_model("ResNetForImageClassification", width=64, num_labels=7)
    model.save_pretrained(tmp_path)
    found = weights.resnet(tmp_path)
    net = ResNet18(**found.args)
    made = jax.eval_shape(
        lambda: net.init(jax.random.key(0), jnp.zeros((1, 64, 64, 3)), train=True)
    )
    chex.assert_trees_all_equal_shapes_and_dtypes(variables_of(found), dict(made))
    assert all(type(leaf) is np.ndarray for leaf in jax.tree.leaves(variables_of(found)))
    assert found.args == {"width": 64} and found.missing == ()
    counts = {name for name in found.unused if name.endswith(".num_batches_tracked")}
    assert set(found.unused) - counts == {"classifier.1.bias", "classifier.1.weight"}
    assert len(counts) == 20
    images, given = images_of(count=1)
    with torch.no_grad():
        seen = model.resnet(given).pooler_output[..., 0, 0].numpy()
    feature, _ = jax.jit(lambda v, x: net.apply(v, x, train=False))(variables_of(found), images)
    np.testing.assert_allclose(feature, seen, atol=TOLERANCE, rtol=0)


def test_pixels_are_those_of_the_folder(tmp_path):
    resnet_model().save_pretrained(tmp_path)
    found = weights.resnet(tmp_path)
    assert found.mean == (0.485, 0.456, 0.406) and found.std == (0.229, 0.224, 0.225)
    processor = transformers.ConvNextImageProcessor(
        image_mean=[0.1, 0.2, 0.3], image_std=[0.4, 0.5, 0.6]
    )
    processor.save_pretrained(tmp_path)
    found = weights.resnet(tmp_path)
    assert found.mean == (0.1, 0.2, 0.3) and found.std == (0.4, 0.5, 0.6)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_std": [1, 2]}))
    with pytest.raises(InputError, match=r"image_std is \[1, 2\]; allowed: three numbers"):
        weights.resnet(tmp_path)


OTHERS = {
    "bottleneck": ({"layer_type": "bottleneck"}, "layer_type is 'bottleneck'.* 'basic'"),
    "34 layers": ({"depths": [3, 4, 6, 3]}, r"depths is \[3, 4, 6, 3\].* has \[2, 2, 2, 2\]"),
    "widths": ({"hidden_sizes": [8, 16, 32, 48]}, r"hidden_sizes is .* \[8, 16, 32, 64\]"),
    "three stages": ({"hidden_sizes": [8, 16, 32], "depths": [2, 2, 2]}, r"depths is \[2, 2, 2\]"),
    "activation": ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
    "grey images": ({"num_channels": 1}, "num_channels is 1"),
    "first stage": ({"downsample_in_first_stage": True}, "downsample_in_first_stage is True"),
}


@pytest.mark.parametrize("changes, match", OTHERS.values(), ids=OTHERS.keys())
def test_other_networks_are_refused(tmp_path, changes, match):
    resnet_model(**changes).save_pretrained(tmp_path)
    with pytest.raises(InputError, match=match):
        weights.resnet(tmp_path)


def test_what_is_not_resnet_or_not_whole_is_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    bert_model().save_pretrained(tmp_path / "bert")
    with pytest.raises(InputError, match="names the architecture BertModel; allowed: ResNetFor"):
        weights.resnet(tmp_path / "bert")
    resnet_model().save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    lost = "encoder.stages.1.layers.0.shortcut.normalization.running_var"
    del tensors[lost]
    save_file(tensors, file)
    with pytest.raises(InputError, match=f"lacks 1 tensors .*: {lost}"):
        weights.resnet(tmp_path)
