"""Everything that a checkpoint of torch may name, and what stands for it here."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from toontalker_jax.convert.lazy_tensor import LazyTensor, TensorFile
from toontalker_jax.convert.torch_pickle import Builder, Namespace, Opaque, make_dict, make_set

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


@dataclass(frozen=True)
class StorageRef:
    """What the pickle says about a storage: its name, element type and element count, and where its view starts."""

    key: str
    dtype: np.dtype
    count: int
    first: int = 0


def storage_loader(references: dict[str, StorageRef]) -> Callable[[Any], StorageRef]:
    """Resolves ("storage", dtype, key, device, count[, view]) and collects the whole storages in `references`."""

    def load(identity: Any) -> StorageRef:
        kind, dtype, key, _, count, *view = identity
        first, whole = 0, count
        if view and view[0] is not None:  # before torch 0.4 a storage could be a part of another
            _, first, count = view[0]
        if kind != "storage" or not isinstance(dtype, np.dtype) or type(key) is not str:
            raise ValueError("an unknown persistent id")
        if not all(map(_is_count, (first, count, whole))):
            raise ValueError(f"storage {key[:40]} has no sensible size")
        known = references.get(key, StorageRef(key, dtype, 0))
        if known.dtype.itemsize != dtype.itemsize:
            raise ValueError(f"storage {key[:40]} has two element types")
        references[key] = StorageRef(key, dtype, max(known.count, whole, first + count))
        return StorageRef(key, dtype, count, first)

    return load


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 63


def _is_tuple_of_integers(value: Any) -> bool:
    return type(value) is tuple and len(value) <= 64 and all(type(item) is int for item in value)


def _device(kind: Any, index: Any = None) -> str:
    if type(kind) is not str or len(kind) > 32 or not (index is None or (_is_count(index) and index < 1 << 16)):
        raise ValueError("a torch.device of an unknown kind or number")
    return kind if index is None else f"{kind}:{index}"


def _opaque(*_: Any) -> Opaque:
    return Opaque()


def _refuse_bits(file: TensorFile, bits: Any = None) -> None:
    """torch notes a view that has the other sign than its storage ("neg"), or the conjugate."""
    if isinstance(bits, dict) and any(map(bits.get, ("neg", "conj"))):
        raise file.fail("a tensor with a sign bit, which is not read; save tensor.resolve_conj().resolve_neg() again")


def vocabulary(file: TensorFile) -> dict[str, Any]:
    """Everything that a checkpoint may name, and what stands for it here."""

    def tensor(storage: StorageRef, offset: int, shape: tuple, strides: tuple, dtype: np.dtype) -> LazyTensor:
        if not all(map(_is_tuple_of_integers, (shape, strides, (offset,)))) or not isinstance(dtype, np.dtype):
            raise ValueError("a tensor whose shape, strides, offset or dtype are none")
        if not all(map(_is_count, (offset, *shape, *strides))):
            raise ValueError(f"a tensor of shape {shape}, strides {strides}, offset {offset}")
        lazy = LazyTensor(shape, dtype, strides, storage.first + offset, storage.key, file)
        if (offset + lazy.extent) * dtype.itemsize > storage.count * storage.dtype.itemsize:
            raise ValueError(f"a tensor of shape {shape} reaches beyond its storage of {storage.count} elements")
        return lazy

    def typed(storage: StorageRef, offset: int, shape: tuple, strides: tuple, *rest: Any) -> LazyTensor:
        _refuse_bits(file, *rest[2:3])  # behind the gradient's flag and its hooks
        return tensor(storage, offset, shape, strides, storage.dtype)

    def untyped(storage: StorageRef, offset: int, shape: tuple, strides: tuple, *rest: Any) -> LazyTensor:
        _, _, dtype, *bits = rest
        _refuse_bits(file, *bits[:1])
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
        "torch.device": Builder(_device),
        "collections.OrderedDict": Builder(make_dict),
        "collections.Counter": Builder(make_dict),
        "argparse.Namespace": Builder(lambda *_: Namespace()),
        "collections.defaultdict": Builder(lambda _=None, items=(): make_dict(items)),
        "_codecs.encode": Builder(_opaque),  # bytes in pickles of protocol 2
        "numpy.dtype": Builder(_opaque),
    }
    for module in ("__builtin__", "builtins"):  # the former in pickles of protocol 2
        names[f"{module}.set"] = Builder(make_set)
        names |= {f"{module}.{name}": Opaque() for name in ("dict", "list", "int", "float")}  # of a defaultdict
    for module in ("numpy", "numpy.core", "numpy._core"):
        names[f"{module}.multiarray.scalar"] = Builder(_opaque)
    for name, (dtype, storage) in TORCH_DTYPES.items():
        names[f"torch.{name}"] = np.dtype(dtype)
        if storage:
            names[f"torch.{storage}Storage"] = names[f"torch.cuda.{storage}Storage"] = np.dtype(dtype)
    return names
