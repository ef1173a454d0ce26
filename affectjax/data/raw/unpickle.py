"""Pickles of other people, read without running anything that they bring along.

A pickle is a program. This reader lets it build NumPy arrays and plain containers, refuses every
other name that it asks for, and so cannot be made to import or call anything else.
"""

import collections
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from affectjax.errors import InputError


def load(path: str | Path) -> Any:
    """Returns the object in a pickle of NumPy arrays, numbers, text and plain containers.

    Pickles of Python 2 load too: their text comes as latin-1 `str`. Dictionary keys that are bytes
    become text, at every depth.

    Args:
      path: the pickle.

    Raises:
      InputError: when the file is missing, is no whole pickle, or asks for anything else; the
        sentence names what it asked for.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            # Python 2 wrote array bytes as its `str`: latin-1 is the one encoding that keeps them.
            content = _Unpickler(file, path).load()
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except Exception as error:  # a damaged stream can fail in any opcode, with any exception
        raise InputError(
            f"{path}: not a whole pickle ({type(error).__name__}: {error})"
            "; it may be truncated or of another format"
        ) from error
    return _text_keys(content)


def load_splits(path: Path) -> dict[str, dict]:
    """Returns a pickle that is a dictionary of splits, each a dictionary of arrays.

    Args:
      path: the pickle.

    Raises:
      InputError: when it is something else, or see `load`.
    """
    content = load(path)
    if not isinstance(content, dict) or not all(isinstance(v, dict) for v in content.values()):
        raise InputError(f"{path}: expected a dictionary of splits, each a dictionary of arrays")
    return {str(name): part for name, part in content.items()}


class _Unpickler(pickle.Unpickler):
    """An unpickler that knows the names in `_ALLOWED` and no others."""

    def __init__(self, file, path: Path):
        super().__init__(file, encoding="latin1")
        self._path = path

    def find_class(self, module: str, name: str) -> Any:
        """Returns the object of an allowed name, and refuses all others.

        Args:
          module: the module that the pickle names.
          name: the name in it.
        """
        found = _ALLOWED.get((module, name))
        if found is None:
            raise InputError(
                f"{self._path}: refused, the pickle asks for {module}.{name}; only NumPy arrays,"
                " numbers, text and plain containers are allowed"
            )
        return found


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """Returns the bytes that protocols 0 to 2 of Python 3 hide in a text.

    Args:
      text: one character a byte.
      encoding: always latin1 in such pickles; any other would reach the codec registry.
    """
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"_codecs.encode with {encoding!r}")
    return text.encode("latin1")


def _allowed() -> dict[tuple[str, str], Any]:
    """Returns what a pickle may name. NumPy's helpers are taken from NumPy's own pickles."""
    reconstruct = np.zeros(1).__reduce__()[0]
    frombuffer = np.zeros(1).__reduce_ex__(5)[0]
    scalar = np.float32(0).__reduce__()[0]
    allowed: dict[tuple[str, str], Any] = {
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("_codecs", "encode"): _encode,
        ("collections", "OrderedDict"): collections.OrderedDict,
    }
    for core in ("numpy.core", "numpy._core"):
        allowed[f"{core}.multiarray", "_reconstruct"] = reconstruct
        allowed[f"{core}.multiarray", "scalar"] = scalar
        allowed[f"{core}.numeric", "_frombuffer"] = frombuffer
    for builtins in ("builtins", "__builtin__"):
        for kind in (set, frozenset, bytearray, complex, list, dict, tuple):
            allowed[builtins, kind.__name__] = kind
    return allowed


_ALLOWED = _allowed()


def _text_keys(value: Any) -> Any:
    """Returns the value with every bytes key of its dictionaries as text, in place of none else."""
    if isinstance(value, dict):
        return {
            key.decode("utf-8", "replace") if isinstance(key, bytes) else key: _text_keys(item)
            for key, item in value.items()
        }
    if type(value) in (list, tuple) and any(isinstance(item, dict) for item in value):
        return type(value)(_text_keys(item) for item in value)
    return value
