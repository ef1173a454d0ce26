"""CLAP's audio tower from a local Hugging Face folder.

Letters: D width of a stage.
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from einops import rearrange

from affectjax.errors import InputError
from affectjax.ops.mel import FrontEnd
from affectjax.runtime import hub
from affectjax.weights.folder import Tensors, Tree, architecture, read_config, read_extractor

# Of transformers; both have the projection, without which there is no feature to compare.
CLASSES = ("ClapModel", "ClapAudioModelWithProjection")
ENCODER = "audio_model.audio_encoder"
# Tensors that are known and not wanted: of the text tower and of the comparison with it, of the
# fusion of pieces of a sound too long for the tower, and tables that are computed here.
FOREIGN = (
    "text_model.",
    "text_projection.",
    "logit_scale_",
    f"{ENCODER}.patch_embed.fusion_model.",
    f"{ENCODER}.patch_embed.mel_conv2d.",
)
COMPUTED = (".relative_position_index", ".num_batches_tracked")
PROJECTIONS = ("query", "key", "value")
# By the truncation of the feature extractor.
SCALES = {"rand_trunc": "slaney", "fusion": "htk"}
# Of the batch norm over the mel bands, which no config changes.
EPSILON = 1e-5
# Of the feature extractor, where a folder does not say.
HEARD = {
    "sampling_rate": 48000,
    "fft_window_size": 1024,
    "hop_length": 480,
    "frequency_min": 0,
    "frequency_max": 14000,
    "max_length_s": 10,
}


@dataclasses.dataclass(frozen=True)
class ClapWeights:
    """What a folder with CLAP's weights holds.

    Attributes:
      audio: arguments of `models.clap.AudioTower`.
      front: arguments of `ops.mel.FrontEnd`.
      params: `audio_tower`, float32 arrays of NumPy.
      unused: names of the tensors that no parameter was made of, without those known to have no
        part in the feature of a sound: the text tower's, and those for sounds longer than it.
    """

    audio: dict[str, Any]
    front: dict[str, Any]
    params: dict[str, Tree]
    unused: tuple[str, ...]


def clap(folder: str | Path) -> ClapWeights:
    """Returns CLAP's audio tower from a local Hugging Face folder.

    A folder with `enable_fusion` gives the feature that it has for sounds that are not longer than
    its spectrogram: nothing is fused for those.

    Args:
      folder: config.json and safetensors of a ClapModel or a ClapAudioModelWithProjection;
        preprocessor_config.json if there is one.

    Raises:
      InputError: it is another architecture, a file or a tensor is missing or damaged, or the
        config asks for what the tower does not have.
    """
    # Here, because it takes seconds.
    from transformers import ClapAudioConfig, ClapConfig

    folder = hub.local(folder)
    if architecture(folder, CLASSES) == "ClapModel":
        config = read_config(folder, ClapConfig).audio_config
    else:
        config = read_config(folder, ClapAudioConfig)
    args = _args(folder, config)
    tensors = Tensors(folder)
    params = {"audio_tower": _audio(tensors, args)}
    unused = tensors.close(lambda name: name.startswith(FOREIGN) or name.endswith(COMPUTED))
    return ClapWeights(
        audio=args,
        front=_front(folder, args, fused=config.enable_fusion),
        params=params,
        unused=unused,
    )


def _args(folder: Path, config: Any) -> dict[str, Any]:
    """Returns the arguments of the tower."""
    path = folder / "config.json"
    for key, allowed in (
        ("patch_embed_input_channels", 1),
        ("flatten_patch_embeds", True),
        ("enable_patch_layer_norm", True),
        ("qkv_bias", True),
    ):
        if getattr(config, key) != allowed:
            raise InputError(f"{path}: {key} is {getattr(config, key)}; allowed: {allowed}")
    if config.enable_fusion and config.fusion_type == "channel_map":
        raise InputError(
            f"{path}: fusion_type is channel_map; allowed: a fusion of the tokens of long sounds"
        )
    sides = {
        side
        for value in (config.patch_size, config.patch_stride)
        for side in ([value] if isinstance(value, int) else value)
    }
    if len(sides) != 1:
        raise InputError(
            f"{path}: patch_size is {config.patch_size} and patch_stride {config.patch_stride}; "
            "allowed: squares side by side"
        )
    return {
        "spec_size": config.spec_size,
        "mels": config.num_mel_bins,
        "patch": sides.pop(),
        "width": config.patch_embeds_hidden_size,
        "depths": tuple(config.depths),
        "heads": tuple(config.num_attention_heads),
        "window": config.window_size,
        "projection": config.projection_dim,
        "ratio": config.mlp_ratio,
        "activation": config.hidden_act,
        "projection_activation": config.projection_hidden_act,
        "epsilon": config.layer_norm_eps,
    }


def _audio(tensors: Tensors, args: dict[str, Any]) -> Tree:
    """Returns the parameters of `models.clap.AudioTower`."""
    width, side, mels = args["width"], args["patch"], args["mels"]
    kernel = tensors.take(f"{ENCODER}.patch_embed.proj.weight", width, 1, side, side)
    scale, bias, mean, variance = (
        tensors.take(f"{ENCODER}.batch_norm.{name}", mels)
        for name in ("weight", "bias", "running_mean", "running_var")
    )
    scale = scale / np.sqrt(variance + EPSILON)
    found = {
        "mel_scale": scale,
        "mel_bias": bias - mean * scale,
        "patches": {
            "kernel": rearrange(kernel, "d 1 p q -> (p q) d").copy(),
            "bias": tensors.take(f"{ENCODER}.patch_embed.proj.bias", width),
        },
        "patch_norm": tensors.norm(f"{ENCODER}.patch_embed.norm", width),
    }
    for stage, (depth, heads) in enumerate(zip(args["depths"], args["heads"], strict=True)):
        if stage:
            at = f"{ENCODER}.layers.{stage - 1}.downsample"
            found[f"merge_{stage}_norm"] = tensors.norm(f"{at}.norm", 4 * width)
            width = 2 * width
            found[f"merge_{stage}"] = tensors.linear(
                f"{at}.reduction", 2 * width, width, bias=False
            )
        for i in range(depth):
            at = f"{ENCODER}.layers.{stage}.blocks.{i}"
            found[f"stage_{stage}_{i}"] = _block(tensors, at, width, heads, args)
    project = args["projection"]
    return found | {
        "last_norm": tensors.norm(f"{ENCODER}.norm", width),
        "project_first": tensors.linear("audio_projection.linear1", width, project),
        "project_second": tensors.linear("audio_projection.linear2", project, project),
    }


def _block(tensors: Tensors, at: str, width: int, heads: int, args: dict[str, Any]) -> Tree:
    """Returns the parameters of a layer, of the tensors whose names begin with `at`."""
    hidden, places = int(args["ratio"] * width), (2 * args["window"] - 1) ** 2
    table = f"{at}.attention.self.relative_position_bias_table"
    maps = {n: tensors.linear(f"{at}.attention.self.{n}", width, width) for n in PROJECTIONS}
    return maps | {
        "attention_norm": tensors.norm(f"{at}.layernorm_before", width),
        "position": tensors.take(table, places, heads),
        "out": tensors.linear(f"{at}.attention.output.dense", width, width),
        "feed_norm": tensors.norm(f"{at}.layernorm_after", width),
        "up": tensors.linear(f"{at}.intermediate.dense", width, hidden),
        "down": tensors.linear(f"{at}.output.dense", hidden, width),
    }


def _front(folder: Path, args: dict[str, Any], fused: bool) -> dict[str, Any]:
    """Returns the arguments of `ops.mel.FrontEnd`; those of CLAP where the folder says nothing.

    Args:
      folder: with preprocessor_config.json, processor_config.json or neither.
      args: of the tower.
      fused: whether the tower was trained on fused pieces, for which other bands were taken.
    """
    path, content = read_extractor(folder)
    for key, allowed in (("padding", "repeatpad"), ("top_db", None)):
        if content.get(key, allowed) != allowed:
            raise InputError(f"{path}: {key} is {content[key]}; allowed: {allowed}")
    known = HEARD | {"feature_size": args["mels"]}
    said = {key: content.get(key, usual) for key, usual in known.items()}
    for key, value in said.items():
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not whole and not (isinstance(value, float) and key.startswith("frequency")):
            raise InputError(f"{path}: {key} is {value}; allowed: a number")
    if said["feature_size"] != args["mels"]:
        raise InputError(
            f"{path}: feature_size is {said['feature_size']}, but config.json has "
            f"{args['mels']} mel bands"
        )
    # The mode of truncation also tells the bands, for sounds of any length.
    truncation = content.get("truncation", "fusion" if fused else "rand_trunc")
    if truncation not in SCALES:
        raise InputError(f"{path}: truncation is {truncation}; allowed: {', '.join(SCALES)}")
    front = {
        "rate": said["sampling_rate"],
        "frame": said["fft_window_size"],
        "hop": said["hop_length"],
        "fft": said["fft_window_size"],
        "mels": said["feature_size"],
        "low": float(said["frequency_min"]),
        "high": float(said["frequency_max"]),
        "scale": SCALES[truncation],
        "edge": "reflect",
        "length": said["max_length_s"] * said["sampling_rate"],
    }
    try:
        FrontEnd(**front)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error
    return front
