"""Writes small ONNX networks, byte by byte: protobuf's wire format, the field numbers of onnx.proto."""

import itertools
from collections.abc import Sequence

import numpy as np

from data_pipelines.onnx_input import varint


def _field(number: int, value: int | str | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value % (1 << 64))
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def _value(name: str, shape: Sequence[int | str]) -> bytes:
    """ValueInfoProto of a float array; sides that are open are -1 or have a name."""
    sides = b"".join(_field(1, _field(2 if isinstance(side, str) else 1, side)) for side in shape)
    return _field(1, name) + _field(2, _field(1, _field(1, 1) + _field(2, sides)))


def _tensor(name: str, array: np.ndarray) -> bytes:
    """TensorProto of a float32 or int64 array."""
    kind = {"float32": 1, "int64": 7}[array.dtype.name]
    sides = b"".join(_field(1, side) for side in array.shape)
    return sides + _field(2, kind) + _field(8, name) + _field(9, array.tobytes())


def node(operator: str, inputs: Sequence[str], output: str, **attributes: int | list[int]) -> bytes:
    """A NodeProto with integers, or lists of them, for attributes."""
    data = b"".join(_field(1, name) for name in inputs) + _field(2, output) + _field(3, output) + _field(4, operator)
    for name, value in attributes.items():
        single = isinstance(value, int)
        values = _field(3, value) if single else b"".join(_field(8, item) for item in value)
        data += _field(5, _field(1, name) + values + _field(20, 2 if single else 7))
    return data


def onnx_file(
    shape: Sequence[int | str], nodes: Sequence[bytes], constants: dict[str, np.ndarray], outputs: dict
) -> bytes:
    """A network of opset 11 on "picture" [*shape]; `outputs` are {name: shape}."""
    graph = itertools.chain(
        (_field(1, data) for data in nodes),
        (_field(2, "graph"),),
        (_field(5, _tensor(name, array)) for name, array in constants.items()),
        (_field(11, _value("picture", shape)),),
        (_field(12, _value(name, sides)) for name, sides in outputs.items()),
    )
    return _field(1, 6) + _field(8, _field(1, "") + _field(2, 11)) + _field(7, b"".join(graph))
