"""Tensors whose numbers are still in their file."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ASK_AGAIN = "copy or download it again"


class TorchFileError(ValueError):
    """A file that is no readable torch checkpoint; the message is one line: file, fault, remedy."""


def check_file(path: Path, wanted: str) -> None:
    """Raises TorchFileError where there is no file, or a folder."""
    if path.is_dir():
        raise TorchFileError(f"{path}: is a folder; give the path of {wanted}")
    if not path.is_file():
        raise TorchFileError(f"{path}: no such file; give the path of {wanted}")


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

    @property
    def expanded(self) -> bool:
        """More elements than its storage has, by strides of 0: a few bytes of file may ask for any amount of memory."""
        return self.size * self.dtype.itemsize > self.file.storages[self.storage_key].count

    def numpy(self) -> np.ndarray:
        """The numbers, C-contiguous, a fresh array. Reads only this tensor's part of its storage."""
        start = self.file.storages[self.storage_key].start + self.offset * self.dtype.itemsize
        count = self.extent * self.dtype.itemsize
        with open(self.file.path, "rb") as file:
            file.seek(start)
            data = np.fromfile(file, np.uint8, count)
        if data.size < count:
            raise self.file.fail(f"ends inside a tensor, it was changed since it was opened; {ASK_AGAIN}")
        strides = [s * self.dtype.itemsize for s in self.strides]
        return np.asarray(np.ndarray(self.shape, self.dtype, data, strides=strides), order="C")

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("a lazy tensor cannot become an array without a copy: it is still in its file")
        return self.numpy() if dtype is None else self.numpy().astype(dtype, copy=False)

    def __repr__(self) -> str:
        return f"LazyTensor(shape={self.shape}, dtype={self.dtype})"
