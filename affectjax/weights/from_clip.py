"""CLIP's towers from a local Hugging Face folder.

Letters: D width of a tower.
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from einops import rearrange

from affectjax.errors import InputError
from affectjax.runtime import hub
from affectjax.weights.folder import (
    Tensors,
    Tree,
    architecture,
    normalisation,
    read_config,
    stacked,
)

# By class of transformers, the towers that it has.
TOWERS = {
    "CLIPModel": ("image", "text"),
    "CLIPTextModelWithProjection": ("text",),
    "CLIPVisionModelWithProjection": ("image",),
}
# Of the pixels of CLIP's training images, in [0, 1], red, green and blue.
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


@dataclasses.dataclass(frozen=True)
class ClipWeights:
    """What a folder with CLIP's weights holds.

    Attributes:
      image: arguments of `models.clip.ImageTower`, None for a text tower alone.
      text: arguments of `models.clip.TextTower`, None for an image tower alone.
      params: `image_tower` and `text_tower`, float32 arrays of NumPy.
      logit_scale: what cosines are multiplied by; None for a tower alone, which has none.
      mean: of the pixels in [0, 1], to be subtracted: red, green and blue.
      std: what pixels are then divided by.
      unused: names of the tensors that no parameter was made of.
      missing: `logit_scale` for a tower alone; nothing else may lack.
    """

    image: dict[str, Any] | None
    text: dict[str, Any] | None
    params: dict[str, Tree]
    logit_scale: float | None
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    unused: tuple[str, ...]
    missing: tuple[str, ...]


def clip(folder: str | Path) -> ClipWeights:
    """Returns CLIP's towers, or the one that is there, from a local Hugging Face folder.

    Args:
      folder: config.json and safetensors of a CLIPModel, a CLIPTextModelWithProjection or a
        CLIPVisionModelWithProjection; preprocessor_config.json if there is one.

    Raises:
      InputError: it is another architecture, or a file or a tensor is missing or damaged.
    """
    # Here, because it takes seconds.
    from transformers import CLIPConfig, CLIPTextConfig, CLIPVisionConfig

    folder = hub.local(folder)
    found = architecture(folder, tuple(TOWERS))
    kinds = {"image": CLIPVisionConfig, "text": CLIPTextConfig}
    if found == "CLIPModel":
        whole = read_config(folder, CLIPConfig)
        configs = {"image": whole.vision_config, "text": whole.text_config}
        projection = dict.fromkeys(configs, whole.projection_dim)
    else:
        configs = {name: read_config(folder, kinds[name]) for name in TOWERS[found]}
        projection = {name: config.projection_dim for name, config in configs.items()}
    args = {
        name: _args(folder, c, name) | {"projection": projection[name]}
        for name, c in configs.items()
    }

    tensors = Tensors(folder)
    read = {"image": _image, "text": _text}
    params = {f"{name}_tower": read[name](tensors, given) for name, given in args.items()}
    scale = None
    if found == "CLIPModel":
        scale = float(np.exp(tensors.take("logit_scale")))
    mean, std = normalisation(folder, MEAN, STD)
    return ClipWeights(
        image=args.get("image"),
        text=args.get("text"),
        params=params,
        logit_scale=scale,
        mean=mean,
        std=std,
        unused=tensors.close(),
        missing=("logit_scale",) if scale is None else (),
    )


def _args(folder: Path, config: Any, name: str) -> dict[str, Any]:
    """Returns the arguments of a tower but for its projection."""
    if name == "text":
        own = {"vocab": config.vocab_size, "length": config.max_position_embeddings}
    else:
        own = {
            "image_size": _side(folder, "image_size", config.image_size),
            "patch": _side(folder, "patch_size", config.patch_size),
        }
    return own | {
        "width": config.hidden_size,
        "layers": config.num_hidden_layers,
        "heads": config.num_attention_heads,
        "hidden": config.intermediate_size,
        "activation": config.hidden_act,
        "epsilon": config.layer_norm_eps,
    }


def _side(folder: Path, key: str, value: int | list[int] | tuple[int, int]) -> int:
    """Returns the side of a square, which some configs give twice."""
    sides = {value} if isinstance(value, int) else set(value)
    if len(sides) != 1:
        raise InputError(f"{folder / 'config.json'}: {key} is {value}; allowed: a square")
    return sides.pop()


def _blocks(tensors: Tensors, name: str, args: dict[str, Any]) -> Tree:
    """Returns the layers of a tower, stacked."""
    width, hidden = args["width"], args["hidden"]

    def layer(i: int) -> Tree:
        at = f"{name}.encoder.layers.{i}"
        maps = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "out": "out_proj"}
        return {
            "attention_norm": tensors.norm(f"{at}.layer_norm1", width),
            **{
                ours: tensors.linear(f"{at}.self_attn.{theirs}", width, width)
                for ours, theirs in maps.items()
            },
            "feed_norm": tensors.norm(f"{at}.layer_norm2", width),
            "up": tensors.linear(f"{at}.mlp.fc1", width, hidden),
            "down": tensors.linear(f"{at}.mlp.fc2", hidden, width),
        }

    return stacked([layer(i) for i in range(args["layers"])])


def _image(tensors: Tensors, args: dict[str, Any]) -> Tree:
    """Returns the parameters of `models.clip.ImageTower`."""
    width, side = args["width"], args["patch"]
    places = 1 + (args["image_size"] // side) ** 2
    embeddings = "vision_model.embeddings"
    kernel = tensors.take(f"{embeddings}.patch_embedding.weight", width, 3, side, side)
    return {
        "patches": {"kernel": rearrange(kernel, "d c p q -> (p q c) d").copy()},
        "class_token": tensors.take(f"{embeddings}.class_embedding", width),
        "position": tensors.take(f"{embeddings}.position_embedding.weight", places, width),
        # So spelt in every checkpoint.
        "first_norm": tensors.norm("vision_model.pre_layrnorm", width),
        "blocks": _blocks(tensors, "vision_model", args),
        "last_norm": tensors.norm("vision_model.post_layernorm", width),
        "project": tensors.linear("visual_projection", width, args["projection"], bias=False),
    }


def _text(tensors: Tensors, args: dict[str, Any]) -> Tree:
    """Returns the parameters of `models.clip.TextTower`."""
    width, embeddings = args["width"], "text_model.embeddings"
    return {
        "token": tensors.take(f"{embeddings}.token_embedding.weight", args["vocab"], width),
        "position": tensors.take(f"{embeddings}.position_embedding.weight", args["length"], width),
        "blocks": _blocks(tensors, "text_model", args),
        "last_norm": tensors.norm("text_model.final_layer_norm", width),
        "project": tensors.linear("text_projection", width, args["projection"], bias=False),
    }
