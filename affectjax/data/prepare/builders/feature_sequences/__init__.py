"""The TFDS data set of unpadded feature sequences."""

from affectjax.data.prepare.builders.feature_sequences.feature_sequences_dataset_builder import (
    Builder,
    write,
)

__all__ = ["Builder", "write"]
