"""Pickles of other people, read without running anything that they bring along.

A pickle is a program. Its opcodes are interpreted here (`pickle_opcodes`), for NumPy arrays,
numbers, text and plain containers alone; it cannot be made to import, call or build anything else.

Containers may refer to the same value again and again, so a short pickle can stand for more than
any memory holds. What it holds counts as it would if each reference were a copy.
"""

import math
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from affectjax.data import limits
from affectjax.data.raw.pickle_arrays import Array, Dtype, Refused
from affectjax.data.raw.pickle_opcodes import Name, interpret
from affectjax.errors import InputError

# Containers in containers; arrays in lists in dictionaries of splits need four.
_DEEPEST = 100
_VALUE = 8  # bytes that a number or a reference counts


def load(path: str | Path, largest_mib: float = limits.LARGEST_MIB) -> Any:
    """Returns the object in a pickle of NumPy arrays, numbers, text and plain containers.

    Pickles of Python 2 load too: their text comes as latin-1 `str`. Dictionary keys that are bytes
    become text, at every depth. Arrays cannot be written to. Those of objects hold any of the
    values above; those of records are refused.

    Args:
      path: the pickle.
      largest_mib: MiB that its content may take, shared values counted each time.

    Raises:
      InputError: when the file is missing, is no whole pickle, is larger than that, has containers
        that hold themselves, or asks for anything else; the sentence names what it asked for.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            content = interpret(file, largest_mib * limits.MIB)
        return _Plain(path, largest_mib).of(content)
    except InputError:
        raise
    except Refused as error:
        raise InputError(
            f"{path}: refused, the pickle asks for {error}; only NumPy arrays, numbers, text and"
            " plain containers are allowed"
        ) from error
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except Exception as error:  # a damaged stream can fail in any opcode, with any exception
        raise InputError(
            f"{path}: not a whole pickle ({type(error).__name__}: {error})"
            "; it may be truncated or of another format"
        ) from error


def load_splits(path: Path, largest_mib: float = limits.LARGEST_MIB) -> dict[str, dict]:
    """Returns a pickle that is a dictionary of splits, each a dictionary of arrays.

    Args:
      path: the pickle.
      largest_mib: see `load`.

    Raises:
      InputError: when it is something else, or see `load`.
    """
    content = load(path, largest_mib)
    if not isinstance(content, dict) or not all(isinstance(v, dict) for v in content.values()):
        raise InputError(f"{path}: expected a dictionary of splits, each a dictionary of arrays")
    return {str(name): part for name, part in content.items()}


class _Plain:
    """Makes plain values of what was interpreted, each once, and counts each reference to them."""

    def __init__(self, path: Path, largest_mib: float):
        self._path, self._largest = path, largest_mib
        # By identity: the value, its bytes, how deep it is, and what it was made of, kept alive.
        self._known: dict[int, tuple[Any, int, int, Any]] = {}
        self._open: set[int] = set()

    def of(self, value: Any) -> Any:
        """Returns the plain value of a whole pickle."""
        return self._visit(value, 0)[0]

    def _visit(self, value: Any, depth: int) -> tuple[Any, int, int]:
        """Returns the plain value, its bytes, and how many containers deep it is."""
        if isinstance(value, Name):
            raise Refused(f"{value.words} itself")
        if isinstance(value, Dtype):
            raise Refused("a NumPy dtype itself")
        if isinstance(value, Array) and not isinstance(value.content, list):
            if value.dtype is None:
                raise Refused("an array without content")
            return value.plain(), self._within(_VALUE + value.size), 0
        if isinstance(value, str | bytes | bytearray | np.generic):
            size = value.nbytes if isinstance(value, np.generic) else len(value)
            return value, _VALUE + size, 0
        if not isinstance(value, dict | list | tuple | set | frozenset | Array):
            return value, _VALUE, 0
        if id(value) in self._known:
            return self._known[id(value)][:3]
        if id(value) in self._open or depth > _DEEPEST:
            raise self._nested()
        self._open.add(id(value))
        found = self._container(value, depth + 1)
        self._open.remove(id(value))
        self._known[id(value)] = (*found, value)
        return found

    def _container(self, value: Any, depth: int) -> tuple[Any, int, int]:
        """Returns a container of plain values, its bytes, and how deep it is."""
        if isinstance(value, set | frozenset):
            size = sys.getsizeof(value) + _VALUE * len(value) + _lengths(value)
            return value, self._within(size), 1
        inner = value.content if isinstance(value, Array) else value
        parts, size, height = [], sys.getsizeof(inner), 0
        for item in inner.values() if isinstance(inner, dict) else inner:
            part, bytes_of_part, height_of_part = self._visit(item, depth)
            size, height = size + bytes_of_part, max(height, height_of_part)
            self._within(size)
            parts.append(part)
        if height >= _DEEPEST:
            raise self._nested()
        if isinstance(value, Array):
            if math.prod(value.shape) != len(parts):
                raise Refused(f"{len(parts)} objects for an array {list(value.shape)}")
            return value.of_objects(parts), size, height + 1
        if isinstance(value, dict):
            size = self._within(size + _VALUE * len(value) + _lengths(value))
            return dict(zip(map(_text, value), parts, strict=True)), size, height + 1
        return type(value)(parts), size, height + 1

    def _within(self, size: int) -> int:
        """Returns a size that is allowed."""
        limits.check(size, self._largest, f"{self._path}: its content, shared values copied,")
        return size

    def _nested(self) -> InputError:
        return InputError(
            f"{self._path}: has containers that hold themselves, or more than {_DEEPEST} in each"
            " other"
        )


def _lengths(values: Iterable[Any]) -> int:
    """Returns how long the texts among keys are together, and those in tuples with what holds them.

    Args:
      values: keys, or what stands in a set.
    """
    size, rest = 0, list(values)
    while rest:
        value = rest.pop()
        if isinstance(value, tuple | frozenset):
            size += _VALUE * len(value)
            rest += value
        elif isinstance(value, str | bytes):
            size += len(value)
    return size


def _text(key: Any) -> Any:
    return key.decode("utf-8", "replace") if isinstance(key, bytes) else key
