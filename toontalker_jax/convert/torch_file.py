"""Reads the files of `torch.save` without torch. (`torch_writer` writes them.)

Two formats: a zip archive (torch ≥ 1.6: `data.pkl` and one stored member a storage) and its predecessor (four pickles,
then the storages one after the other; torchvision's `vgg19-dcbb9e9d.pth` is one). Reading a file reads its pickle only:
tensors come back as `LazyTensor`s, whose numbers are read when asked for. No code in a file can run (`torch_pickle`).
"""

import math
import os
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

from toontalker_jax.convert.torch_pickle import Builder, Namespace, RefusedGlobalError, read_pickle

# torch's dtype -> (numpy's, the prefix of its typed storage class, where torch has one)
TORCH_DTYPES = {
    "float32": (np.float32, "Float"),
    "float64": (np.float64, "Double"),
    "float16": (np.float16, "Half"),
    "bfloat16": (ml_dtypes.bfloat16, "BFloat16"),
    "int64": (np.int64, "Long"),
    "int32": (np.int32, "Int"),
    "int16": (np.int16, "Short"),
    "int8": (np.int8, "Char"),
    "uint8": (np.uint8, "Byte"),
    "bool": (np.bool_, "Bool"),
    "uint16": (np.uint16, None),
    "uint32": (np.uint32, None),
    "uint64": (np.uint64, None),
}
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_START = b"\x80\x02\x8a\x0a" + _LEGACY_MAGIC.to_bytes(10, "little")
# What random bytes make pickletools, zipfile and this file raise (found by flipping bytes)
_DAMAGE = (
    *(ValueError, TypeError, LookupError, OverflowError, MemoryError, RuntimeError, EOFError),
    *(struct.error, zipfile.BadZipFile),
)
_ASK_AGAIN = "copy or download it again"


class TorchFileError(ValueError):
    """A file that is no readable torch checkpoint; the message is one line: file, fault, remedy."""


@dataclass(frozen=True)
class ByteRange:
    """Where a storage's bytes lie in the file."""

    start: int
    count: int


@dataclass
class TensorFile:
    """The file behind its lazy tensors. `storages` is filled once the pickle has been read."""

    path: Path
    storages: dict[str, ByteRange]

    def fail(self, what: str) -> TorchFileError:
        return TorchFileError(f"{self.path}: {what}")


@dataclass(frozen=True)
class _StorageRef:
    """What the pickle says about a storage: its name, element type and element count, and where its view starts."""

    key: str
    dtype: np.dtype
    count: int
    first: int = 0


@dataclass(frozen=True, eq=False)
class LazyTensor:
    """A tensor whose numbers are still in the file.

    shape, strides and offset count elements of `dtype`, as torch does. Tensors with equal `storage_key` share memory in
    torch; here each reads its own copy. `numpy()`, or `np.asarray(tensor)`, reads it.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    strides: tuple[int, ...]
    offset: int
    storage_key: str
    file: TensorFile

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def extent(self) -> int:
        """Elements of the storage from this tensor's first to its last, both counted."""
        return 1 + sum((n - 1) * s for n, s in zip(self.shape, self.strides, strict=True)) if self.size else 0

    def numpy(self) -> np.ndarray:
        """The numbers, C-contiguous, a fresh array. Reads only this tensor's part of its storage."""
        start = self.file.storages[self.storage_key].start + self.offset * self.dtype.itemsize
        count = self.extent * self.dtype.itemsize
        with open(self.file.path, "rb") as file:
            file.seek(start)
            data = np.fromfile(file, np.uint8, count)
        if data.size < count:
            raise self.file.fail(f"ends inside a tensor, it was changed since it was opened; {_ASK_AGAIN}")
        strides = [s * self.dtype.itemsize for s in self.strides]
        return np.asarray(np.ndarray(self.shape, self.dtype, data, strides=strides), order="C")

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("a lazy tensor cannot become an array without a copy: it is still in its file")
        return self.numpy() if dtype is None else self.numpy().astype(dtype, copy=False)

    def __repr__(self) -> str:
        return f"LazyTensor(shape={self.shape}, dtype={self.dtype})"


def open_torch_file(path: str | Path) -> Any:
    """What `torch.save` was given: nested dicts and lists of `LazyTensor`s and plain values.

    Ordered dicts and `argparse.Namespace`s come back as dicts, parameters as tensors, devices as strings, dtypes as
    numpy's; attributes of a state dict (`_metadata`) are dropped. Raises TorchFileError for a file that is none of
    torch's, is truncated or damaged, or names a class or function outside the allow-list.
    """
    path = Path(path)
    if not path.is_file():
        raise TorchFileError(f"{path}: no such file; give the path of a file written by torch.save")
    file = TensorFile(path, {})
    with open(path, "rb") as stream:
        start = stream.read(512)
        stream.seek(0)
        try:
            if start.startswith(b"PK\x03\x04"):
                return _read_zip(file, stream)
            if start.startswith(_LEGACY_START):
                return _read_legacy(file, stream)
        except TorchFileError:
            raise
        except RefusedGlobalError as error:
            remedy = "if you trust its origin, load it with torch and save only its state dicts"
            raise file.fail(f"asks for '{error}', which no checkpoint of tensors needs: refused; {remedy}") from None
        except _DAMAGE as error:
            raise file.fail(f"truncated or damaged ({type(error).__name__}: {error}); {_ASK_AGAIN}") from None
    if start[257:262] == b"ustar":
        raise file.fail("the tar format of torch 0.1, which is not read; load it with torch 1.x and save it again")
    if _LEGACY_START.startswith(start[: len(_LEGACY_START)]):
        raise file.fail(f"truncated ({len(start)} bytes); {_ASK_AGAIN}")
    raise file.fail(f"not a torch checkpoint (starts with {start[:8]!r}); give a file written by torch.save")


def flatten(tree: Any) -> dict[str, LazyTensor]:
    """The tensors of what `open_torch_file` returned, by path: {"gen": {"a.weight": t}} → {"gen/a.weight": t}.

    Entries of lists and tuples are named by their number. Raises TorchFileError if two tensors get one path
    or the nesting is deeper than 100.
    """
    tensors: dict[str, LazyTensor] = {}

    def visit(value: Any, path: tuple[str, ...]) -> None:
        if len(path) > 100:  # a hostile file may hold a dict that holds itself
            raise TorchFileError(f"nested deeper than 100 at {'/'.join(path[:4])}…; save the state dicts alone")
        if isinstance(value, LazyTensor):
            name = "/".join(path)
            if name in tensors:
                raise value.file.fail(f"two tensors are both named {name!r}; rename one and save it again")
            tensors[name] = value
        elif isinstance(value, dict):
            for key, item in value.items():
                visit(item, (*path, str(key)))
        elif isinstance(value, (list, tuple)):
            for index, item in enumerate(value):
                visit(item, (*path, str(index)))

    visit(tree, ())
    return tensors


def _read_zip(file: TensorFile, stream: BinaryIO) -> Any:
    with zipfile.ZipFile(stream) as archive:
        members = {info.filename: info for info in archive.infolist()}
        pickles = [name for name in members if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise file.fail("a zip archive without data.pkl, so not a torch checkpoint; give a file of torch.save")
        prefix = pickles[0].removesuffix("data.pkl")
        if prefix + "constants.pkl" in members:
            raise file.fail("a TorchScript archive; load it with torch.jit.load and save its state_dict()")
        if prefix + "byteorder" in members and archive.read(prefix + "byteorder") != b"little":
            raise file.fail("written on a big-endian machine, which is not read; save it again on another")
        stream.seek(_locate(file, stream, members[pickles[0]]).start)
        references: dict[str, _StorageRef] = {}
        tree = read_pickle(stream, _vocabulary(file), _storage_loader(references))
        for key, reference in references.items():
            info = members.get(f"{prefix}data/{key}")
            if info is None:
                raise file.fail(f"has no member data/{key}, which a tensor needs; {_ASK_AGAIN}")
            file.storages[key] = _locate(file, stream, info)
            if file.storages[key].count < reference.count * reference.dtype.itemsize:
                raise file.fail(f"data/{key} is shorter than its tensors; {_ASK_AGAIN}")
    return tree


def _locate(file: TensorFile, stream: BinaryIO, info: zipfile.ZipInfo) -> ByteRange:
    """The bytes of a stored member: behind its local header, whose extra field may differ from the directory's."""
    if info.compress_type != zipfile.ZIP_STORED:
        raise file.fail(f"{info.filename} is compressed, torch never does that; unpack and zip it with -0")
    stream.seek(info.header_offset)
    header = stream.read(30)
    if len(header) < 30 or header[:4] != b"PK\x03\x04":
        raise file.fail(f"truncated or damaged at {info.filename}; {_ASK_AGAIN}")
    name_length, extra_length = struct.unpack("<HH", header[26:])
    start = info.header_offset + 30 + name_length + extra_length
    if start + info.file_size > os.fstat(stream.fileno()).st_size:
        raise file.fail(f"truncated inside {info.filename}; {_ASK_AGAIN}")
    return ByteRange(start, info.file_size)


def _read_legacy(file: TensorFile, stream: BinaryIO) -> Any:
    read_pickle(stream, {})  # the magic number, already seen
    protocol, system = read_pickle(stream, {}), read_pickle(stream, {})
    if protocol != 1001 or not isinstance(system, dict) or system.get("little_endian") is not True:
        raise file.fail(f"protocol {protocol}, system {system}: not read; load it with torch and save it again")
    references: dict[str, _StorageRef] = {}
    tree = read_pickle(stream, _vocabulary(file), _storage_loader(references))
    file_size = os.fstat(stream.fileno()).st_size
    for key in read_pickle(stream, {}):
        reference = references[key]
        (count,) = struct.unpack("<q", stream.read(8))
        file.storages[key] = ByteRange(stream.tell(), count * reference.dtype.itemsize)
        if count < reference.count:
            raise file.fail(f"storage {key} has {count} elements, its tensors need {reference.count}; {_ASK_AGAIN}")
        if stream.tell() + file.storages[key].count > file_size:
            raise file.fail(f"truncated inside storage {key}; {_ASK_AGAIN}")
        stream.seek(file.storages[key].count, os.SEEK_CUR)
    if missing := references.keys() - file.storages.keys():
        raise file.fail(f"lacks the storage {min(missing)}; {_ASK_AGAIN}")
    return tree


def _storage_loader(references: dict[str, _StorageRef]) -> Callable[[Any], _StorageRef]:
    """Resolves ("storage", dtype, key, device, count[, view]) and collects the whole storages in `references`."""

    def load(identity: Any) -> _StorageRef:
        kind, dtype, key, _, count, *view = identity
        if kind != "storage" or not isinstance(dtype, np.dtype) or not _is_count(count):
            raise ValueError(f"unknown persistent id {identity!r}")
        if references.setdefault(key, _StorageRef(key, dtype, count)).dtype.itemsize != dtype.itemsize:
            raise ValueError(f"storage {key} has two element types")
        if view and view[0] is not None:  # before torch 0.4 a storage could be a part of another
            _, first, count = view[0]
            return _StorageRef(key, dtype, count, first)
        return _StorageRef(key, dtype, count)

    return load


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _vocabulary(file: TensorFile) -> dict[str, Any]:
    """Everything that a checkpoint may name, and what stands for it here."""

    def tensor(storage: _StorageRef, offset: int, shape: tuple, strides: tuple, dtype: np.dtype) -> LazyTensor:
        if not all(map(_is_count, (offset, storage.first, storage.count, *shape, *strides))):
            raise ValueError(f"a tensor of shape {shape}, strides {strides}, offset {offset}")
        lazy = LazyTensor(tuple(shape), dtype, tuple(strides), storage.first + offset, storage.key, file)
        if (offset + lazy.extent) * dtype.itemsize > storage.count * storage.dtype.itemsize:
            raise ValueError(f"a tensor of shape {shape} reaches beyond its storage of {storage.count} elements")
        return lazy

    def typed(storage: _StorageRef, offset: int, shape: tuple, strides: tuple, *_: Any) -> LazyTensor:
        return tensor(storage, offset, shape, strides, storage.dtype)

    def untyped(
        storage: _StorageRef, offset: int, shape: tuple, strides: tuple, grad: Any, hooks: Any, dtype: np.dtype, *_: Any
    ) -> LazyTensor:
        return tensor(storage, offset, shape, strides, dtype)

    def parameter(data: LazyTensor, *_: Any) -> LazyTensor:
        return data

    names = {
        "torch._utils._rebuild_tensor": Builder(typed),
        "torch._utils._rebuild_tensor_v2": Builder(typed),
        "torch._utils._rebuild_tensor_v3": Builder(untyped),
        "torch._utils._rebuild_parameter": Builder(parameter),
        "torch._utils._rebuild_parameter_with_state": Builder(parameter),
        "torch.nn.parameter.Parameter": Builder(parameter),
        "torch.storage.UntypedStorage": np.dtype(np.uint8),
        "torch.Size": Builder(tuple),
        "torch.device": Builder(lambda kind, index=None: kind if index is None else f"{kind}:{index}"),
        "collections.OrderedDict": Builder(dict),
        "collections.Counter": Builder(dict),
        "argparse.Namespace": Builder(Namespace),
        "__builtin__.set": Builder(set),  # the name of `builtins` in pickles of protocol 2
    }
    for name, (dtype, storage) in TORCH_DTYPES.items():
        names[f"torch.{name}"] = np.dtype(dtype)
        if storage:
            names[f"torch.{storage}Storage"] = names[f"torch.cuda.{storage}Storage"] = np.dtype(dtype)
    return names
