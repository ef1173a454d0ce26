"""Folders of weights that cannot be used: each has its sentence."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from torch_towers import clip_model

from affectjax import weights
from affectjax.errors import InputError

FILE, INDEX = "model.safetensors", "model.safetensors.index.json"


@pytest.fixture
def whole(tmp_path):
    clip_model().save_pretrained(tmp_path)
    return tmp_path


@pytest.fixture
def shards(tmp_path):
    clip_model().save_pretrained(tmp_path, max_shard_size="20KB")
    return tmp_path


def refused(folder, match):
    with pytest.raises(InputError, match=match) as caught:
        weights.clip(folder)
    assert "\n" not in str(caught.value)


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_no_folder_and_no_config(whole):
    refused(whole / "none", "none is no Hugging Face folder: it has no config.json")
    (whole / "config.json").unlink()
    refused(whole, "is no Hugging Face folder: it has no config.json")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("{", "config.json cannot be read as JSON"),
        ("\xff", "config.json cannot be read as JSON"),
        ("[1]", "config.json holds no JSON object"),
        ("{}", "names the architecture None; allowed: CLIPModel"),
        ('{"architectures": "CLIPModel"}', "names the architecture None"),
        ('{"architectures": ["ViTModel", "CLIPModel"]}', "names the architecture ViTModel"),
    ],
)
def test_broken_config(whole, text, match):
    (whole / "config.json").write_text(text, encoding="latin-1")
    refused(whole, match)


def test_no_safetensors(whole):
    (whole / FILE).rename(whole / "pytorch_model.bin")
    refused(whole, "has no weights as safetensors: neither model.safetensors nor model.safe")


def test_a_single_file_of_another_name(whole):
    expected = weights.clip(whole)
    (whole / FILE).rename(whole / "open_clip.safetensors")
    got = weights.clip(whole)
    np.testing.assert_array_equal(
        got.params["text_tower"]["token"], expected.params["text_tower"]["token"]
    )
    (whole / "second.safetensors").write_bytes((whole / "open_clip.safetensors").read_bytes())
    refused(whole, "has 2 safetensors files and no model.safetensors.index.json")


def test_damaged_file(whole):
    content = (whole / FILE).read_bytes()
    for damaged in (content[:-100], content[:50], b"", b"not safetensors at all"):
        (whole / FILE).write_bytes(damaged)
        refused(whole, "model.safetensors is no whole safetensors file")


def test_missing_tensors_are_all_named(whole):
    tensors = load_file(whole / FILE)
    lost = [
        "logit_scale",
        "text_model.encoder.layers.2.mlp.fc1.bias",
        "vision_model.pre_layrnorm.weight",
    ]
    save_file({name: value for name, value in tensors.items() if name not in lost}, whole / FILE)
    with pytest.raises(InputError, match=r"lacks 3 tensors that config.json asks for") as caught:
        weights.clip(whole)
    assert all(name in str(caught.value) for name in lost)


def test_tensor_of_another_shape(whole):
    tensors = load_file(whole / FILE)
    tensors["text_projection.weight"] = tensors["text_projection.weight"].T.copy()
    save_file(tensors, whole / FILE)
    refused(
        whole,
        r"tensor text_projection.weight of .* has shape \(16, 10\), but config.json asks for "
        r"\(10, 16\)",
    )


def test_more_layers_than_there_are(whole):
    edit(whole / "config.json", lambda c: c["text_config"].update(num_hidden_layers=4))
    refused(whole, r"lacks 16 tensors .*text_model.encoder.layers.3.layer_norm1.weight")


@pytest.mark.parametrize("tower", ["text_config", "vision_config"])
@pytest.mark.parametrize(
    "changes", [{"hidden_size": 10**7, "num_attention_heads": 1}, {"num_hidden_layers": 10**7}]
)
def test_a_config_that_asks_for_more_than_any_memory_holds(whole, tower, changes):
    edit(whole / "config.json", lambda c: c[tower].update(changes))
    (whole / FILE).unlink()
    save_file({"other": np.zeros(1000, np.float32)}, whole / FILE)
    refused(whole, r"lacks \d+ tensors that config.json asks for")


def test_broken_index(shards):
    index = shards / INDEX
    good = json.loads(index.read_text())
    first = sorted(set(good["weight_map"].values()))[0]
    others = {k: v for k, v in good["weight_map"].items() if v != first}
    name = next(iter(others))

    index.write_text("{")
    refused(shards, "index.json cannot be read as JSON")
    for empty in ({}, {"weight_map": {}}, {"weight_map": [first]}):
        index.write_text(json.dumps(empty))
        refused(shards, "index.json has no weight_map of tensor names to files")
    for outside in ("../model.safetensors", "/model.safetensors", "", ".."):
        index.write_text(json.dumps({"weight_map": {name: outside}}))
        refused(shards, "which is not")
    index.write_text(json.dumps({"weight_map": good["weight_map"] | {name: first}}))
    refused(shards, rf"says that {name} is in {first}, but it is not")
    index.write_text(json.dumps(good))
    assert weights.clip(shards).missing == ()
    (shards / first).unlink()
    refused(shards, f"index.json names {first}, which is not there")
