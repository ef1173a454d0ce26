"""NumPy's files of other people, npz and npy: plain arrays, of a size that is checked first."""

import io
import math
import zipfile
from pathlib import Path
from typing import IO

import numpy as np

from affectjax.data import limits
from affectjax.errors import InputError

_HEAD = 2**16  # bytes in which an npy says what it is
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def read(path: Path, largest_mib: float = limits.LARGEST_MIB) -> dict[str, np.ndarray]:
    """Returns the arrays of an archive by name.

    Args:
      path: the archive.
      largest_mib: the most MiB that its arrays may take together.

    Raises:
      InputError: it is no archive, its arrays would take more, or one is of Python objects.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            _check(archive, path, largest_mib)
        with np.load(path, allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}
    except InputError:
        raise
    except Exception as error:  # a damaged file can fail in any of its readers, with any exception
        raise InputError(f"{path}: is not a NumPy archive of plain arrays ({error})") from error


def array(path: Path, largest_mib: float) -> np.ndarray:
    """Returns the array of an npy.

    Args:
      path: the file.
      largest_mib: the most MiB that it may take.

    Raises:
      InputError: as `read`.
    """
    try:
        with path.open("rb") as file:
            _size(file, path.stat().st_size, str(path), largest_mib)
        return np.load(path, allow_pickle=False)
    except InputError:
        raise
    except Exception as error:  # a damaged file can fail in any of its readers, with any exception
        raise InputError(f"{path}: is not a NumPy file of a plain array ({error})") from error


def _check(archive: zipfile.ZipFile, path: Path, largest_mib: float) -> None:
    """Raises InputError for what the heads of the members say that is not allowed."""
    total = 0
    for member in archive.infolist():
        where = f"{path}: {member.filename.removesuffix('.npy')}"
        with archive.open(member) as file:
            total += _size(file, member.file_size, where, largest_mib)
        limits.check(total, largest_mib, where)


def _size(file: IO[bytes], have: int, where: str, largest_mib: float) -> int:
    """Returns the bytes of an array, by the head of its npy.

    Args:
      file: the npy.
      have: its bytes.
      where: file and array, for messages.
      largest_mib: the most MiB that it may take.
    """
    head = io.BytesIO(file.read(_HEAD))
    version = np.lib.format.read_magic(head)
    if version not in _HEADERS:
        raise ValueError(f"an npy of version {version}; allowed: {', '.join(map(str, _HEADERS))}")
    shape, _, dtype = _HEADERS[version](head)
    if dtype.hasobject:
        raise InputError(f"{where} is an array of Python objects; allowed: numbers, bool and text")
    size = math.prod(shape) * dtype.itemsize
    limits.check(size, largest_mib, f"{where}: {dtype} {list(shape)}")
    if size > have:
        raise ValueError(f"{dtype} {list(shape)} in {have} bytes")
    return size
