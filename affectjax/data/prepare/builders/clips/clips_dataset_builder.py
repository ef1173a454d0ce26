"""Writes clips as a TFDS data set in ArrayRecord, without TensorFlow.

The frames of an example are one string of encoded images and the length of each, so that a reader
decodes those that it wants and no others; TFDS' own video feature decodes all of them, and needs
ffmpeg as a program. Feature sequences may stand in place of a modality, as in `feature_sequences`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from affectjax.data.prepare.builders import feature_sequences

_BYTES = tfds.features.Encoding.BYTES


class Builder(feature_sequences.Builder):
    """Clips that a generator decodes one at a time.

    An example is a dictionary: `id` text, `label` a scalar or `[K]`, `transcript` text,
    `has_transcript` bool, and for each modality what its kind asks for:

        frames     `vision` `[bytes]` uint8, encoded images one after the other; `vision_sizes`
                   `[t]` int32, the bytes of each
        waveform   `audio` `[s]` int16
        features   `[t, D]`

    t and s are 0 where the example lacks the modality.
    """

    name = "clips"
    VERSION = tfds.core.Version("1.0.0")
    # A record of frames is some hundred times one of features.
    SHARD, CHUNK = 256, 8

    def __init__(self, *, kinds: Mapping[str, str], **described: Any):
        """Describes the data set; nothing is written yet.

        Args:
          kinds: by modality "frames", "waveform", "text" or "features".
          **described: see `feature_sequences.Builder`; `widths` and `dtypes` are of those
            modalities that are features.
        """
        self._kinds = dict(kinds)
        super().__init__(**described)

    def _info(self) -> tfds.core.DatasetInfo:
        features = dict(super()._info().features)
        features["has_transcript"] = tfds.features.Scalar(np.bool_)
        for modality, kind in self._kinds.items():
            if kind == "frames":
                features[modality] = _array(np.uint8)
                features[f"{modality}_sizes"] = _array(np.int32)
            elif kind == "waveform":
                features[modality] = _array(np.int16)
        return tfds.core.DatasetInfo(
            builder=self,
            description="Clips: encoded frames, 16 kHz mono sound and transcript.",
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,
        )


def write(folder: Path, **described: Any) -> Path:
    """Writes a data set and returns the folder in it that `tfds.builder_from_directory` opens.

    Args:
      folder: an empty folder for it.
      **described: as `Builder` takes them.
    """
    return feature_sequences.write(folder, Builder, **described)


def _array(dtype: type) -> tfds.features.Tensor:
    return tfds.features.Tensor(shape=(None,), dtype=dtype, encoding=_BYTES)
