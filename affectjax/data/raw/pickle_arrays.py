"""What stands for NumPy's arrays, scalars and dtypes while a pickle is read.

A pickle makes an array in two steps, an empty one and then its content, and may refer to it between
them. NumPy's own way of taking that content trusts flags that stand in the file. Here a dtype is
made of its name alone, and an array of its bytes or, of objects, of its list of values.
"""

import dataclasses
import math
import re
from typing import Any

import numpy as np

_PLAIN = re.compile(r"[<>=|]?(\?|[biufc]\d{1,2}|[SU]\d{1,9}|O\d?)")
_OBJECT = np.dtype(object)


class Refused(Exception):
    """The pickle asks for something else than arrays and plain containers."""


@dataclasses.dataclass(slots=True)
class Dtype:
    """A dtype: plain numbers, bool, text or bytes of a fixed length, or objects."""

    value: np.dtype

    @classmethod
    def named(cls, *args: Any) -> "Dtype":
        """Returns the dtype of what `numpy.dtype` is called with.

        Args:
          *args: its name, and two flags that change nothing.

        Raises:
          Refused: it is of another kind, such as a record.
        """
        name = args[0].decode("latin1") if isinstance(args[0], bytes) else args[0]
        if not isinstance(name, str) or not _PLAIN.fullmatch(name):
            raise Refused(f"dtype {name!r} is none of numbers, bool, text, bytes and objects")
        return cls(_OBJECT if "O" in name else np.dtype(name))

    def build(self, state: Any) -> None:
        """Takes the byte order from the state of a dtype; the rest must say that it is plain."""
        _, order, inner, names, fields, size, *_ = state
        if not (inner is None and names is None and fields is None):
            raise Refused("a dtype of records or of arrays in arrays")
        if size not in (-1, self.value.itemsize):
            raise Refused(f"dtype {self.value.str} has not {size!r} bytes")
        order = order.decode("latin1") if isinstance(order, bytes) else order
        if order not in ("<", ">", "=", "|"):
            raise Refused(f"byte order {order!r}")
        if self.value != _OBJECT:
            self.value = np.dtype(self.value.newbyteorder(order).str)  # as native where it is


@dataclasses.dataclass(slots=True)
class Array:
    """An array; empty until it is built.

    Attributes:
      shape: its own.
      order: "C" or "F", in which its bytes stand.
      dtype: None before it is built.
      content: its bytes, or the list of its objects.
      axes: their order, where NumPy turned them to write the array.
    """

    shape: tuple[int, ...] = (0,)
    order: str = "C"
    dtype: np.dtype | None = None
    content: bytes | bytearray | list = b""
    axes: tuple[int, ...] | None = None

    @classmethod
    def of_buffer(
        cls, content: Any, dtype: Any, shape: Any, order: str, axes: Any = None
    ) -> "Array":
        """Returns the array of protocol 5's arguments, whose content is bytes."""
        if isinstance(content, str):
            raise Refused("an array of protocol 5 of a text")
        if order == "K" and axes is not None:
            order = "C"
        made = cls(axes=axes)
        made.build((1, shape, dtype, order == "F", content))
        return made

    def build(self, state: Any) -> None:
        """Takes the content from the state of an array.

        Raises:
          Refused: the parts do not go together.
        """
        *_, shape, dtype, fortran, content = state
        self.dtype = _of(dtype)
        self.shape, self.order = tuple(shape), "F" if fortran else "C"
        if not all(type(side) is int and side >= 0 for side in self.shape):
            raise Refused(f"an array of shape {shape!r}")
        content = content.encode("latin1") if isinstance(content, str) else content
        if not isinstance(content, list if self.dtype == _OBJECT else (bytes, bytearray)):
            raise Refused(f"an array of {self.dtype} with a {type(content).__name__}")
        self.content = content
        if not self.dtype.itemsize and math.prod(self.shape):
            raise Refused(f"an array {list(self.shape)} of values without a byte")
        if self.dtype != _OBJECT and self.size != len(content):
            raise Refused(f"{len(content)} bytes for {self.dtype} {list(self.shape)}")

    @property
    def size(self) -> int:
        """Returns the bytes of its values, as its shape has them."""
        return math.prod(self.shape) * (self.dtype.itemsize if self.dtype is not None else 0)

    def plain(self) -> np.ndarray:
        """Returns an array that is not of objects; it cannot be written to."""
        if not self.size:
            return np.empty(self.shape, self.dtype)
        flat = np.frombuffer(self.content, self.dtype)
        x = flat.reshape(self.shape, order=self.order)
        return x if self.axes is None else x.transpose(self.axes)

    def of_objects(self, values: list) -> np.ndarray:
        """Returns an array of objects.

        Args:
          values: as many as it has, by rows, as NumPy lists them in either order.
        """
        flat = np.empty(len(values), object)
        for place, value in enumerate(values):
            flat[place] = value
        return flat.reshape(self.shape)


def scalar(dtype: Any, content: Any) -> np.generic:
    """Returns the NumPy number, text or bytes of `numpy.core.multiarray.scalar`'s arguments."""
    kind = _of(dtype)
    content = content.encode("latin1") if isinstance(content, str) else content
    if kind == _OBJECT or not isinstance(content, bytes) or len(content) != kind.itemsize:
        raise Refused(f"a scalar of {kind} with a {type(content).__name__}")
    return np.frombuffer(content, kind)[0] if content else kind.type()


def _of(dtype: Any) -> np.dtype:
    if not isinstance(dtype, Dtype):
        raise Refused(f"a {type(dtype).__name__} where a dtype is expected")
    return dtype.value
