"""Interprets the opcodes of a pickle, protocols 0 to 5, without building what they name.

Python's unpickler calls what a pickle names. This one calls nothing of the kind: of the names that
pickles of arrays and plain containers hold, each has a function here that checks what it is given
and returns a plain value, or what stands for one (`pickle_arrays`). Any other is refused.
"""

import codecs
import io
import pickletools
import sys
from collections.abc import Callable
from typing import Any

from affectjax.data.raw.pickle_arrays import Array, Dtype, Refused, scalar

# What may be a key of a dictionary or stand in a set, and how many of them in tuples together: to
# hash tuples that hold the same tuple twice, and so on, can take for ever.
_MEMBERS = (str, bytes, int, float, complex, bool, type(None))
_LONGEST_KEY = 100
_MARK = sys.getsizeof([])  # bytes of an open mark


class Name:
    """A name of a module that the pickle asks for, as itself and not called."""

    def __init__(self, module: str, name: str):
        """Refuses every name but those of `_CALLS`."""
        self.words = f"{module}.{name}"
        if (module, name) not in _CALLS:
            raise Refused(self.words)
        self.call = _CALLS[module, name]


def interpret(file: io.BufferedIOBase, limit: float) -> Any:
    """Returns what a pickle holds; arrays are `Array`s, and lists may hold themselves.

    Args:
      file: at its first opcode.
      limit: bytes that containers, and values that the pickle makes of others, may take.

    Raises:
      Refused: it asks for something else.
      ValueError, or any other exception: it is no whole pickle.
    """
    return _Machine(limit).run(file)


class _Machine:
    """The stack and the memo of one pickle."""

    def __init__(self, limit: float):
        self.stack: list[Any] = []
        self.marked: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.limit, self.made = limit, 0

    def run(self, file: io.BufferedIOBase) -> Any:
        """Runs the opcodes up to STOP."""
        while code := file.read(1):
            read, act = _OPCODES[code]
            argument = read(file) if read else None
            if act is None:
                return self.stack.pop()
            act(self, argument)
        raise EOFError("it has no end")

    def take(self, size: int) -> None:
        """Counts bytes of memory, or raises Refused; a short pickle can make much of little."""
        self.made += size
        if self.made > self.limit:
            raise Refused("more memory than largest_mib allows")

    def items(self) -> list[Any]:
        """Returns what stands above the last mark, and takes it off."""
        items, self.stack = self.stack, self.marked.pop()
        self.made -= _MARK
        return items

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def push_made(self, value: Any) -> None:
        """Pushes a value that is no part of the file, and counts what it takes."""
        self.take(sys.getsizeof(value))
        self.stack.append(value)

    def mark(self, _: None) -> None:
        self.take(_MARK)
        self.marked.append(self.stack)
        self.stack = []

    def pop(self, _: None) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self.items()

    def put(self, place: int) -> None:
        self.memo[place] = self.stack[-1]

    def get(self, place: int) -> None:
        self.stack.append(self.memo[place])

    def last_of(self, kind: type) -> Any:
        """Returns the value on top, which must be of a kind."""
        if not isinstance(self.stack[-1], kind):
            raise ValueError(f"a {type(self.stack[-1]).__name__} where a {kind.__name__} stands")
        return self.stack[-1]

    def append(self, _: None) -> None:
        value = self.stack.pop()
        self.last_of(list).append(value)

    def extend(self, _: None) -> None:
        items = self.items()
        self.last_of(list).extend(items)

    def set_item(self, _: None) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.last_of(dict)[member(key)] = value

    def set_items(self, _: None) -> None:
        items = self.items()
        self.last_of(dict).update(_pairs(items))

    def add(self, _: None) -> None:
        items = self.items()
        self.last_of(set).update(map(member, items))

    def tuple_of(self, count: int) -> None:
        if len(self.stack) < count:
            raise ValueError("a tuple of more values than there are")
        made = tuple(self.stack[-count:])
        del self.stack[-count:]
        self.push_made(made)

    def collect(self, make: Callable[[list[Any]], Any]) -> None:
        items = self.items()
        self.push_made(make(items))

    def name(self, words: str) -> None:
        self.stack.append(Name(*words.split(" ", 1)))

    def refuse(self, opcode: str) -> None:
        raise Refused(f"the opcode {opcode}")

    def name_of_instance(self, words: str) -> None:
        raise Refused(f"an instance of {words.replace(' ', '.', 1)}")

    def name_of_stack(self, _: None) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if not (isinstance(name, str) and isinstance(module, str)):
            raise ValueError("a name that is no text")
        self.stack.append(Name(module, name))

    def call(self, _: None) -> None:
        arguments = self.stack.pop()
        if not isinstance(arguments, tuple) or not isinstance(self.stack[-1], Name):
            raise ValueError("a call of something that has no name")
        self.push_made(self.stack.pop().call(*arguments))

    def build(self, _: None) -> None:
        state = self.stack.pop()
        if not isinstance(self.stack[-1], Array | Dtype) or not isinstance(state, tuple):
            raise Refused(f"a state of a {type(self.stack[-1]).__name__}")
        # An array makes bytes of its text each time.
        self.take(sum(len(part) for part in state if isinstance(part, str)))
        self.stack[-1].build(state)


def member(value: Any) -> Any:
    """Returns a value that a set or the keys of a dictionary may have, or raises Refused."""
    rest, count = [value], 0
    while rest:
        one = rest.pop()
        if type(one) in (tuple, frozenset):
            count += len(one)
            if count > _LONGEST_KEY:
                raise Refused(f"more than {_LONGEST_KEY} values in a key, or in a set's value")
            rest += one
        elif not isinstance(one, _MEMBERS) and type(one).__module__ != "numpy":
            raise Refused(f"a {type(one).__name__} as a key, or in a set")
    return value


def _pairs(items: list[Any]) -> dict:
    """Returns a dictionary of keys and values in turn."""
    return dict(zip(map(member, items[::2]), items[1::2], strict=True))


def _string(file: io.BufferedIOBase) -> str:
    """Returns a text of Python 2 in quotes, which may be the bytes of an array."""
    line = file.readline().rstrip(b"\r\n")
    if len(line) < 2 or line[:1] not in b"\"'" or line[:1] != line[-1:]:
        raise ValueError("a text without quotes")
    return codecs.escape_decode(line[1:-1])[0].decode("latin1")


# What the names that are allowed return.


def _reconstruct(kind: Any, shape: Any, letter: Any) -> Array:
    """Returns an array that will be built."""
    del shape, letter
    if not isinstance(kind, Name) or kind.words != "numpy.ndarray":
        raise Refused("another kind of array")
    return Array()


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    """Returns the bytes that protocols 0 to 2 of Python 3 hide in a text."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise Refused(f"_codecs.encode with {encoding!r}")
    return text.encode("latin1")


def _bytes(content: Any = b"", encoding: Any = "latin1") -> bytes:
    """Returns bytes as they are, or as `_encode` has them."""
    return content if isinstance(content, bytes) else _encode(content, encoding)


def _bytearray(*arguments: Any) -> bytearray:
    return bytearray(_bytes(*arguments))


def _sequence(kind: type) -> Callable[..., Any]:
    def made(values: Any = ()) -> Any:
        if type(values) not in (list, tuple):
            raise ValueError(f"a {kind.__name__} of a {type(values).__name__}")
        return kind(map(member, values) if kind in (set, frozenset) else values)

    return made


def _dict(pairs: Any = ()) -> dict:
    if type(pairs) not in (list, tuple) or not all(len(pair) == 2 for pair in pairs):
        raise ValueError("a dict of no pairs")
    return {member(key): value for key, value in pairs}


def _complex(real: Any, imaginary: Any) -> complex:
    if not (isinstance(real, float) and isinstance(imaginary, float)):
        raise ValueError("a complex number of no numbers")
    return complex(real, imaginary)


def _ndarray(*_: Any) -> Any:
    raise Refused("numpy.ndarray, called")


_PYTHON = {
    "bytes": _bytes,
    "bytearray": _bytearray,
    "complex": _complex,
    "dict": _dict,
    **{kind.__name__: _sequence(kind) for kind in (list, tuple, set, frozenset)},
}
_CALLS: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "ndarray"): _ndarray,
    ("numpy", "dtype"): Dtype.named,
    ("_codecs", "encode"): _encode,
    ("collections", "OrderedDict"): _dict,
    **{(place, n): call for place in ("builtins", "__builtin__") for n, call in _PYTHON.items()},
}
for _core in ("numpy.core", "numpy._core"):
    _CALLS[f"{_core}.multiarray", "_reconstruct"] = _reconstruct
    _CALLS[f"{_core}.multiarray", "scalar"] = scalar
    _CALLS[f"{_core}.numeric", "_frombuffer"] = Array.of_buffer

# Opcodes that push their argument, and those that push the same thing each time.
_VALUES = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
    *("BYTEARRAY8", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
}
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
    "EMPTY_TUPLE": tuple,
}
_ACTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "PROTO": lambda machine, version: None,
    "FRAME": lambda machine, size: None,
    "MARK": _Machine.mark,
    "POP": _Machine.pop,
    "POP_MARK": lambda machine, _: machine.items() and None,
    "DUP": lambda machine, _: machine.stack.append(machine.stack[-1]),
    "PUT": _Machine.put,
    "BINPUT": _Machine.put,
    "LONG_BINPUT": _Machine.put,
    "MEMOIZE": lambda machine, _: machine.put(len(machine.memo)),
    "GET": _Machine.get,
    "BINGET": _Machine.get,
    "LONG_BINGET": _Machine.get,
    "APPEND": _Machine.append,
    "APPENDS": _Machine.extend,
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_items,
    "ADDITEMS": _Machine.add,
    "TUPLE1": lambda machine, _: machine.tuple_of(1),
    "TUPLE2": lambda machine, _: machine.tuple_of(2),
    "TUPLE3": lambda machine, _: machine.tuple_of(3),
    "LIST": lambda machine, _: machine.collect(list),
    "TUPLE": lambda machine, _: machine.collect(tuple),
    "DICT": lambda machine, _: machine.collect(_pairs),
    "FROZENSET": lambda machine, _: machine.collect(_PYTHON["frozenset"]),
    "GLOBAL": _Machine.name,
    "INST": _Machine.name_of_instance,
    "STACK_GLOBAL": _Machine.name_of_stack,
    "REDUCE": _Machine.call,
    "BUILD": _Machine.build,
}


def _opcode(opcode: pickletools.OpcodeInfo) -> tuple[Callable | None, Callable | None]:
    """Returns what reads the argument of an opcode, if any, and what it does; nothing for STOP."""
    name, read = opcode.name, opcode.arg and opcode.arg.reader
    if name == "STOP":
        return None, None
    if name in _VALUES:
        return _string if name == "STRING" else read, _Machine.push
    if name in _CONSTANTS:
        return None, lambda machine, _: machine.push_made(_CONSTANTS[name]())
    return read, _ACTIONS.get(name, lambda machine, _: machine.refuse(name))


_OPCODES = {opcode.code.encode("latin1"): _opcode(opcode) for opcode in pickletools.opcodes}
