"""Gives the input of an ONNX network a fixed size, since OpenCV reads few that leave it open.

Protobuf's wire format, and the field numbers of onnx.proto (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto).
"""

from collections.abc import Callable, Iterator, Sequence

_SHAPES_OF_INPUTS = 7, 11, 2, 1, 2  # ModelProto.graph, .input, .type, .tensor_type, .shape
_DIM, _DIM_VALUE = 1, 1  # of TensorShapeProto, and of its Dimension
_VARINT, _EIGHT_BYTES, _BYTES, _FOUR_BYTES = 0, 1, 2, 5  # wire types
_MOST = 1 << 31  # a side; -1, which is a number of 64 bits, says that it is open


def with_fixed_input(network: bytes, height: int, width: int) -> bytes:
    """An ONNX file's bytes, with each side that an input [N, C, H, W] leaves open fixed to 1, 3, height or width.

    Raises:
      ValueError: the bytes are no protobuf message.
    """
    return _changed(network, _SHAPES_OF_INPUTS, lambda shape: _fixed(shape, (1, 3, height, width)))


def _fixed(shape: bytes, sides: Sequence[int]) -> bytes:
    dims = [value for number, value, _ in _fields(shape) if number == _DIM]
    if len(dims) != len(sides):
        return shape
    known = [dict((number, value) for number, value, _ in _fields(dim)).get(_DIM_VALUE, 0) for dim in dims]
    chosen = [old if 0 < old < _MOST else new for old, new in zip(known, sides, strict=True)]
    return b"".join(_message(_DIM, varint(_DIM_VALUE << 3 | _VARINT) + varint(side)) for side in chosen)


def _changed(data: bytes, path: Sequence[int], change: Callable[[bytes], bytes]) -> bytes:
    """A message in which the messages at a path of field numbers are changed."""
    out = []
    for number, value, whole in _fields(data):
        if number == path[0] and isinstance(value, bytes):
            whole = _message(number, _changed(value, path[1:], change) if path[1:] else change(value))
        out.append(whole)
    return b"".join(out)


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes, bytes]]:
    """Number, value and all bytes of each field."""
    at = 0
    while at < len(data):
        start = at
        key, at = _read_varint(data, at)
        number, kind = key >> 3, key & 7
        value: int | bytes = b""
        if kind == _VARINT:
            value, at = _read_varint(data, at)
        elif kind == _BYTES:
            length, at = _read_varint(data, at)
            value, at = data[at : at + length], at + length
        elif kind in (_EIGHT_BYTES, _FOUR_BYTES):
            at += 8 if kind == _EIGHT_BYTES else 4
        else:
            raise ValueError(f"wire type {kind} at byte {start}: not an ONNX file")
        if at > len(data):
            raise ValueError(f"the field at byte {start} goes beyond the end: not an ONNX file, or cut short")
        yield number, value, data[start:at]


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    """The number that begins there, and where the next thing begins."""
    number = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            break
        number |= (data[at] & 127) << shift
        at += 1
        if data[at - 1] < 128:
            return number, at
    raise ValueError(f"no number ends at byte {at}: not an ONNX file, or cut short")


def varint(number: int) -> bytes:
    """A number from 0 on, as protobuf writes it."""
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def _message(number: int, data: bytes) -> bytes:
    return varint(number << 3 | _BYTES) + varint(len(data)) + data
