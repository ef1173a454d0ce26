"""Writes examples as a TFDS data set in ArrayRecord, without TensorFlow.

Features are stored unpadded and as raw bytes, the only fast encoding that keeps float16 as it is.
Measured on records of 50x300, 500x74 and 500x35 float32 on one core: bytes and TFDS' own float
lists read alike, about 4000 records a second, and float lists take four times as long to write;
zlib reads about 1100 a second.

The frames of an example are one string of encoded images and the length of each, so that a reader
decodes those that it wants and no others; TFDS' own video feature decodes all of them, and needs
ffmpeg as a program.
"""

import contextlib
import io
import itertools
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

Records = Callable[[], Iterable[dict[str, Any]]]
_BYTES = tfds.features.Encoding.BYTES


class Builder(tfds.core.GeneratorBasedBuilder):
    """Examples that are already in memory, or that generators make one at a time.

    A record is a dictionary: `id` text, `label` a scalar or `[K]`, `transcript` text,
    `has_transcript` bool, and for each modality what its kind asks for:

        features   `[t, D]`
        frames     `vision` `[bytes]` uint8, encoded images one after the other; `vision_sizes`
                   `[t]` int32, the bytes of each
        waveform   `audio` `[s]` int16

    t and s are 0 where the example lacks the modality.
    """

    name = "examples"
    VERSION = tfds.core.Version("1.0.0")
    # Records of a file, and of those in memory at once; one of frames is a hundred times larger.
    SHARD, CHUNK = 4096, 256
    MEDIA_SHARD, MEDIA_CHUNK = 256, 8

    def __init__(
        self,
        *,
        kinds: Mapping[str, str],
        widths: Mapping[str, int],
        dtypes: Mapping[str, Any],
        label: np.ndarray,
        splits: Mapping[str, Records],
        **kwargs: Any,
    ):
        """Describes the data set; nothing is written yet.

        Args:
          kinds: by modality "features", "frames", "waveform" or "text".
          widths: D by modality that is features.
          dtypes: precision by modality that is features.
          label: a label like those of the examples, for its shape and dtype.
          splits: by name, a function that returns the records in order.
          **kwargs: of `tfds.core.GeneratorBasedBuilder`, such as `data_dir`.
        """
        self._kinds, self._widths, self._dtypes = dict(kinds), dict(widths), dict(dtypes)
        self._label, self._splits = np.asarray(label), dict(splits)
        super().__init__(file_format="array_record", **kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "id": tfds.features.Text(),
            "label": tfds.features.Tensor(shape=self._label.shape, dtype=self._label.dtype),
            "transcript": tfds.features.Text(),
            "has_transcript": tfds.features.Scalar(np.bool_),
        }
        for m, kind in self._kinds.items():
            if kind == "features":
                features[m] = _array(self._dtypes[m], self._widths[m])
            elif kind == "frames":
                features |= {m: _array(np.uint8), f"{m}_sizes": _array(np.int32)}
            elif kind == "waveform":
                features[m] = _array(np.int16)
        return tfds.core.DatasetInfo(
            builder=self,
            description="Examples of text, audio and vision: features, or encoded frames, 16 kHz"
            " mono sound and transcript; unpadded.",
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,
        )

    def _download_and_prepare(self, dl_manager: Any, download_config: Any) -> None:
        """Writes all splits, one record at a time.

        TFDS' own way sorts a split before it writes it, and from 1 GB up needs TensorFlow to do so.
        """
        del download_config
        media = set(self._kinds.values()) & {"frames", "waveform"}
        shard, chunk = (self.MEDIA_SHARD, self.MEDIA_CHUNK) if media else (self.SHARD, self.CHUNK)
        info = self._info()  # knows the temporary folder that `self.data_dir` is at this moment
        writer = tfds.core.SequentialWriter(
            info, max_examples_per_shard=shard, file_format="array_record"
        )
        generators = self._split_generators(dl_manager)
        writer.initialize_splits(list(generators))
        for name, examples in generators.items():
            records = (record for _, record in examples)
            while some := list(itertools.islice(records, chunk)):
                writer.add_examples({name: some})
        writer.close_all()
        self.info.set_splits(info.splits)

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        del dl_manager
        return {name: self._generate_examples(make) for name, make in self._splits.items()}

    def _generate_examples(self, make: Records) -> Iterable[tuple[int, dict[str, Any]]]:
        yield from enumerate(make())


def write(folder: Path, **described: Any) -> Path:
    """Writes a data set and returns the folder in it that `tfds.builder_from_directory` opens.

    Args:
      folder: an empty folder for it.
      **described: as `Builder` takes them.
    """
    builder = Builder(data_dir=folder, **described)
    config = tfds.download.DownloadConfig(try_download_gcs=False)
    # TFDS announces downloads on stdout and makes a folder for them; there are none.
    with tempfile.TemporaryDirectory() as nowhere, contextlib.redirect_stdout(io.StringIO()):
        builder.download_and_prepare(download_dir=nowhere, download_config=config)
    return Path(builder.data_dir)


def _array(dtype: Any, *width: int) -> tfds.features.Tensor:
    return tfds.features.Tensor(shape=(None, *width), dtype=dtype, encoding=_BYTES)
