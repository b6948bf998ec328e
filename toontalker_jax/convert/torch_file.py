"""Reads the files of `torch.save` without torch. (`torch_writer` writes them.)

Two formats: a zip archive (torch ≥ 1.6: `data.pkl` and one stored member a storage) and its predecessor (four pickles,
then the storages one after the other; torchvision's `vgg19-dcbb9e9d.pth` is one). Reading a file keeps its pickle only:
tensors come back as `LazyTensor`s, whose numbers are read when asked for. Of a zip archive every storage's checksum is
compared first; the older format has none. No code in a file can run (`torch_pickle`).
"""

import os
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any, BinaryIO

from toontalker_jax.convert.lazy_tensor import ASK_AGAIN, ByteRange, TensorFile, TorchFileError, check_file
from toontalker_jax.convert.torch_pickle import RefusedGlobalError, RefusedOpcodeError, read_pickle
from toontalker_jax.convert.torch_vocabulary import StorageRef, storage_loader, vocabulary

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_MAGIC_PICKLE = b"\x8a\x0a" + _LEGACY_MAGIC.to_bytes(10, "little") + b"."
_LEGACY_START = b"\x80\x02" + _MAGIC_PICKLE
_LEGACY_STARTS = (  # of pickle protocols 2 and 3; 4 and 5 put it into a frame
    *(_LEGACY_START, b"\x80\x03" + _MAGIC_PICKLE),
    *(bytes([0x80, protocol, 0x95, len(_MAGIC_PICKLE)]) + bytes(7) + _MAGIC_PICKLE for protocol in (4, 5)),
)
_REMEDY = "if you trust its origin, load it with torch and save only its state dicts"
# What random bytes make pickletools, zipfile and this file raise (found by flipping bytes)
_DAMAGE = (
    *(ValueError, TypeError, LookupError, OverflowError, MemoryError, RuntimeError, EOFError),
    *(struct.error, zipfile.BadZipFile),
)


def open_torch_file(path: str | Path) -> Any:
    """What `torch.save` was given: nested dicts and lists of `LazyTensor`s and plain values.

    Ordered dicts and `argparse.Namespace`s come back as dicts, parameters as tensors, devices as strings, dtypes as
    numpy's; attributes of a state dict (`_metadata`) are dropped. Raises TorchFileError for a file that is none of
    torch's, is truncated or damaged, or names a class or function outside the allow-list.
    """
    path = Path(path)
    check_file(path, "a file written by torch.save")
    file = TensorFile(path, {})
    with open(path, "rb") as stream:
        start = stream.read(512)
        stream.seek(0)
        try:
            if start.startswith(b"PK\x03\x04"):
                return _read_zip(file, stream)
            if start.startswith(_LEGACY_STARTS):
                return _read_legacy(file, stream)
        except TorchFileError:
            raise
        except RefusedGlobalError as error:
            raise file.fail(f"asks for '{error}', which no checkpoint of tensors needs: refused; {_REMEDY}") from None
        except RefusedOpcodeError as error:
            raise file.fail(f"{error}; {_REMEDY}: save again") from None
        except _DAMAGE as error:
            raise file.fail(f"truncated or damaged ({type(error).__name__}: {str(error)[:200]}); {ASK_AGAIN}") from None
    raise file.fail(_what_else(start))


def _what_else(start: bytes) -> str:
    """What a file is that begins so and is none of torch's."""
    if start.lstrip().lower().startswith((b"<!doctype", b"<html")):
        return "is a page of HTML, not the file that it links to; download the file itself"
    if start.startswith(b"version https://git-lfs"):
        return "is a pointer of Git LFS, not the file itself; get it with git lfs pull"
    if start[257:262] == b"ustar":
        return "the tar format of torch 0.1, which is not read; load it with torch 1.x and save it again"
    if _LEGACY_START.startswith(start[: len(_LEGACY_START)]):
        return f"truncated ({len(start)} bytes); {ASK_AGAIN}"
    return f"not a torch checkpoint (starts with {start[:8]!r}); give a file written by torch.save"


def _read_zip(file: TensorFile, stream: BinaryIO) -> Any:
    with zipfile.ZipFile(stream) as archive:
        members = {info.filename: info for info in archive.infolist()}
        pickles = [name for name in members if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise file.fail("a zip archive without data.pkl, so not a torch checkpoint; give a file of torch.save")
        prefix = pickles[0].removesuffix("data.pkl")
        if prefix + "constants.pkl" in members:
            raise file.fail("a TorchScript archive; load it with torch.jit.load and save its state_dict()")
        if order := members.get(prefix + "byteorder"):
            stream.seek(_locate(file, stream, order).start)
            if order.file_size > 16 or stream.read(order.file_size) != b"little":
                raise file.fail("written on a big-endian machine, which is not read; save it again on another")
        # torch.serialization.set_crc32_options(False) writes 0 for every member
        has_sums = any(info.CRC for info in members.values())
        place = _locate(file, stream, members[pickles[0]])
        if has_sums:
            _check_sum(file, stream, members[pickles[0]], place)
        stream.seek(place.start)
        references: dict[str, StorageRef] = {}
        tree = read_pickle(stream, vocabulary(file), storage_loader(references))
        for key, reference in references.items():
            info = members.get(f"{prefix}data/{key}")
            if info is None:
                raise file.fail(f"has no member data/{key}, which a tensor needs; {ASK_AGAIN}")
            file.storages[key] = _locate(file, stream, info)
            if file.storages[key].count < reference.count * reference.dtype.itemsize:
                raise file.fail(f"data/{key} is shorter than its tensors; {ASK_AGAIN}")
            if has_sums:
                _check_sum(file, stream, info, file.storages[key])
    return tree


def _locate(file: TensorFile, stream: BinaryIO, info: zipfile.ZipInfo) -> ByteRange:
    """The bytes of a stored member: behind its local header, whose extra field may differ from the directory's."""
    if info.compress_type != zipfile.ZIP_STORED:
        raise file.fail(f"{info.filename} is compressed, torch never does that; unpack and zip it with -0")
    stream.seek(info.header_offset)
    header = stream.read(30)
    if len(header) < 30 or header[:4] != b"PK\x03\x04":
        raise file.fail(f"truncated or damaged at {info.filename}; {ASK_AGAIN}")
    name_length, extra_length = struct.unpack("<HH", header[26:])
    start = info.header_offset + 30 + name_length + extra_length
    if start + info.file_size > os.fstat(stream.fileno()).st_size:
        raise file.fail(f"truncated inside {info.filename}; {ASK_AGAIN}")
    return ByteRange(start, info.file_size)


def _check_sum(file: TensorFile, stream: BinaryIO, info: zipfile.ZipInfo, place: ByteRange) -> None:
    """Compares a member's CRC, in pieces of 1 MiB."""
    stream.seek(place.start)
    found, left = 0, place.count
    while left and (piece := stream.read(min(left, 1 << 20))):
        found, left = zlib.crc32(piece, found), left - len(piece)
    if left or found != info.CRC:
        why = " (it is 0, as torch's skip_data leaves it: are there any numbers in it?)" if info.CRC == 0 else ""
        raise file.fail(f"{info.filename}: its checksum does not fit: download the file again{why}")


def _read_legacy(file: TensorFile, stream: BinaryIO) -> Any:
    read_pickle(stream, {})  # the magic number, already seen
    protocol, system = read_pickle(stream, {}), read_pickle(stream, {})
    if protocol != 1001 or not isinstance(system, dict) or system.get("little_endian") is not True:
        raise file.fail(
            "of an unknown protocol or a big-endian machine: not read; load it with torch and save it again"
        )
    references: dict[str, StorageRef] = {}
    tree = read_pickle(stream, vocabulary(file), storage_loader(references))
    file_size = os.fstat(stream.fileno()).st_size
    keys = read_pickle(stream, {})
    if type(keys) is not list or not all(type(key) is str for key in keys):
        raise file.fail(f"has no list of storages behind its pickle; {ASK_AGAIN}")
    for key in keys:
        reference = references[key]
        (count,) = struct.unpack("<q", stream.read(8))
        file.storages[key] = ByteRange(stream.tell(), count * reference.dtype.itemsize)
        if count < reference.count:
            raise file.fail(f"storage {key} has {count} elements, its tensors need {reference.count}; {ASK_AGAIN}")
        if stream.tell() + file.storages[key].count > file_size:
            raise file.fail(f"truncated inside storage {key}; {ASK_AGAIN}")
        stream.seek(file.storages[key].count, os.SEEK_CUR)
    if missing := references.keys() - file.storages.keys():
        raise file.fail(f"lacks the storage {min(missing)}; {ASK_AGAIN}")
    return tree
