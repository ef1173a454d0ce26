"""Small models of transformers with random weights, in the folders that it saves them to.

Random weights are drawn wide, so that a wrong norm, activation or order is no small matter.
"""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

EOS = 49


def text_config(**changes):
    small = {
        "vocab_size": 50, "max_position_embeddings": 12, "hidden_size": 16,
        "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 40,
        "projection_dim": 10, "eos_token_id": EOS, "bos_token_id": 48, "pad_token_id": 1,
    }  # fmt: skip
    return small | changes


def vision_config(**changes):
    small = {
        "image_size": 12, "patch_size": 4, "hidden_size": 24, "num_hidden_layers": 2,
        "num_attention_heads": 3, "intermediate_size": 36, "projection_dim": 10,
    }  # fmt: skip
    return small | changes


def widened(model, seed=0):
    """Returns the model with every parameter drawn anew: nothing is zero, scales lie near 1."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in model.named_parameters():
            spread = 0.25 if value.ndim < 2 else value[0].numel() ** -0.5
            drawn = spread * torch.randn(value.shape, generator=generator)
            one = "norm" in name.lower() and name.endswith("weight")
            value.copy_(drawn + (1.0 if one or name == "logit_scale" else 0.0))
    return model.eval()


def clip_model(text=None, vision=None, seed=0):
    config = transformers.CLIPConfig(
        text_config=text or text_config(), vision_config=vision or vision_config(),
        projection_dim=10,
    )  # fmt: skip
    return widened(transformers.CLIPModel(config), seed)


def bert_model(**changes):
    small = {
        "vocab_size": 50, "max_position_embeddings": 12, "hidden_size": 16,
        "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 40,
    }  # fmt: skip
    return widened(transformers.BertModel(transformers.BertConfig(**small | changes)))


def speech_config(kind="wav2vec2", large=False, **changes):
    """Returns a small config of a kind of speech tower, arranged as the base or large ones are."""
    small = {
        "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 4,
        "intermediate_size": 40, "conv_dim": (6, 8, 10), "conv_kernel": (10, 3, 2),
        "conv_stride": (5, 2, 2), "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4,
        "feat_extract_norm": "layer" if large else "group", "do_stable_layer_norm": large,
    }  # fmt: skip
    if kind == "wavlm":
        small |= {"num_buckets": 12, "max_bucket_distance": 20}
    name = {"wav2vec2": "Wav2Vec2Config", "hubert": "HubertConfig", "wavlm": "WavLMConfig"}[kind]
    return getattr(transformers, name)(**small | changes)


def speech_model(kind="wav2vec2", large=False, seed=0, **changes):
    """Returns a small speech tower; the convolutions of large ones have a bias, but WavLM's."""
    bias = {"conv_bias": large and kind != "wavlm"}
    config = speech_config(kind, large, **bias | changes)
    name = {"wav2vec2": "Wav2Vec2Model", "hubert": "HubertModel", "wavlm": "WavLMModel"}[kind]
    return widened(getattr(transformers, name)(config), seed)


def clap_config(**changes):
    """Returns the config of a small tower of sound."""
    small = {
        "spec_size": 64, "num_mel_bins": 16, "patch_embeds_hidden_size": 12, "hidden_size": 24,
        "depths": [2, 2], "num_attention_heads": [2, 3], "window_size": 4, "projection_dim": 10,
    }  # fmt: skip
    return small | changes


def heard(model, seed=0):
    """Returns the model with statistics of the mel bands such as training leaves."""
    generator = torch.Generator().manual_seed(seed)
    norm = model.audio_model.audio_encoder.batch_norm
    norm.running_mean.copy_(10 * torch.randn(norm.running_mean.shape, generator=generator) - 40)
    norm.running_var.copy_(600 * torch.rand(norm.running_var.shape, generator=generator) + 50)
    return model


def clap_audio_model(seed=0, **changes):
    """Returns a small tower of CLAP alone."""
    config = transformers.ClapAudioConfig(**clap_config(**changes))
    return heard(widened(transformers.ClapAudioModelWithProjection(config), seed))


def sentences(length=9, lengths=(9, 6, 2)):
    """Returns tokens `[3, 9]`, each sentence ended by EOS and padded with 1, and the mask.

    The first has a hole: behind a causal mask, padding at the end alone could not be heard anyway.
    """
    tokens = np.random.default_rng(0).integers(2, 48, (len(lengths), length)).astype(np.int32)
    for row, count in zip(tokens, lengths, strict=True):
        row[count - 1], row[count:] = EOS, 1
    mask = np.arange(length) < np.array(lengths)[:, None]
    mask[0, 3] = False
    return tokens, mask
