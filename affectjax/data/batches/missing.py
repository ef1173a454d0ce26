"""The missing-modality protocol: which modalities each example keeps, the same for every model.

A draw depends on the seed and on the example's place in its split alone: neither the model, nor the
batches, nor how many examples follow change it, and what is lost at one rate is lost at every
higher one.
Letters: N examples, M modalities.
"""

import itertools
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from absl import logging

from affectjax.errors import InputError
from affectjax.modalities import MODALITIES
from affectjax.runtime.workdir import write_json

RANDOM = "random"


def subsets(modalities: Sequence[str]) -> list[tuple[str, ...]]:
    """Returns every non-empty subset, small ones first, in the order of MODALITIES."""
    return [
        chosen
        for size in range(1, len(modalities) + 1)
        for chosen in itertools.combinations(modalities, size)
    ]


def patterns(modalities: Sequence[str]) -> list[str]:
    """Returns the names of `subsets`, as in "text+vision"."""
    return ["+".join(chosen) for chosen in subsets(modalities)]


def check(pattern: str, modalities: Sequence[str]) -> None:
    """Raises an InputError where `pattern` is neither "random" nor one of `patterns`."""
    allowed = (RANDOM, *patterns(modalities))
    if pattern not in allowed:
        raise InputError(
            f"missing-modality pattern {pattern!r} is unknown; allowed: {', '.join(allowed)}"
        )


def draw(
    present: np.ndarray,
    pattern: str,
    rate: float,
    seed: int,
    modalities: Sequence[str] = MODALITIES,
) -> np.ndarray:
    """Returns `[N, M]` bool: the modalities that each example keeps of those that it has.

    Each example is chosen with probability `rate`. With "random" a chosen one loses a subset of
    what it has, neither nothing nor all, each such subset alike likely; with a name of `patterns`
    it keeps these modalities only. A chosen example that would keep nothing, since it has at most
    one modality ("random") or none of those named, stays as it is; how many do is logged.

    Args:
      present: `[N, M]` bool, the modalities that each example has.
      pattern: "random" or one of `patterns(modalities)`.
      rate: from 0 to 1.
      seed: of the draw, from 0 up.
      modalities: the names of the M columns.

    Raises:
      InputError: a pattern, rate or seed that is not allowed.

    Source: SPEC section 1, missing-modality protocol.
    """
    check(pattern, modalities)
    if not 0 <= rate <= 1:
        raise InputError(f"missing-modality rate is {rate}; allowed: from 0 to 1")
    if seed < 0:
        raise InputError(f"missing-modality seed is {seed}; allowed: from 0 up")
    choice, which = np.random.Generator(np.random.Philox(seed)).random((len(present), 2)).T
    if pattern == RANDOM:
        # Of c modalities 2^c - 2 subsets can be lost: the numbers 1 to 2^c - 2, bit r of which
        # stands for the r-th modality that the example has.
        choices = np.maximum(2 ** present.sum(axis=1) - 2, 0)
        number = 1 + np.floor(which * choices).astype(np.int64)
        rank = np.maximum(np.cumsum(present, axis=1) - 1, 0)
        shown = (number[:, None] >> rank) & 1 == 0
    else:
        shown = np.array([name in pattern.split("+") for name in modalities])
    kept = present & shown
    chosen, able = choice < rate, kept.any(axis=1)
    if unable := int(np.sum(chosen & ~able)):
        logging.info(
            "missing modalities, pattern %s: %d of %d chosen examples would keep nothing and stay "
            "as they are",
            pattern,
            unable,
            chosen.sum(),
        )
    return np.where((chosen & able)[:, None], kept, present)


def save(path: str | Path, ids: Sequence[str], modalities: Sequence[str], kept: np.ndarray) -> None:
    """Writes a draw as JSON: the modalities, and by id a row of bits, as in "101".

    Args:
      path: the file.
      ids: N names, each one once.
      modalities: M names.
      kept: `[N, M]` bool, see `draw`.

    Raises:
      InputError: an id stands twice.
    """
    rows = {
        name: "".join(str(int(bit)) for bit in row) for name, row in zip(ids, kept, strict=True)
    }
    if len(rows) < len(ids):
        twice = next(name for i, name in enumerate(ids) if name in ids[:i])
        raise InputError(f"{path}: example {twice!r} stands twice; an id must be unique")
    write_json(Path(path), {"modalities": list(modalities), "kept": rows})


def load(path: str | Path) -> tuple[tuple[str, ...], tuple[str, ...], np.ndarray]:
    """Returns what `save` wrote: N ids, M modalities, and `[N, M]` bool.

    Args:
      path: the file.

    Raises:
      InputError: it cannot be read, or holds no such draw.
    """
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
        modalities, rows = tuple(found["modalities"]), dict(found["kept"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{path} holds no draw of missing modalities: {error!r}") from error
    unknown = [name for name in modalities if name not in MODALITIES]
    if unknown:
        raise InputError(
            f"{path}: modality {unknown[0]!r} is unknown; allowed: {', '.join(MODALITIES)}"
        )
    for name, bits in rows.items():
        if not isinstance(bits, str) or len(bits) != len(modalities) or set(bits) - {"0", "1"}:
            raise InputError(
                f"{path}: example {name!r} has {bits!r}; allowed: {len(modalities)} bits, one each "
                f"for {', '.join(modalities)}"
            )
    kept = np.array([[bit == "1" for bit in bits] for bits in rows.values()], bool)
    return tuple(rows), modalities, kept.reshape(len(rows), len(modalities))
