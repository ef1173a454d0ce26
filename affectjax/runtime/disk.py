"""A full disk: found before a checkpoint is begun, and else told in one sentence.

A checkpoint is written by threads and processes of other libraries, which say in hundreds of lines
that there is no room; so it is begun where there is room for it.
"""

import contextlib
import errno
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from affectjax.errors import RunStopped

_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_SIGNS = ("No space left on device", "Disk quota exceeded")  # in messages of Orbax's writers
# What a checkpoint takes besides its arrays: as a whole, and for each.
_SLACK, _EACH = 2**16, 2**12


def check_room(folder: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Raises RunStopped where a disk has no room for a checkpoint.

    Args:
      folder: on that disk.
      arrays: that go into it.
    """
    need = _SLACK + sum(_EACH + x.nbytes for x in arrays.values())
    free = shutil.disk_usage(folder).free
    if free < need:
        mib = 2**20
        raise RunStopped(_said(folder, f"{free / mib:.1f} MiB free, {need / mib:.1f} needed"))


@contextlib.contextmanager
def full_stops_a_run(where: str | Path = "") -> Iterator[None]:
    """Turns what a full disk makes anybody raise into a RunStopped.

    Args:
      where: a folder on it, "" where nobody knows.
    """
    try:
        yield
    except Exception as error:
        reason = full(error)
        if not reason:
            raise
        raise RunStopped(_said(where, reason)) from error


def full(error: BaseException | None) -> str:
    """Returns what an exception, or one behind it, says of a full disk; "" where none does."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _ERRORS:
            return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
        sign = next((sign for sign in _SIGNS if sign in str(error)), "")
        if sign:
            return sign
        error = error.__cause__ or error.__context__
    return ""


def _said(where: str | Path, reason: str) -> str:
    disk = f"the disk of {where}" if where else "the disk"
    return (
        f"{disk} is full ({reason}); nothing is lost: make room and give the same command again, "
        "which goes on from what it has saved"
    )
