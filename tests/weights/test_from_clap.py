"""CLAP's audio tower against PyTorch's, from the folders that transformers saves."""

import json
import logging

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy_mcr import quick
from torch_towers import (
    clap_audio_model,
    clap_config,
    clip_model,
    heard,
    torch,
    transformers,
    widened,
)

from affectjax import weights
from affectjax.errors import InputError
from affectjax.models.clap import AudioTower
from affectjax.ops import mel
from affectjax.ops.mel import FrontEnd

# Largest difference that float32 may make, as SPEC asks.
TOLERANCE = 1e-4


def whole_model(**changes):
    """Returns a ClapModel with both towers."""
    text = {
        "vocab_size": 50, "max_position_embeddings": 12, "hidden_size": 16,
        "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 40,
    }  # fmt: skip
    config = transformers.ClapConfig(
        text_config=text, audio_config=clap_config(**changes), projection_dim=10
    )
    return heard(widened(transformers.ClapModel(config)))


def spectrograms(frames, mels, batch=3):
    rng = np.random.default_rng(0)
    return (-40 + 25 * rng.standard_normal((batch, frames, mels))).astype(np.float32)


def assert_is_torch(model, found, frames=256, batch=3):
    """The same feature, pooled and last tokens for spectrograms of so many frames."""
    x = spectrograms(frames, found.audio["mels"], batch)
    # None of the sounds is longer than the tower; without fusion nobody asks.
    longer = torch.zeros((batch, 1), dtype=torch.bool)
    with torch.no_grad():
        seen = model.audio_model(torch.tensor(x)[:, None], is_longer=longer)
        expected = model.audio_projection(seen.pooler_output).numpy()
    got, out = quick(AudioTower(**found.audio).apply)({"params": found.params["audio_tower"]}, x)
    np.testing.assert_allclose(got, expected, atol=TOLERANCE, rtol=0)
    np.testing.assert_allclose(out["pooled"], seen.pooler_output, atol=TOLERANCE, rtol=0)
    # PyTorch's are [B, D, F, T'].
    last = seen.last_hidden_state.numpy().transpose(0, 3, 2, 1)
    np.testing.assert_allclose(out["last"], last, atol=TOLERANCE, rtol=0)
    assert np.abs(expected[0] - expected[1]).max() > 100 * TOLERANCE


def assert_same_tree(found):
    """The tree is that which the tower itself makes, in NumPy's float32."""
    x = jnp.zeros((1, 9, found.audio["mels"]))
    made = jax.eval_shape(lambda: AudioTower(**found.audio).init(jax.random.key(0), x))
    chex.assert_trees_all_equal_shapes_and_dtypes(found.params, {"audio_tower": made["params"]})
    assert all(type(leaf) is np.ndarray for leaf in jax.tree.leaves(found.params))


SIZES = {
    "shifted windows": {},
    "one window": {"window_size": 16, "depths": [2], "num_attention_heads": [3],
                   "hidden_size": 12, "num_mel_bins": 4},
    "the last stage one window": {"window_size": 8, "hidden_act": "relu"},
    "three stages": {"depths": [1, 3, 2], "num_attention_heads": [1, 2, 4], "hidden_size": 48,
                     "projection_hidden_act": "gelu", "mlp_ratio": 2.5, "layer_norm_eps": 1e-2},
    "other patches": {"spec_size": 32, "patch_size": 2, "patch_stride": [2, 2]},
}  # fmt: skip


@pytest.mark.parametrize("changes", SIZES.values(), ids=SIZES.keys())
def test_tower_is_that_of_torch(tmp_path, changes):
    model = clap_audio_model(**changes)
    model.save_pretrained(tmp_path)
    found = weights.clap(tmp_path)
    assert_same_tree(found)
    size = found.audio["spec_size"]
    assert_is_torch(model, found, size * size // found.audio["mels"])
    assert found.unused == ()


@pytest.mark.parametrize("frames", [1, 2, 7, 200, 255])
def test_fewer_frames_are_stretched_as_by_torch(tmp_path, frames):
    model = clap_audio_model(depths=[2], num_attention_heads=[2], hidden_size=12)
    model.save_pretrained(tmp_path)
    assert_is_torch(model, weights.clap(tmp_path), frames)


@pytest.mark.slow
def test_published_size_is_that_of_torch(tmp_path):
    model = heard(
        widened(transformers.ClapAudioModelWithProjection(transformers.ClapAudioConfig()))
    )
    model.save_pretrained(tmp_path)
    found = weights.clap(tmp_path)
    assert_same_tree(found)
    assert_is_torch(model, found, frames=1001, batch=2)
    assert_is_torch(model, found, frames=1024, batch=2)


def test_published_size_has_as_many_parameters_as_torchs():
    config = transformers.ClapAudioConfig()
    with torch.device("meta"):
        model = transformers.ClapAudioModelWithProjection(config)
    tower = AudioTower(256, 64, 4, 96, (2, 2, 6, 2), (4, 8, 16, 32), 8, 512)
    made = jax.eval_shape(lambda: tower.init(jax.random.key(0), jnp.zeros((1, 1001, 64))))
    ours = sum(leaf.size for leaf in jax.tree.leaves(made))
    assert ours == sum(value.numel() for value in model.parameters())


def test_both_towers_in_a_folder(tmp_path, caplog):
    """The text tower is known and left alone; what else is left over is named."""
    from safetensors.torch import load_file, save_file

    model = whole_model()
    model.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    more = {"audio_model.extra.weight": torch.ones(2), "text_model.extra": torch.ones(2)}
    save_file(load_file(file) | more, file)
    with caplog.at_level(logging.INFO, logger="absl"):
        found = weights.clap(tmp_path)
    assert_same_tree(found)
    assert_is_torch(model, found)
    assert found.unused == ("audio_model.extra.weight",)
    assert "audio_model.extra.weight" in caplog.text


def test_fusion_has_no_part_in_sounds_that_fit(tmp_path):
    """Of a folder with fusion; PyTorch is told that no sound is longer than the tower."""
    model = whole_model(enable_fusion=True)
    model.save_pretrained(tmp_path)
    found = weights.clap(tmp_path)
    assert_is_torch(model, found)
    assert found.unused == () and found.front["scale"] == "htk"


def test_shards_give_the_same(tmp_path):
    model = clap_audio_model()
    model.save_pretrained(tmp_path / "whole")
    model.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 2
    whole, shards = (weights.clap(tmp_path / name) for name in ("whole", "shards"))
    jax.tree.map(np.testing.assert_array_equal, shards.params, whole.params)
    assert (shards.audio, shards.front) == (whole.audio, whole.front)
    assert weights.checksum(shards) == weights.checksum(whole)


def test_half_precision_on_disk_is_read_as_float32(tmp_path):
    model = clap_audio_model().to(torch.bfloat16)
    model.save_pretrained(tmp_path)
    found = weights.clap(tmp_path)
    assert_same_tree(found)
    assert_is_torch(model.float(), found)


def test_config_that_leaves_out_what_transformers_knows(tmp_path):
    model = clap_audio_model(window_size=8)
    model.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    for key in ("window_size", "hidden_act", "mlp_ratio", "layer_norm_eps", "patch_size"):
        del config[key]
    path.write_text(json.dumps(config))
    assert_is_torch(model, weights.clap(tmp_path))


# ---- what the tower hears -----------------------------------------------------------------------


@pytest.mark.parametrize("truncation", ["rand_trunc", "fusion"])
@pytest.mark.filterwarnings("ignore:At least one mel filter")
def test_front_end_is_that_of_the_folder(tmp_path, truncation):
    """From a waveform to the feature, by PyTorch and transformers and by us."""
    model = whole_model(spec_size=128)
    extractor = transformers.ClapFeatureExtractor(
        feature_size=16, hop_length=240, fft_window_size=512, max_length_s=2, frequency_min=50,
        frequency_max=7000, sampling_rate=24000, truncation=truncation,
    )  # fmt: skip
    model.save_pretrained(tmp_path)
    extractor.save_pretrained(tmp_path)
    found = weights.clap(tmp_path)
    x = (0.1 * np.random.default_rng(0).standard_normal((2, 30000))).astype(np.float32)
    given = extractor(list(x.astype(np.float64)), sampling_rate=24000, return_tensors="pt")
    with torch.no_grad():
        # A fused spectrogram comes four times, all the same where the sound is short.
        first = given["input_features"][:, :1].float()
        seen = model.audio_projection(model.audio_model(first).pooler_output)
    tower, front = AudioTower(**found.audio), FrontEnd(**found.front)
    run = quick(lambda p, x: tower.apply(p, mel.spectrogram(x, x == x, 24000, front))[0])
    got = run({"params": found.params["audio_tower"]}, x)
    np.testing.assert_allclose(got, seen, atol=TOLERANCE, rtol=0)


def test_front_end_where_the_folder_says_little(tmp_path):
    clap_audio_model(num_mel_bins=64, spec_size=128).save_pretrained(tmp_path)
    (tmp_path / "processor_config.json").unlink(missing_ok=True)
    usual = {
        "rate": 48000, "frame": 1024, "hop": 480, "fft": 1024, "mels": 64, "low": 0.0,
        "high": 14000.0, "scale": "slaney", "edge": "reflect", "length": 480000,
    }  # fmt: skip
    assert weights.clap(tmp_path).front == usual
    said = {"feature_extractor": {"frequency_min": 50, "max_length_s": 5, "top_db": None}}
    (tmp_path / "processor_config.json").write_text(json.dumps(said))
    assert weights.clap(tmp_path).front == usual | {"low": 50.0, "length": 240000}
    older = tmp_path / "preprocessor_config.json"
    older.write_text(json.dumps({"truncation": "fusion", "frequency_max": 12000.5}))
    assert weights.clap(tmp_path).front == usual | {"scale": "htk", "high": 12000.5}


def test_front_end_that_is_not_ours(tmp_path):
    clap_audio_model().save_pretrained(tmp_path)
    file = tmp_path / "preprocessor_config.json"
    for said, message in (
        ({"padding": "repeat"}, "padding is repeat; allowed: repeatpad"),
        ({"top_db": 80}, "top_db is 80; allowed: None"),
        ({"truncation": "first"}, "truncation is first; allowed: rand_trunc, fusion"),
        ({"feature_size": 64}, "feature_size is 64, but config.json has 16 mel bands"),
        ({"hop_length": "a"}, "hop_length is a; allowed: a number"),
        ({"hop_length": 0}, "hop is 0; allowed: one or more"),
        ({"frequency_max": 30000}, "bands from 0.0 to 30000.0 Hz"),
        ({"feature_extractor": 3}, "feature_extractor is 3; allowed: an object"),
    ):
        file.write_text(json.dumps(said))
        with pytest.raises(InputError, match=rf"preprocessor_config\.json: {message}"):
            weights.clap(tmp_path)


# ---- what is refused ----------------------------------------------------------------------------


def test_config_of_a_tower_that_is_not_ours(tmp_path):
    clap_audio_model().save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    good = json.loads(path.read_text())
    for said, message in (
        ({"patch_stride": [2, 4]}, r"patch_stride \[2, 4\]; allowed: squares side by side"),
        ({"patch_size": 8}, "patch_size is 8 and patch_stride .* squares side by side"),
        ({"qkv_bias": False}, "qkv_bias is False; allowed: True"),
        ({"flatten_patch_embeds": False}, "flatten_patch_embeds is False; allowed: True"),
        ({"enable_patch_layer_norm": False}, "enable_patch_layer_norm is False; allowed: True"),
        ({"patch_embed_input_channels": 3}, "patch_embed_input_channels is 3; allowed: 1"),
        ({"enable_fusion": True, "fusion_type": "channel_map"}, "fusion_type is channel_map"),
    ):
        path.write_text(json.dumps(good | said))
        with pytest.raises(InputError, match=rf"config\.json: .*{message}"):
            weights.clap(tmp_path)
    path.write_text(json.dumps(good | {"window_size": 8}))
    with pytest.raises(InputError, match=r"relative_position_bias_table .* asks for \(225, 2\)"):
        weights.clap(tmp_path)


def test_missing_tensors_are_named(tmp_path):
    from safetensors.torch import load_file, save_file

    clap_audio_model().save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    held = load_file(file)
    names = ("audio_model.audio_encoder.batch_norm.running_var", "audio_projection.linear2.bias")
    for name in names:
        del held[name]
    save_file(held, file)
    with pytest.raises(InputError, match=f"lacks 2 tensors .*: {', '.join(names)}"):
        weights.clap(tmp_path)


def test_other_architectures(tmp_path):
    clip_model().save_pretrained(tmp_path / "clip")
    with pytest.raises(InputError, match="architecture CLIPModel; allowed: ClapModel, ClapAudio"):
        weights.clap(tmp_path / "clip")
    # Without its projection, the tower gives no feature to compare.
    bare = transformers.ClapAudioModel(transformers.ClapAudioConfig(**clap_config()))
    bare.save_pretrained(tmp_path / "bare")
    with pytest.raises(InputError, match="names the architecture ClapAudioModel; allowed"):
        weights.clap(tmp_path / "bare")
