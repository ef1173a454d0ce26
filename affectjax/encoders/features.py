"""Features that somebody computed before: a Dense, a small transformer and a mean over time."""

import dataclasses
import functools
from typing import ClassVar

from affectjax.encoders import Context, Encoder
from affectjax.modalities import MODALITIES
from affectjax.models.encoders import SequenceEncoder


@dataclasses.dataclass(frozen=True)
class Config:
    """Attention over feature sequences, the same keys for all modalities.

    Attributes:
      sequence_layers: of its transformer.
      sequence_heads: of its attention; 0 for as many as the model around it has.
    """

    reads: ClassVar[str] = "features"
    weights_key: ClassVar[str] = ""
    sequence_layers: int = 1
    sequence_heads: int = 0

    def build(self, context: Context) -> Encoder:
        """Returns the encoder."""
        return Encoder(
            functools.partial(
                SequenceEncoder,
                width=context.width,
                layers=self.sequence_layers,
                heads=self.sequence_heads or context.heads,
                dropout=context.dropout,
                axis_name=context.axis_name,
            )
        )


CONFIGS = dict.fromkeys(MODALITIES, Config)
