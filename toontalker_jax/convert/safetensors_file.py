"""Reads `.safetensors` files: eight bytes of length, a JSON header, then the tensors' bytes, little-endian."""

import json
import math
import reprlib
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from toontalker_jax.convert.lazy_tensor import ByteRange, LazyTensor, TensorFile, check_file

_DTYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U64": np.uint64,
    "U32": np.uint32,
    "U16": np.uint16,
    "U8": np.uint8,
    "BOOL": np.bool_,
}
_LONGEST_HEADER = 100_000_000  # bytes; the format's own limit


def open_safetensors_file(path: str | Path) -> dict[str, dict[str, LazyTensor]]:
    """The tensors as an official file nests them: "gen_real.enc.…" → {"gen_real": {"enc.…": tensor}}.

    If no name begins so, all are one network's, and come under "gen". Only the header is read; `LazyTensor`s read the
    rest when asked.

    Raises:
      TorchFileError: no such file, not this format, truncated, or a tensor that its bytes do not hold.
    """
    path = Path(path)
    check_file(path, "a .safetensors file")
    file = TensorFile(path, {})
    header, start = _read_header(file)
    tree: dict[str, dict[str, LazyTensor]] = {}
    nested = any(name.startswith(("gen.", "gen_real.")) for name in header)
    for name, entry in header.items():
        network, _, rest = name.partition(".") if nested else ("gen", "", name)
        if rest in tree.setdefault(network, {}):
            raise file.fail(f"two tensors are both named {name[:80]}; rename one and save it again")
        tree[network][rest] = _tensor(file, name, entry, start)
    return tree


def is_safetensors(path: str | Path) -> bool:
    """Whether it begins as such a file does, whatever its name."""
    path = Path(path)
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        return stream.read(9)[8:] == b"{"


def _read_header(file: TensorFile) -> tuple[dict[str, Any], int]:
    """The header without its metadata, and where the tensors' bytes begin."""
    with file.path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        text = stream.read(length) if length <= _LONGEST_HEADER else b""
    try:
        header = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        raise file.fail("not a .safetensors file, truncated, or with a name twice; copy or download it again")
    header.pop("__metadata__", None)
    return header, 8 + length


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a name twice")
    return dict(pairs)


def _integers(values: Any) -> tuple[int, ...]:
    if not isinstance(values, list) or len(values) > 64 or not all(type(value) is int for value in values):
        raise TypeError("not a list of integers")
    return tuple(values)


def _tensor(file: TensorFile, name: str, entry: Any, start: int) -> LazyTensor:
    try:
        dtype, shape = np.dtype(_DTYPES[entry["dtype"]]), _integers(entry["shape"])
        first, last = _integers(entry["data_offsets"])
    except (LookupError, TypeError, ValueError) as error:
        raise file.fail(
            f"{name[:80]} is described as {reprlib.repr(entry)}, which is not read ({error!r:.80})"
        ) from None
    if min((first, *shape)) < 0 or last - first != math.prod(shape) * dtype.itemsize:
        raise file.fail(
            f"{name[:80]} of shape {shape} does not fit its bytes {first} to {last}; copy or download it again"
        )
    if start + last > file.path.stat().st_size:
        raise file.fail(f"truncated inside {name[:80]}; copy or download it again")
    file.storages[name] = ByteRange(start + first, last - first)
    strides = tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
    return LazyTensor(shape, dtype, strides, 0, name, file)
