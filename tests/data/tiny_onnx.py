"""Writes ONNX models that answer every image with the same numbers, for tests of what reads them.

The few messages of the format that this needs are encoded by hand: no package is asked for.
"""

import numpy as np


def _field(number, content):
    """Returns one protobuf field: a whole number, a text, or bytes with their length before."""
    if isinstance(content, int):
        return _varint(number << 3) + _varint(content)
    content = content.encode() if isinstance(content, str) else content
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value):
    """Returns a whole number in groups of seven bits, the lowest first."""
    groups = []
    while value > 127:
        groups.append(value & 127 | 128)
        value >>= 7
    return bytes([*groups, value])


def _tensor(name, x):
    """Returns a constant, of float32 or int64."""
    kind = {"float32": 1, "int64": 7}[str(x.dtype)]
    dims = b"".join(_field(1, d) for d in x.shape)
    return dims + _field(2, kind) + _field(8, name) + _field(9, x.tobytes())


def _node(operator, inputs, output):
    """Returns an operation with one output."""
    names = b"".join(_field(1, name) for name in inputs)
    return names + _field(2, output) + _field(3, output) + _field(4, operator)


def _value(name, shape):
    """Returns the declaration of a float32 input or output."""
    dims = b"".join(_field(1, _field(1, d)) for d in shape)
    return _field(1, name) + _field(2, _field(1, _field(1, 1) + _field(2, dims)))


def write(path, image, outputs):
    """Writes a model that takes `[1, 3, H, W]`, `image`, and returns `outputs`, float32 by name.

    An output is its numbers plus zero times the image's maximum: OpenCV folds away what no input
    reaches.
    """
    constants = [_tensor("zero", np.zeros(1, np.float32))]
    nodes = [_node("ReduceMax", ["image"], "most"), _node("Mul", ["most", "zero"], "none")]
    for name, x in outputs.items():
        constants += [_tensor(f"{name}/x", x.astype(np.float32))]
        constants += [_tensor(f"{name}/rank", np.ones(x.ndim, np.int64))]
        nodes += [_node("Reshape", ["none", f"{name}/rank"], f"{name}/none")]
        nodes += [_node("Add", [f"{name}/x", f"{name}/none"], name)]
    graph = b"".join(_field(1, node) for node in nodes) + _field(2, "tiny")
    graph += b"".join(_field(5, constant) for constant in constants)
    graph += _field(11, _value("image", image))
    graph += b"".join(_field(12, _value(name, x.shape)) for name, x in outputs.items())
    path.write_bytes(_field(1, 8) + _field(8, _field(1, "") + _field(2, 13)) + _field(7, graph))
    return path
