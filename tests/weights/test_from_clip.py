"""CLIP's towers against PyTorch's, from the folders that transformers saves."""

import json
import logging

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy_mcr import quick
from torch_towers import (
    bert_model,
    clip_model,
    sentences,
    text_config,
    torch,
    transformers,
    vision_config,
    widened,
)

from affectjax import weights
from affectjax.errors import InputError
from affectjax.models.clip import ImageTower, TextTower

# Largest difference that float32 may make, as SPEC asks.
TOLERANCE = 1e-4


def assert_text_is_torch(model, found):
    tokens, mask = sentences()
    with torch.no_grad():
        inputs = {"input_ids": torch.tensor(tokens).long(), "attention_mask": torch.tensor(mask)}
        seen = model.text_model(**inputs)
        expected = model.text_projection(seen.pooler_output).numpy()
    params = {"params": found.params["text_tower"]}
    got, out = quick(TextTower(**found.text).apply)(params, tokens, mask)
    np.testing.assert_allclose(got, expected, atol=TOLERANCE, rtol=0)
    np.testing.assert_allclose(out["pooled"], seen.pooler_output, atol=TOLERANCE, rtol=0)
    last = np.where(mask[..., None], seen.last_hidden_state, 0)
    np.testing.assert_allclose(out["last"], last, atol=TOLERANCE, rtol=0)


def assert_image_is_torch(model, found):
    side = found.image["image_size"]
    images = np.random.default_rng(1).standard_normal((3, side, side, 3)).astype(np.float32)
    with torch.no_grad():
        seen = model.vision_model(torch.tensor(images.transpose(0, 3, 1, 2)))
        expected = model.visual_projection(seen.pooler_output).numpy()
    params = {"params": found.params["image_tower"]}
    got, out = quick(ImageTower(**found.image).apply)(params, images)
    np.testing.assert_allclose(got, expected, atol=TOLERANCE, rtol=0)
    np.testing.assert_allclose(out["pooled"], seen.pooler_output, atol=TOLERANCE, rtol=0)
    np.testing.assert_allclose(out["last"], seen.last_hidden_state, atol=TOLERANCE, rtol=0)


def assert_same_tree(found):
    """The trees are those that the towers themselves make, in NumPy's float32."""
    tokens, side = jnp.zeros((1, 2), jnp.int32), found.image["image_size"]
    made = {
        "text_tower": jax.eval_shape(
            lambda: TextTower(**found.text).init(jax.random.key(0), tokens, tokens == 0)
        )["params"],
        "image_tower": jax.eval_shape(
            lambda: ImageTower(**found.image).init(jax.random.key(0), jnp.zeros((1, side, side, 3)))
        )["params"],
    }
    chex.assert_trees_all_equal_shapes_and_dtypes(found.params, made)
    assert all(type(leaf) is np.ndarray for leaf in jax.tree.leaves(found.params))


SIZES = {
    "quick_gelu": ({}, {}),
    "gelu": (
        {"hidden_act": "gelu", "num_hidden_layers": 1, "num_attention_heads": 1},
        {"hidden_act": "gelu", "image_size": 10, "patch_size": 5, "num_attention_heads": 8},
    ),
    "other sizes": (
        {"hidden_size": 40, "num_attention_heads": 5, "layer_norm_eps": 1e-2},
        {"hidden_size": 8, "num_attention_heads": 2, "patch_size": 12, "layer_norm_eps": 1e-2},
    ),
}


@pytest.mark.parametrize(("text", "vision"), SIZES.values(), ids=SIZES.keys())
def test_both_towers_are_those_of_torch(tmp_path, text, vision):
    model = clip_model(text_config(**text), vision_config(**vision))
    model.save_pretrained(tmp_path)
    found = weights.clip(tmp_path)
    assert_same_tree(found)
    assert_text_is_torch(model, found)
    assert_image_is_torch(model, found)
    np.testing.assert_allclose(found.logit_scale, model.logit_scale.exp().item(), rtol=1e-6)
    assert found.unused == found.missing == ()


def test_shards_give_the_same(tmp_path):
    model = clip_model()
    model.save_pretrained(tmp_path / "whole")
    model.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 2
    whole, shards = (weights.clip(tmp_path / name) for name in ("whole", "shards"))
    jax.tree.map(np.testing.assert_array_equal, shards.params, whole.params)
    assert (shards.text, shards.logit_scale) == (whole.text, whole.logit_scale)


def test_half_precision_on_disk_is_read_as_float32(tmp_path):
    model = clip_model().to(torch.bfloat16)
    model.save_pretrained(tmp_path)
    found = weights.clip(tmp_path)
    assert_same_tree(found)
    assert_text_is_torch(model.float(), found)


def test_text_tower_alone(tmp_path):
    config = transformers.CLIPTextConfig(**text_config(projection_dim=6))
    model = widened(transformers.CLIPTextModelWithProjection(config))
    model.save_pretrained(tmp_path)
    found = weights.clip(tmp_path)
    assert_text_is_torch(model, found)
    assert found.text["projection"] == 6 and set(found.params) == {"text_tower"}
    assert (found.image, found.logit_scale, found.missing) == (None, None, ("logit_scale",))


def test_image_tower_alone(tmp_path):
    config = transformers.CLIPVisionConfig(**vision_config(projection_dim=6))
    model = widened(transformers.CLIPVisionModelWithProjection(config))
    model.save_pretrained(tmp_path)
    found = weights.clip(tmp_path)
    assert_image_is_torch(model, found)
    assert found.image["projection"] == 6 and set(found.params) == {"image_tower"}
    assert (found.text, found.logit_scale, found.missing) == (None, None, ("logit_scale",))


def test_config_as_sparse_as_the_oldest_ones(tmp_path):
    """Values that config.json leaves out are those of transformers, as for PyTorch."""
    model = clip_model(text_config(hidden_size=512, num_attention_heads=8))
    model.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    for key in ("hidden_size", "num_attention_heads", "hidden_act", "layer_norm_eps"):
        del config["text_config"][key]
    path.write_text(json.dumps(config))
    assert_text_is_torch(model, weights.clip(tmp_path))


def test_pixels_are_normalised_as_the_folder_says(tmp_path):
    clip_model().save_pretrained(tmp_path)
    found = weights.clip(tmp_path)
    known = transformers.image_utils
    assert list(found.mean) == known.OPENAI_CLIP_MEAN and list(found.std) == known.OPENAI_CLIP_STD

    said = {"image_mean": [0.5, 0.25, 0.125], "image_std": [1, 2, 3]}
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": said}))
    found = weights.clip(tmp_path)
    assert (found.mean, found.std) == ((0.5, 0.25, 0.125), (1.0, 2.0, 3.0))

    older = tmp_path / "preprocessor_config.json"
    older.write_text(json.dumps(said | {"image_mean": [0.0, 0.0, 1.0]}))
    assert weights.clip(tmp_path).mean == (0.0, 0.0, 1.0)
    for wrong in ([0.5, 0.5], 0.5, ["a", "b", "c"]):
        older.write_text(json.dumps({"image_mean": wrong}))
        with pytest.raises(InputError, match=r"preprocessor_config.json: image_mean is .* three"):
            weights.clip(tmp_path)


def test_what_is_left_over_is_named(tmp_path, caplog):
    from safetensors.torch import load_file, save_file

    clip_model().save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    more = {"text_model.embeddings.position_ids": torch.arange(12), "extra.head": torch.ones(2)}
    save_file(load_file(file) | more, file)
    with caplog.at_level(logging.INFO, logger="absl"):
        found = weights.clip(tmp_path)
    assert found.unused == ("extra.head", "text_model.embeddings.position_ids")
    assert "not used: extra.head, text_model.embeddings.position_ids" in caplog.text


def test_config_that_is_no_square_or_no_config(tmp_path):
    clip_model().save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    good = path.read_text()
    for value, allowed in (([12, 16], False), ([12, 12], True)):
        config = json.loads(good)
        config["vision_config"]["image_size"] = value
        path.write_text(json.dumps(config))
        if allowed:
            assert weights.clip(tmp_path).image["image_size"] == 12
        else:
            with pytest.raises(InputError, match=r"image_size is \[12, 16\]; allowed: a square"):
                weights.clip(tmp_path)
    config["text_config"]["num_attention_heads"] = 3
    path.write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"config.json is no valid config: .*attention"):
        weights.clip(tmp_path)


def test_bert_is_not_clip(tmp_path):
    bert_model().save_pretrained(tmp_path)
    with pytest.raises(InputError, match="names the architecture BertModel; allowed: CLIPModel, "):
        weights.clip(tmp_path)
    # Without its projection, CLIP's text tower gives no feature to compare.
    config = transformers.CLIPTextConfig(**text_config())
    transformers.CLIPTextModel(config).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="names the architecture CLIPTextModel; allowed"):
        weights.clip(tmp_path)
