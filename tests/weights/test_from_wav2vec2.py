"""wav2vec 2.0, HuBERT and WavLM against PyTorch's, from the folders that transformers saves.

Letters: B examples, S samples, T frames.
"""

import json
import logging

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy_mcr import quick
from torch_towers import clip_model, speech_config, speech_model, torch, transformers, widened

from affectjax import weights
from affectjax.errors import InputError
from affectjax.models import wav2vec2
from affectjax.models.wav2vec2 import SpeechTower, TimeNorm, buckets

# Largest difference that float32 may make, as SPEC asks.
TOLERANCE = 1e-4
# A whole buffer, a part of it, and one frame of 30 samples.
LENGTHS = np.array([1000, 613, 30])
KINDS = ("wav2vec2", "hubert", "wavlm")
BOTH = [(kind, large) for kind in KINDS for large in (False, True)]
NAMES = [f"{kind} {'large' if large else 'base'}" for kind, large in BOTH]


def sounds(lengths=LENGTHS):
    """Returns sounds `[3, 1000]` with junk behind their ends, and the mask."""
    x = np.random.default_rng(0).standard_normal((len(lengths), max(lengths))).astype(np.float32)
    return 0.1 * x + 0.05, np.arange(max(lengths)) < lengths[:, None]


def saved(folder, kind="wav2vec2", large=False, normalise=False, **changes):
    """Returns a small model of PyTorch, and what its folder holds."""
    model = speech_model(kind, large, **changes)
    model.save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(do_normalize=normalise).save_pretrained(folder)
    return model, weights.wav2vec2(folder)


def heard(found, x, mask):
    """Returns what our tower gives."""
    return quick(SpeechTower(**found.args).apply)({"params": found.params}, x, mask)


def assert_is_torch(model, found, lengths=LENGTHS):
    """Each sound of a padded batch has the features that PyTorch's gives it on its own."""
    x, mask = sounds(lengths)
    mean, out = heard(found, np.where(mask, x, 1e3).astype(np.float32), mask)
    for i, length in enumerate(lengths):
        with torch.no_grad():
            seen = model(torch.tensor(x[i : i + 1, :length]), output_hidden_states=True)
        last, frames = seen.last_hidden_state[0].numpy(), out["mask"][i].sum()
        assert len(last) == frames and not out["mask"][i, frames:].any()
        np.testing.assert_allclose(out["last"][i, :frames], last, atol=TOLERANCE, rtol=0)
        np.testing.assert_allclose(mean[i], last.mean(0), atol=TOLERANCE, rtol=0)
        # Of the last, PyTorch's lists what is not normed yet.
        states = [state[0].mean(0).numpy() for state in seen.hidden_states[:-1]] + [last.mean(0)]
        np.testing.assert_allclose(out["means"][i], states, atol=TOLERANCE, rtol=0)
    assert np.abs(mean[0] - mean[1]).max() > 100 * TOLERANCE


def assert_same_tree(found):
    """The tree is that which the tower itself makes, in NumPy's float32."""
    given = jnp.zeros((1, 400)), jnp.ones((1, 400), bool)
    made = jax.eval_shape(lambda: SpeechTower(**found.args).init(jax.random.key(0), *given))
    chex.assert_trees_all_equal_shapes_and_dtypes(found.params, made["params"])
    assert all(type(leaf) is np.ndarray for leaf in jax.tree.leaves(found.params))


# ---- the tower ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "large"), BOTH, ids=NAMES)
def test_each_sound_is_that_of_torch(tmp_path, kind, large):
    model, found = saved(tmp_path, kind, large)
    assert_same_tree(found)
    assert_is_torch(model, found)
    assert found.unused == ("masked_spec_embed",)


class CountsPadding(TimeNorm):
    """The norm over time as PyTorch's has it, over the frames of the padding too."""

    def __call__(self, x, mask):
        return super().__call__(x, jnp.ones_like(mask))


@pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask")
@pytest.mark.parametrize(("kind", "large"), BOTH, ids=NAMES)
def test_a_padded_batch_with_its_mask_is_that_of_torch(tmp_path, monkeypatch, kind, large):
    """Base ones count the padding in the norm over time, and in nothing else: here ours do too."""
    monkeypatch.setattr(wav2vec2, "TimeNorm", CountsPadding)
    model, found = saved(tmp_path, kind, large)
    x, mask = sounds()
    with torch.no_grad():
        given = torch.tensor(np.where(mask, x, 0)), torch.tensor(mask).long()
        expected = model(*given).last_hidden_state.numpy()
    out = heard(found, x, mask)[1]
    there = out["mask"][..., None]
    assert there.sum() == 49 + 30 + 1
    np.testing.assert_allclose(out["last"], np.where(there, expected, 0), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_padded_batch_without_a_mask_is_that_of_torch(tmp_path, kind):
    """Of the models with a norm over time, which transformers says to give zeros and no mask."""
    model, found = saved(tmp_path, kind)
    x, mask = sounds()
    x = np.where(mask, x, 0)
    with torch.no_grad():
        expected = model(torch.tensor(x)).last_hidden_state.numpy()
    out = heard(found, x, np.ones_like(mask))[1]
    np.testing.assert_allclose(out["last"], expected, atol=TOLERANCE, rtol=0)


CHANGES = {
    "a layer norm between convolutions, norms after the sums": ("wav2vec2", {
        "feat_extract_norm": "layer", "conv_bias": True}),
    "a norm over time and a bias, norms first": ("hubert", {
        "conv_bias": True, "do_stable_layer_norm": True}),
    "no norm before the projection": ("hubert", {"feat_proj_layer_norm": False}),
    "an odd kernel of positions": ("wav2vec2", {
        "num_conv_pos_embeddings": 7, "num_conv_pos_embedding_groups": 2}),
    "more places than frames": ("wavlm", {"num_conv_pos_embeddings": 128}),
    "other activations and epsilon": ("wav2vec2", {
        "hidden_act": "relu", "feat_extract_activation": "gelu_new", "layer_norm_eps": 1e-2}),
    "other convolutions": ("hubert", {
        "conv_dim": (8,), "conv_kernel": (6,), "conv_stride": (7,)}),
    "other distances": ("wavlm", {"num_buckets": 32, "max_bucket_distance": 45}),
}  # fmt: skip


@pytest.mark.parametrize(("kind", "changes"), CHANGES.values(), ids=CHANGES.keys())
def test_other_towers_are_those_of_torch(tmp_path, kind, changes):
    model, found = saved(tmp_path, kind, **changes)
    assert_same_tree(found)
    assert_is_torch(model, found)


def test_buckets_of_distances_are_those_of_torch():
    model = speech_model("wavlm", num_buckets=320, max_bucket_distance=800)
    attention = model.encoder.layers[0].attention
    apart = torch.arange(1500)[None] - torch.arange(1500)[:, None]
    expected = attention._relative_positions_bucket(apart).numpy()
    np.testing.assert_array_equal(buckets(1500, 320, 800), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_published_sizes_have_as_many_parameters_as_torchs(kind):
    """But for the vector of masked frames, and for magnitudes of the kernel of positions."""
    for large in (False, True):
        sizes = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16,
                 "intermediate_size": 4096, "feat_extract_norm": "layer", "conv_bias": True,
                 "do_stable_layer_norm": True} if large else {}  # fmt: skip
        config = type(speech_config(kind))(**sizes)
        with torch.device("meta"):
            model = getattr(transformers, type(config).__name__[:-6] + "Model")(config)
        tower = SpeechTower(**weights.from_wav2vec2.arguments("", config))
        given = jnp.zeros((1, 16000)), jnp.ones((1, 16000), bool)
        made = jax.eval_shape(lambda t=tower, g=given: t.init(jax.random.key(0), *g))
        ours = sum(leaf.size for leaf in jax.tree.leaves(made))
        theirs = sum(value.numel() for value in model.parameters())
        assert ours == theirs - config.hidden_size - 128


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["wav2vec2", "wavlm"])
def test_published_size_is_that_of_torch(tmp_path, kind):
    config = type(speech_config(kind))()
    model = widened(getattr(transformers, type(config).__name__[:-6] + "Model")(config))
    model.save_pretrained(tmp_path)
    transformers.Wav2Vec2FeatureExtractor(do_normalize=False).save_pretrained(tmp_path)
    found = weights.wav2vec2(tmp_path)
    assert_same_tree(found)
    assert_is_torch(model, found, np.array([24000, 9000]))


# ---- the folder ---------------------------------------------------------------------------------


@pytest.mark.parametrize("normalise", [True, False])
def test_sounds_are_normalised_as_the_folder_says(tmp_path, normalise):
    """From waveforms to features, by transformers and by us."""
    model, found = saved(tmp_path, large=True, normalise=normalise)
    extractor = transformers.Wav2Vec2FeatureExtractor.from_pretrained(tmp_path)
    x, mask = sounds()
    given = extractor(
        [row[:n] for row, n in zip(x, LENGTHS, strict=True)], sampling_rate=16000, padding=True,
        return_attention_mask=True, return_tensors="pt",
    )  # fmt: skip
    with torch.no_grad():
        expected = model(given["input_values"], given["attention_mask"]).last_hidden_state.numpy()
    assert found.args["normalise"] is normalise
    out = heard(found, x, mask)[1]
    there = out["mask"][..., None]
    np.testing.assert_allclose(out["last"], np.where(there, expected, 0), atol=TOLERANCE, rtol=0)


def test_what_a_folder_says_of_sounds(tmp_path):
    speech_model().save_pretrained(tmp_path)
    older, newer = (tmp_path / f"{name}_config.json" for name in ("preprocessor", "processor"))
    assert weights.wav2vec2(tmp_path).args["normalise"] is True
    newer.write_text(json.dumps({"feature_extractor": {"do_normalize": False}}))
    assert weights.wav2vec2(tmp_path).args["normalise"] is False
    for said, message in (
        ({"sampling_rate": 8000}, "sampling_rate is 8000; allowed: 16000"),
        ({"do_normalize": "yes"}, "do_normalize is yes; allowed: true or false"),
        ({"feature_extractor": 3}, "feature_extractor is 3; allowed: an object"),
    ):
        older.write_text(json.dumps(said))
        with pytest.raises(InputError, match=rf"preprocessor_config\.json: {message}"):
            weights.wav2vec2(tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_names_with_a_prefix_and_heads(tmp_path, kind, caplog):
    """Of a model that classifies sounds; its heads are named, and not used."""
    config = speech_config(kind, classifier_proj_size=5)
    name = type(config).__name__[:-6] + "ForSequenceClassification"
    model = widened(getattr(transformers, name)(config))
    model.save_pretrained(tmp_path)
    transformers.Wav2Vec2FeatureExtractor(do_normalize=False).save_pretrained(tmp_path)
    with caplog.at_level(logging.INFO, logger="absl"):
        found = weights.wav2vec2(tmp_path)
    assert_is_torch(getattr(model, kind), found)
    heads = ("classifier.bias", "classifier.weight", "masked_spec_embed", "projector.bias",
             "projector.weight")  # fmt: skip
    assert found.unused == heads and "projector.weight" in caplog.text


def renamed(folder, change):
    """Writes the tensors of a folder again, as `change` of their dictionary leaves them."""
    from safetensors.torch import load_file, save_file

    held = load_file(folder / "model.safetensors")
    save_file(change(held), folder / "model.safetensors")


def test_older_names_of_the_weight_norm(tmp_path):
    """What transformers saves has the one or the other; both are read."""
    pairs = (
        ("parametrizations.weight.original0", "weight_g"),
        ("parametrizations.weight.original1", "weight_v"),
    )
    model = speech_model("wavlm", large=True)
    found = {}
    for name, turn in (("old", 1), ("new", -1)):
        folder = tmp_path / name
        model.save_pretrained(folder)
        transformers.Wav2Vec2FeatureExtractor(do_normalize=False).save_pretrained(folder)

        def change(held, turn=turn):
            for before, after in (pair[::turn] for pair in pairs):
                held = {key.replace(before, after): value for key, value in held.items()}
            return held

        renamed(folder, change)
        found[name] = weights.wav2vec2(folder)
        assert_is_torch(model, found[name])
    assert weights.checksum(found["old"]) == weights.checksum(found["new"])


def test_missing_tensors_are_named(tmp_path):
    saved(tmp_path, "wavlm")
    names = (
        "encoder.pos_conv_embed.conv.parametrizations.weight.original1",
        "encoder.layers.0.attention.rel_attn_embed.weight",
        "encoder.layers.2.attention.gru_rel_pos_const",
    )
    renamed(tmp_path, lambda held: {key: held[key] for key in held if key not in names})
    with pytest.raises(InputError, match=f"lacks 3 tensors .*: {', '.join(names)}"):
        weights.wav2vec2(tmp_path)


def test_shards_and_half_precision(tmp_path):
    model, whole = saved(tmp_path / "whole", "hubert")
    model.save_pretrained(tmp_path / "shards", max_shard_size="5KB")
    transformers.Wav2Vec2FeatureExtractor(do_normalize=False).save_pretrained(tmp_path / "shards")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 2
    shards = weights.wav2vec2(tmp_path / "shards")
    assert weights.checksum(shards) == weights.checksum(whole)
    rough = model.to(torch.bfloat16)
    rough.save_pretrained(tmp_path / "whole")
    half = weights.wav2vec2(tmp_path / "whole")
    assert_same_tree(half)
    assert_is_torch(rough.float(), half)


def test_what_is_not_ours_is_refused(tmp_path):
    clip_model().save_pretrained(tmp_path / "clip")
    with pytest.raises(InputError, match="model_type is 'clip'; allowed: wav2vec2, hubert, wavlm"):
        weights.wav2vec2(tmp_path / "clip")
    with pytest.raises(InputError, match=r"is no Hugging Face folder: it has no config\.json"):
        weights.wav2vec2(tmp_path)
    speech_model().save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    good = json.loads(path.read_text())
    for said, message in (
        ({"add_adapter": True}, "add_adapter is True; allowed: False"),
        ({"adapter_attn_dim": 16}, "adapter_attn_dim is 16; allowed: None"),
        (
            {"model_type": "hubert", "conv_pos_batch_norm": True},
            "conv_pos_batch_norm is True; allowed: False",
        ),
        ({"conv_dim": [6, 8]}, "is no valid config: "),
    ):
        path.write_text(json.dumps(good | said))
        with pytest.raises(InputError, match=rf"config\.json:? .*{message}"):
            weights.wav2vec2(tmp_path)
    path.write_text(json.dumps(good | {"intermediate_size": 41}))
    with pytest.raises(InputError, match=r"intermediate_dense.weight .* asks for \(41, 16\)"):
        weights.wav2vec2(tmp_path)
