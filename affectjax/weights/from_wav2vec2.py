"""wav2vec 2.0, HuBERT or WavLM from a local Hugging Face folder.

Letters: D width, H heads.
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from einops import rearrange

from affectjax.errors import InputError
from affectjax.modalities import SAMPLE_RATE
from affectjax.models.wav2vec2 import GATES
from affectjax.runtime import hub
from affectjax.weights.folder import (
    Tensors,
    Tree,
    read_config,
    read_extractor,
    read_json,
    stacked,
)

# By `model_type` in config.json, the class of its config in transformers.
CONFIGS = {"wav2vec2": "Wav2Vec2Config", "hubert": "HubertConfig", "wavlm": "WavLMConfig"}
PLACES = "encoder.pos_conv_embed.conv"
# Magnitude and direction of a kernel with weight norm, as PyTorch names them now and did before.
NEW = f"{PLACES}.parametrizations.weight.original0", f"{PLACES}.parametrizations.weight.original1"
OLD = f"{PLACES}.weight_g", f"{PLACES}.weight_v"


@dataclasses.dataclass(frozen=True)
class Wav2Vec2Weights:
    """What a folder with the weights of a speech tower holds.

    Attributes:
      args: arguments of `models.wav2vec2.SpeechTower`.
      params: its parameters, float32 arrays of NumPy.
      unused: names of the tensors that no parameter was made of: heads, the vector for masked
        frames.
    """

    args: dict[str, Any]
    params: Tree
    unused: tuple[str, ...]


def wav2vec2(folder: str | Path) -> Wav2Vec2Weights:
    """Returns wav2vec 2.0, HuBERT or WavLM without heads, from a local Hugging Face folder.

    Args:
      folder: config.json, whose `model_type` is one of `CONFIGS`, and safetensors, with any heads;
        preprocessor_config.json if there is one.

    Raises:
      InputError: it is another model, a file or a tensor is missing or damaged, or the config asks
        for what the tower does not have.
    """
    import transformers  # Here, because it takes seconds.

    folder = hub.local(folder)
    if not (folder / "config.json").is_file():
        raise InputError(f"{folder} is no Hugging Face folder: it has no config.json")
    kind = read_json(folder / "config.json").get("model_type")
    if kind not in CONFIGS:
        raise InputError(
            f"{folder / 'config.json'}: model_type is {kind!r}; allowed: {', '.join(CONFIGS)}"
        )
    config = read_config(folder, getattr(transformers, CONFIGS[kind]))
    args = arguments(folder, config) | {"normalise": _normalise(folder)}
    tensors = Tensors(folder, prefix=f"{kind}.")
    params = _params(tensors, args)
    return Wav2Vec2Weights(args, params, tensors.close())


def arguments(folder: str | Path, config: Any) -> dict[str, Any]:
    """Returns the arguments of the tower that a config of transformers asks for.

    Args:
      folder: of the config, for the message.
      config: of one of `CONFIGS`.

    Raises:
      InputError: it asks for what the tower does not have.
    """
    path = Path(folder, "config.json")
    for key, allowed in (
        ("add_adapter", False),
        ("adapter_attn_dim", None),
        ("conv_pos_batch_norm", False),
    ):
        value = getattr(config, key, allowed)
        if value != allowed:
            raise InputError(f"{path}: {key} is {value}; allowed: {allowed}")
    gated = config.model_type == "wavlm"
    return {
        "width": config.hidden_size,
        "layers": config.num_hidden_layers,
        "heads": config.num_attention_heads,
        "hidden": config.intermediate_size,
        "channels": tuple(config.conv_dim),
        "kernels": tuple(config.conv_kernel),
        "strides": tuple(config.conv_stride),
        "conv_norm": config.feat_extract_norm,
        "conv_bias": config.conv_bias,
        "conv_activation": config.feat_extract_activation,
        "projection_norm": getattr(config, "feat_proj_layer_norm", True),
        "position_size": config.num_conv_pos_embeddings,
        "position_groups": config.num_conv_pos_embedding_groups,
        "norm_first": config.do_stable_layer_norm,
        "buckets": config.num_buckets if gated else 0,
        "distance": config.max_bucket_distance if gated else 0,
        "activation": config.hidden_act,
        "epsilon": config.layer_norm_eps,
    }


def _normalise(folder: Path) -> bool:
    """Returns whether sounds are normalised: yes where the folder says nothing, as by PyTorch's."""
    path, content = read_extractor(folder)
    rate, normalise = content.get("sampling_rate", SAMPLE_RATE), content.get("do_normalize", True)
    if rate != SAMPLE_RATE:
        raise InputError(f"{path}: sampling_rate is {rate}; allowed: {SAMPLE_RATE}")
    if not isinstance(normalise, bool):
        raise InputError(f"{path}: do_normalize is {normalise}; allowed: true or false")
    return normalise


def _params(tensors: Tensors, args: dict[str, Any]) -> Tree:
    """Returns the parameters of `models.wav2vec2.SpeechTower`."""
    width = args["width"]
    found = _convolutions(tensors, args)
    last = args["channels"][-1]
    if args["projection_norm"]:
        found["projection_norm"] = tensors.norm("feature_projection.layer_norm", last)
    found["project"] = tensors.linear("feature_projection.projection", last, width)
    found["position"] = _position(tensors, args)
    found["position_bias"] = tensors.take(f"{PLACES}.bias", width)
    found["encoder_norm"] = tensors.norm("encoder.layer_norm", width)
    if args["buckets"]:
        table = "encoder.layers.0.attention.rel_attn_embed.weight"
        found["distance"] = tensors.take(table, args["buckets"], args["heads"])
    blocks = [_block(tensors, f"encoder.layers.{i}", args) for i in range(args["layers"])]
    return found | {"blocks": stacked(blocks)}


def _convolutions(tensors: Tensors, args: dict[str, Any]) -> Tree:
    """Returns the parameters of the convolutions over samples and of their norms."""
    found, before = {}, 1
    for i, (channels, size) in enumerate(zip(args["channels"], args["kernels"], strict=True)):
        at = f"feature_extractor.conv_layers.{i}"
        kernel = tensors.take(f"{at}.conv.weight", channels, before, size)
        found[f"conv_{i}"] = rearrange(kernel, "f d k -> k d f").copy()
        if args["conv_bias"]:
            found[f"conv_{i}_bias"] = tensors.take(f"{at}.conv.bias", channels)
        if args["conv_norm"] == "layer" or i == 0:
            found[f"conv_{i}_norm"] = tensors.norm(f"{at}.layer_norm", channels)
        before = channels
    return found


def _position(tensors: Tensors, args: dict[str, Any]) -> np.ndarray:
    """Returns the kernel of positions, `[frames, D / groups, D]`: its weight norm is undone."""
    width, size = args["width"], args["position_size"]
    magnitude, direction = OLD if OLD[0] in tensors else NEW
    kernel = tensors.take(direction, width, width // args["position_groups"], size)
    length = np.sqrt((kernel**2).sum((0, 1), keepdims=True))
    # A direction that is missing has no length; it is named with all that lack.
    kernel = tensors.take(magnitude, 1, 1, size) * kernel / np.where(length > 0, length, 1)
    return rearrange(kernel, "f d k -> k d f").copy()


def _block(tensors: Tensors, at: str, args: dict[str, Any]) -> Tree:
    """Returns the parameters of a layer, of the tensors whose names begin with `at`."""
    width, heads, hidden = args["width"], args["heads"], args["hidden"]
    names = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "out": "out_proj"}
    found = {
        ours: tensors.linear(f"{at}.attention.{theirs}", width, width)
        for ours, theirs in names.items()
    }
    if args["buckets"]:
        scale = tensors.take(f"{at}.attention.gru_rel_pos_const", 1, heads, 1, 1)
        found["gate"] = tensors.linear(f"{at}.attention.gru_rel_pos_linear", width // heads, GATES)
        found["gate_scale"] = scale.reshape(heads)
    return found | {
        "attention_norm": tensors.norm(f"{at}.layer_norm", width),
        "up": tensors.linear(f"{at}.feed_forward.intermediate_dense", width, hidden),
        "down": tensors.linear(f"{at}.feed_forward.output_dense", hidden, width),
        "feed_norm": tensors.norm(f"{at}.final_layer_norm", width),
    }
