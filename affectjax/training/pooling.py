"""One vector an example of what a model reads of it, for models that know no time.

Feature sequences give the mean and the deviation of each feature, sound those of each band of its
log-mel spectrogram, frames a small grey picture and its histograms of oriented gradients (HOG),
words the count of each token. An example that lacks a modality has zeros, and nothing else says so.

Source: Dalal and Triggs 2005 for HOG.
Letters: N examples, B batch, T steps or frames, D features, S samples, V tokens, F of a vector.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from affectjax.data.batches.dataset import Dataset, Part
from affectjax.data.batches.inputs import Kind
from affectjax.data.batches.streams import rows_of
from affectjax.data.media import codec
from affectjax.modalities import SAMPLE_RATE
from affectjax.ops import masking, mel

# `[N, F]` float32; counts of tokens are a SciPy CSR matrix.
Vectors = Any
BATCH = 32
# Of a clip, frames that are looked at; and pixels of the picture that gradients are taken of, and
# of the one that is kept.
FRAMES, SIDE, SMALL = 4, 48, 16
HOG = {"orientations": 9, "pixels_per_cell": (8, 8), "cells_per_block": (2, 2)}


def pool(dataset: Dataset, part: Part, modalities: Sequence[str]) -> dict[str, Vectors]:
    """Returns by modality the vectors of a part's examples, in order, with the middle frames.

    Args:
      dataset: where they are read, as the model reads them.
      part: which examples.
      modalities: those that the model sees.
    """
    inputs = dataset.inputs
    functions = {m: _function(inputs.kinds[m].kind, inputs.tokenizer) for m in modalities}
    rows = rows_of(np.arange(len(part), dtype=np.int32), BATCH, BATCH)
    found: dict[str, list[Vectors]] = {m: [] for m in modalities}
    for batch in dataset.stream(part, list(rows)):
        for m, function in functions.items():
            found[m].append(function(batch[m]["x"], batch[m]["mask"]))
    return {m: _join(own)[: len(part)] for m, own in found.items()}


def forms(kind: Kind, width: int) -> list[slice]:
    """Returns the columns of vectors among which a linear model may choose.

    Of feature sequences the means alone, or the deviations too, which help or only add noise.

    Args:
      kind: of the modality.
      width: F.
    """
    whole = slice(0, width)
    return [slice(0, width // 2), whole] if kind.kind == "features" else [whole]


def _join(chunks: list[Vectors]) -> Vectors:
    from scipy import sparse

    return sparse.vstack(chunks).tocsr() if sparse.issparse(chunks[0]) else np.concatenate(chunks)


def _function(kind: str, tokenizer: Any) -> Callable[[np.ndarray, np.ndarray], Vectors]:
    if kind == "text":
        return functools.partial(tokens, vocab=tokenizer.vocab)
    return {"features": sequence, "waveform": sound, "frames": pictures}[kind]


def sequence(x: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Returns `[B, 2 D]`: mean and deviation of `x` `[B, T, D]` over valid steps `[B, T]`."""
    count = np.maximum(mask.sum(1), 1)[:, None]
    mean = np.where(mask[..., None], x, 0).sum(1) / count
    square = np.where(mask[..., None], np.square(x - mean[:, None]), 0).sum(1) / count
    return np.concatenate([mean, np.sqrt(square)], axis=1).astype(np.float32)


def sound(x: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Returns `[B, 2 M]`: mean and deviation over time of M bands of `x` `[B, S]`, in decibels."""
    return np.asarray(_sound(x, mask))


@jax.jit
def _sound(x: jax.Array, mask: jax.Array) -> jax.Array:
    front = mel.FrontEnd(rate=SAMPLE_RATE)
    loud, heard = mel.log_mel(x, front, mask), mel.frame_mask(mask, front)
    mean = masking.masked_mean(loud, heard)
    square = masking.masked_mean(jnp.square(loud - mean[:, None]), heard)
    return jnp.concatenate([mean, jnp.sqrt(square)], axis=-1)


def pictures(x: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Returns `[B, F]`: the mean over some frames of a small grey picture and of its HOG.

    Args:
      x: `[B, T, H, W, 3]` uint8.
      mask: `[B, T]`, true at the valid frames, which come first.
    """
    found = []
    for frames, count in zip(x, mask.sum(1), strict=True):
        shown = [picture(frames[i]) for i in codec.choose(int(count), FRAMES)] if count else []
        found.append(np.mean(shown, axis=0) if shown else np.zeros(_picture_width()))
    return np.array(found, np.float32)


def picture(image: np.ndarray) -> np.ndarray:
    """Returns `[F]`: of an image `[H, W, 3]` uint8 a small grey picture in [0, 1], and its HOG."""
    import cv2
    from skimage import feature

    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    small, large = (
        cv2.resize(grey, (side, side), interpolation=cv2.INTER_AREA) for side in (SMALL, SIDE)
    )
    return np.concatenate([small.ravel() / 255, feature.hog(large, **HOG)]).astype(np.float32)


@functools.cache
def _picture_width() -> int:
    return len(picture(np.zeros((SIDE, SIDE, 3), np.uint8)))


def tokens(x: np.ndarray, mask: np.ndarray, vocab: int) -> Any:
    """Returns `[B, V]` float32, sparse: how often each token stands in a text.

    Args:
      x: `[B, T]` numbers of tokens.
      mask: `[B, T]`, true at those of the text.
      vocab: V.
    """
    from scipy import sparse

    row, column = np.nonzero(mask)
    ones = np.ones(len(row), np.float32)
    return sparse.csr_matrix((ones, (row, x[row, column])), shape=(len(x), vocab))
