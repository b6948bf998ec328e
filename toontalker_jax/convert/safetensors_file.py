"""Reads `.safetensors` files: eight bytes of length, a JSON header, then the tensors' bytes, little-endian."""

import json
import math
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from toontalker_jax.convert.lazy_tensor import ByteRange, LazyTensor, TensorFile, TorchFileError

_DTYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
}
_LONGEST_HEADER = 100_000_000  # bytes; the format's own limit


def open_safetensors_file(path: str | Path) -> dict[str, dict[str, LazyTensor]]:
    """The tensors as an official file nests them: "gen_real.enc.…" → {"gen_real": {"enc.…": tensor}}.

    Names without such a prefix are one network's, and come under "gen". Only the header is read; `LazyTensor`s read the
    rest when asked.

    Raises:
      TorchFileError: no such file, not this format, truncated, or a tensor that its bytes do not hold.
    """
    path = Path(path)
    if not path.is_file():
        raise TorchFileError(f"{path}: no such file; give the path of a .safetensors file")
    file = TensorFile(path, {})
    header, start = _read_header(file)
    tree: dict[str, dict[str, LazyTensor]] = {}
    for name, entry in header.items():
        key, _, rest = name.partition(".")
        network, rest = (key, rest) if key in ("gen", "gen_real") else ("gen", name)
        tree.setdefault(network, {})[rest] = _tensor(file, name, entry, start)
    return tree


def _read_header(file: TensorFile) -> tuple[dict[str, Any], int]:
    """The header without its metadata, and where the tensors' bytes begin."""
    with file.path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        text = stream.read(length) if length <= _LONGEST_HEADER else b""
    try:
        header = json.loads(text)
    except ValueError:
        header = None
    if not isinstance(header, dict):
        raise file.fail("not a .safetensors file, or truncated; copy or download it again")
    header.pop("__metadata__", None)
    return header, 8 + length


def _tensor(file: TensorFile, name: str, entry: Any, start: int) -> LazyTensor:
    try:
        dtype, shape = np.dtype(_DTYPES[entry["dtype"]]), tuple(map(int, entry["shape"]))
        first, last = map(int, entry["data_offsets"])
    except (LookupError, TypeError, ValueError) as error:
        raise file.fail(f"{name} is described as {entry!r}, which is not read ({error!r})") from None
    if min((first, *shape)) < 0 or last - first != math.prod(shape) * dtype.itemsize:
        raise file.fail(f"{name} of shape {shape} does not fit its bytes {first} to {last}; copy or download it again")
    if start + last > file.path.stat().st_size:
        raise file.fail(f"truncated inside {name}; copy or download it again")
    file.storages[name] = ByteRange(start + first, last - first)
    strides = tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
    return LazyTensor(shape, dtype, strides, 0, name, file)
