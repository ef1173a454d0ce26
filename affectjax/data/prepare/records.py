"""The records of a prepared split, by number.

Letters: T steps, D features, S samples, K binary tasks.
"""

import contextlib
import functools
import operator
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from affectjax.errors import InputError


def stored(split: str) -> str:
    """Returns under which name TFDS stores a split; "all" is its word for all splits together."""
    return "everything" if split == "all" else split


class Source:
    """The examples of one split by number; opens its files on first use and after a pickling.

    `source[i]` is a dictionary of `id` (text), `label` (NumPy scalar or `[K]`), `transcript` (text,
    empty where there is none) and, for each modality of the data set that is no text, what
    `affectjax.data.batches.inputs` reads: a read-only `[t, D]` array in the stored precision, a
    list of encoded images, or int16 `[s]`; t and s are 0 where the example does not have it.
    """

    def __init__(self, path: Path, split: str, kinds: Mapping[str, str]):
        self._path, self._split, self._kinds = path, split, dict(kinds)

    def __getstate__(self) -> dict[str, Any]:
        return {"_path": self._path, "_split": self._split, "_kinds": self._kinds}

    @functools.cached_property
    def _records(self) -> Sequence[dict[str, Any]]:
        import tensorflow_datasets as tfds  # slow to import

        with _whole(self._path):
            return tfds.builder_from_directory(self._path).as_data_source(stored(self._split))

    @functools.cached_property
    def _label_dtype(self) -> np.dtype:
        return self._records.dataset_info.features["label"].np_dtype

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Returns one example.

        Args:
          index: from 0 to the length of the split.
        """
        index = operator.index(index)
        if not 0 <= index < len(self):
            raise IndexError(f"example {index} of {len(self)}")
        records, dtype = self._records, self._label_dtype
        with _whole(self._path):
            record = records[index]
            example = {
                "id": record["id"].decode(),
                "label": np.asarray(record["label"], dtype)[()],
                "transcript": record["transcript"].decode(),
            }
            for m, kind in self._kinds.items():
                if kind == "frames":
                    example[m] = _cut(record[m], record[f"{m}_sizes"])
                elif kind != "text":
                    example[m] = record[m]
        return example


@contextlib.contextmanager
def _whole(path: Path) -> Iterator[None]:
    """Makes an InputError of whatever a damaged folder fails with, in any of its readers."""
    try:
        yield
    except Exception as error:
        raise InputError(
            f"{path}: is damaged ({type(error).__name__}: {error}); prepare the data set again"
        ) from error


def packed(modality: str, images: Sequence[bytes]) -> dict[str, np.ndarray]:
    """Returns what a record holds of encoded images: their bytes, one after the other, and sizes.

    Args:
      modality: its name.
      images: as files.
    """
    return {
        modality: np.frombuffer(b"".join(images), np.uint8),
        f"{modality}_sizes": np.array([len(image) for image in images], np.int32),
    }


def _cut(data: np.ndarray, sizes: np.ndarray) -> list[bytes]:
    """Returns the images that `packed` put one after the other."""
    ends = np.cumsum(sizes)
    return [data[end - size : end].tobytes() for size, end in zip(sizes, ends, strict=True)]
