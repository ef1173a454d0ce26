"""ResNet-18 from a local Hugging Face folder.

Letters: D width of the first stage, h and w sides of a kernel, i inputs, o outputs.
"""

import dataclasses
from pathlib import Path
from typing import Any

from einops import rearrange

from affectjax.errors import InputError
from affectjax.models.resnet import BLOCKS, STAGES
from affectjax.runtime import hub
from affectjax.weights.folder import Tensors, Tree, architecture, normalisation, read_config

ARCHITECTURES = ("ResNetForImageClassification", "ResNetModel")
# Of the pixels of ImageNet's images, in [0, 1], red, green and blue.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


@dataclasses.dataclass(frozen=True)
class ResNetWeights:
    """What a folder with the weights of a ResNet-18 holds.

    Attributes:
      args: arguments of `models.resnet.ResNet18`.
      params: its parameters, float32 arrays of NumPy.
      batch_stats: the running statistics of its batch norms, float32 arrays of NumPy.
      mean: of the pixels in [0, 1], to be subtracted: red, green and blue.
      std: what pixels are then divided by.
      unused: names of the tensors that nothing was made of: the classifier, counts of batches.
      missing: always empty, for no tensor may lack.
    """

    args: dict[str, Any]
    params: Tree
    batch_stats: Tree
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    unused: tuple[str, ...]
    missing: tuple[str, ...] = ()


def resnet(folder: str | Path) -> ResNetWeights:
    """Returns a ResNet-18 without its classifier, from a local Hugging Face folder.

    Args:
      folder: config.json and safetensors of one of `ARCHITECTURES`; preprocessor_config.json if
        there is one, else the pixels are those of ImageNet.

    Raises:
      InputError: it is another architecture, or a file or a tensor is missing or damaged.
    """
    from transformers import ResNetConfig  # Here, because it takes seconds.

    folder = hub.local(folder)
    architecture(folder, ARCHITECTURES)
    config = read_config(folder, ResNetConfig)
    width = config.embedding_size
    allowed = {
        "layer_type": "basic",
        "depths": [BLOCKS] * STAGES,
        "hidden_sizes": [width * 2**i for i in range(STAGES)],
        "hidden_act": "relu",
        "num_channels": 3,
        "downsample_in_first_stage": False,
    }
    for key, value in allowed.items():
        found = getattr(config, key)
        if found != value:
            raise InputError(
                f"{folder / 'config.json'}: {key} is {found!r}; a ResNet-18 with embedding_size "
                f"{width} has {value!r}"
            )
    mean, std = normalisation(folder, MEAN, STD)
    tensors = Tensors(folder, prefix="resnet.")
    params, batch_stats = _variables(tensors, width)
    unused = tensors.close()
    return ResNetWeights({"width": width}, params, batch_stats, mean, std, unused)


def _variables(tensors: Tensors, width: int) -> tuple[Tree, Tree]:
    """Returns the parameters and the running statistics of `models.resnet.ResNet18`."""
    params, batch_stats = {}, {}
    stem = _conv_norm(tensors, "embedder.embedder", 3, width, 7)
    params["stem"], batch_stats["stem"] = stem
    inputs = width
    for i in range(STAGES):
        outputs = width * 2**i
        for j in range(BLOCKS):
            at = f"encoder.stages.{i}.layers.{j}"
            parts = {
                "first": _conv_norm(tensors, f"{at}.layer.0", inputs, outputs, 3),
                "second": _conv_norm(tensors, f"{at}.layer.1", outputs, outputs, 3),
            }
            if inputs != outputs:
                parts["shortcut"] = _conv_norm(tensors, f"{at}.shortcut", inputs, outputs, 1)
            params[f"stage_{i}_{j}"] = {name: part[0] for name, part in parts.items()}
            batch_stats[f"stage_{i}_{j}"] = {name: part[1] for name, part in parts.items()}
            inputs = outputs
    return params, batch_stats


def _conv_norm(
    tensors: Tensors, at: str, inputs: int, outputs: int, size: int
) -> tuple[Tree, Tree]:
    """Returns the parameters and the running statistics of `models.resnet.ConvNorm`."""
    kernel = tensors.take(f"{at}.convolution.weight", outputs, inputs, size, size)
    norm = f"{at}.normalization"
    params = {
        "kernel": rearrange(kernel, "o i h w -> h w i o").copy(),
        "norm": tensors.norm(norm, outputs),
    }
    running = {
        "mean": tensors.take(f"{norm}.running_mean", outputs),
        "var": tensors.take(f"{norm}.running_var", outputs),
    }
    return params, {"norm": running}
