"""Writes torch's zip checkpoint format without torch: files that `torch.load(..., weights_only=True)` accepts."""

import io
import os
import struct
import uuid
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from toontalker_jax.convert.torch_vocabulary import TORCH_DTYPES

_STORAGE_NAMES = {np.dtype(dtype): f"{prefix}Storage" for dtype, prefix in TORCH_DTYPES.values() if prefix}
_ALIGNMENT = 64  # torch starts every storage at a multiple of it, so that it can be memory-mapped


def write_torch_file(path: str | Path, tree: Any) -> None:
    """Write nested dicts, lists and tuples of arrays and plain values (None, bool, int, float, str) as torch.save does.

    Whatever has a shape and a dtype (numpy, jax or `LazyTensor`) becomes a contiguous tensor of its own storage, one
    array in memory at a time. The file appears under its name when it is complete. Raises ValueError for a value that a
    checkpoint cannot hold (before anything is written) and OSError if writing fails, with nothing left behind.
    """
    path = Path(path)
    pickle, arrays = io.BytesIO(), []
    pickle.write(b"\x80\x02")
    _emit(tree, pickle, arrays, "the root")
    pickle.write(b".")
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")  # nobody else's
    try:
        with open(partial, "xb") as file, zipfile.ZipFile(file, "w") as archive:
            _add(archive, file, "data.pkl", pickle.getbuffer())
            _add(archive, file, "byteorder", b"little")
            for index, array in enumerate(arrays):
                data = np.asarray(array, order="C").reshape(-1).view(np.uint8)
                _add(archive, file, f"data/{index}", data.data)
            _add(archive, file, "version", b"3\n")
        os.replace(partial, path)
    except BaseException as error:
        partial.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OSError(f"{path} could not be written, nothing of it is kept: {error}") from error
        raise


def _add(archive: zipfile.ZipFile, file: io.BufferedWriter, name: str, data: bytes | memoryview) -> None:
    info = zipfile.ZipInfo(f"archive/{name}")  # dated 1980: equal trees make equal files
    start = file.tell() + 30 + len(info.filename) + 4  # local header, name, and the padding field's own header
    padding = -start % _ALIGNMENT
    info.extra = b"FB" + struct.pack("<H", padding) + b"Z" * padding  # the field that torch pads with
    archive.writestr(info, data)


def _emit(value: Any, out: io.BytesIO, arrays: list[Any], where: str) -> None:
    """Write the opcodes that make `value`; arrays are put aside in `arrays` and named by their place there."""
    if isinstance(value, Mapping):
        out.write(b"}(")
        for key, item in value.items():
            _emit(key, out, arrays, f"a key of {where}")
            _emit(item, out, arrays, f"{where} / {key}")
        out.write(b"u")
    elif isinstance(value, (list, tuple)):
        out.write(b"](" if isinstance(value, list) else b"(")
        for index, item in enumerate(value):
            _emit(item, out, arrays, f"{where} / {index}")
        out.write(b"e" if isinstance(value, list) else b"t")
    elif isinstance(value, str):
        encoded = value.encode()
        out.write(b"X" + struct.pack("<I", len(encoded)) + encoded)
    elif value is None or isinstance(value, bool):
        out.write({None: b"N", True: b"\x88", False: b"\x89"}[value])
    elif isinstance(value, int):
        encoded = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
        out.write(b"\x8a" + bytes([len(encoded)]) + encoded)
    elif isinstance(value, float):
        out.write(b"G" + struct.pack(">d", value))
    elif np.dtype(getattr(value, "dtype", object)) in _STORAGE_NAMES:
        _emit_tensor(value, out, arrays)
    else:
        kind = f"an array of {value.dtype}" if hasattr(value, "dtype") else f"a {type(value).__name__}"
        raise ValueError(f"{where} is {kind}, which a torch file cannot hold; leave it out or convert it")


def _emit_tensor(array: Any, out: io.BytesIO, arrays: list[Any]) -> None:
    shape = tuple(int(n) for n in array.shape)
    strides = tuple(int(np.prod(shape[axis + 1 :], dtype=np.int64)) for axis in range(len(shape)))
    key = str(len(arrays))
    arrays.append(array)
    out.write(b"ctorch._utils\n_rebuild_tensor_v2\n((")
    _emit("storage", out, arrays, "")
    out.write(f"ctorch\n{_STORAGE_NAMES[np.dtype(array.dtype)]}\n".encode())
    for item in (key, "cpu", int(np.prod(shape, dtype=np.int64))):
        _emit(item, out, arrays, "")
    out.write(b"tQ")
    for item in (0, shape, strides, False):
        _emit(item, out, arrays, "")
    out.write(b"ccollections\nOrderedDict\n)RtR")
