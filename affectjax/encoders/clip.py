"""CLIP's towers: texts and frames to features that can be compared with each other.

Letters: B examples, N images, T tokens, H height, W width, D features.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, ClassVar

import jax

from affectjax.encoders import Context, Encoder
from affectjax.errors import InputError
from affectjax.models.clip import ImageTower, TextTower
from affectjax.weights import ClipWeights, from_clip


class Texts(TextTower):
    """CLIP's text tower, of which only the feature is wanted."""

    def __call__(self, x: jax.Array, mask: jax.Array, *, train: bool) -> jax.Array:
        """Maps tokens `[B, T]` and their mask to `[B, D]`."""
        del train
        return super().__call__(x, mask)[0]


class Images(ImageTower):
    """CLIP's image tower, of which only the feature is wanted."""

    def __call__(self, images: jax.Array) -> jax.Array:
        """Maps `[N, H, W, 3]` to `[N, D]`."""
        return super().__call__(images)[0]


@dataclasses.dataclass(frozen=True)
class ClipConfig:
    """CLIP's towers, what both have in common.

    Attributes:
      weights: a local folder with CLIP's weights; "" for small towers from scratch.
    """

    weights_key: ClassVar[str] = "weights"
    weights: str = ""

    def pretrained(self, load: Callable[..., Any]) -> ClipWeights:
        """Returns what the folder holds."""
        return load(from_clip.clip, self.weights)


@dataclasses.dataclass(frozen=True)
class TextConfig(ClipConfig):
    """CLIP's tower of text.

    Attributes:
      text_width, text_layers, text_heads: without `weights`.
    """

    reads: ClassVar[str] = "text"
    text_width: int = 128
    text_layers: int = 2
    text_heads: int = 4

    def __post_init__(self):
        if self.text_layers < 1:
            raise ValueError(f"text_layers is {self.text_layers}; allowed: 1 or more")

    def tower(
        self, load: Callable[..., Any], vocab: int, length: int, width: int
    ) -> tuple[dict[str, Any], Any]:
        """Returns the arguments of `TextTower`, and its pretrained parameters or None.

        Args:
          load: see `Context`.
          vocab: number of tokens, without `weights`.
          length: the most tokens of a text, without `weights`.
          width: D, without `weights`.

        Raises:
          InputError: the folder has no such tower.
        """
        if not self.weights:
            small = {"width": self.text_width, "layers": self.text_layers, "heads": self.text_heads}
            sizes = {"vocab": vocab, "length": length, "projection": width}
            return small | sizes | {"hidden": 4 * self.text_width}, None
        found = self.pretrained(load)
        if found.text is None:
            raise InputError(f"{self.weights} has no text tower of CLIP")
        return found.text, found.params["text_tower"]

    def build(self, context: Context) -> Encoder:
        """Returns the tower of texts."""
        vocab, length = context.tokenizer.vocab, context.kind.tokens
        args, params = self.tower(context.load, vocab, length, context.width)
        if self.weights:
            context.check_words(self.weights)
        return Encoder(functools.partial(Texts, **args, dtype=context.dtype), params)


@dataclasses.dataclass(frozen=True)
class ImageConfig(ClipConfig):
    """CLIP's tower of images.

    Attributes:
      image_patch, image_width, image_layers, image_heads: without `weights`.
    """

    reads: ClassVar[str] = "frames"
    image_patch: int = 16
    image_width: int = 192
    image_layers: int = 4
    image_heads: int = 4

    def __post_init__(self):
        if self.image_layers < 1:
            raise ValueError(f"image_layers is {self.image_layers}; allowed: 1 or more")

    def build(self, context: Context) -> Encoder:
        """Returns the tower of images."""
        if not self.weights:
            args = {
                "image_size": context.kind.size,
                "patch": self.image_patch,
                "width": self.image_width,
                "layers": self.image_layers,
                "heads": self.image_heads,
                "hidden": 4 * self.image_width,
                "projection": context.width,
            }
            return Encoder(functools.partial(Images, **args, dtype=context.dtype))
        found = self.pretrained(context.load)
        if found.image is None:
            raise InputError(f"{self.weights} has no image tower of CLIP")
        make = functools.partial(Images, **found.image, dtype=context.dtype)
        pixels = {"mean": found.mean, "std": found.std}
        return Encoder(make, found.params["image_tower"], pixels)


CONFIGS = {"text": TextConfig, "vision": ImageConfig}
