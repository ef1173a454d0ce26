"""BERT: texts to the mean of their tokens, with pretrained weights alone.

Letters: B examples, T tokens, D features.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, ClassVar

import jax

from affectjax import weights
from affectjax.encoders import Context, Encoder
from affectjax.errors import InputError
from affectjax.models.bert import Bert


class Texts(Bert):
    """BERT, of which only the mean is wanted."""

    def __call__(self, x: jax.Array, mask: jax.Array, *, train: bool) -> jax.Array:
        """Maps tokens `[B, T]` and their mask to `[B, D]`."""
        del train
        return super().__call__(x, mask)[0]


@dataclasses.dataclass(frozen=True)
class Config:
    """BERT for text.

    Attributes:
      bert_weights: a local folder with its weights.
    """

    reads: ClassVar[str] = "text"
    weights_key: ClassVar[str] = "bert_weights"
    bert_weights: str = ""

    def pretrained(self, load: Callable[..., Any]) -> weights.BertWeights:
        """Returns what the folder holds."""
        return load(weights.bert, self.bert_weights)

    def build(self, context: Context) -> Encoder:
        """Returns the encoder."""
        if not self.bert_weights:
            raise InputError(
                f'"{context.section}.{context.modality}" is "bert", but '
                f'"{context.section}.bert_weights" is empty; give a local folder with BERT\'s '
                "weights"
            )
        context.check_words(self.bert_weights)
        found = self.pretrained(context.load)
        return Encoder(functools.partial(Texts, **found.args, dtype=context.dtype), found.params)


CONFIGS = {"text": Config}
