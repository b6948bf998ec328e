"""Files that are damaged without a trace, or made to harm: refused in one short line. Harmless contents: read."""

import dataclasses
import shutil
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tests.convert.test_torch_file import rezip
from toontalker_jax.convert.convert import convert
from toontalker_jax.convert.torch_file import TorchFileError, open_torch_file
from toontalker_jax.convert.torch_writer import write_torch_file

FIXTURES = Path(__file__).parent / "fixtures"
DEEP = b")" + b"\x85" * 200_000  # a tuple of a tuple of a tuple …
WIDE = b")q\0" + b"h\0h\0\x86q\0" * 20  # pairs of pairs: 2 ** 20 texts if it is written out
STORAGE = b"X\7\0\0\0storagectorch\nFloatStorage\n"
TENSOR = b"ctorch._utils\n_rebuild_tensor\n"


@pytest.mark.parametrize("change", [b"\x01", b"\x00" * 40])
def test_a_flipped_or_zeroed_weight_is_refused(change, tmp_path):
    state = open_torch_file(FIXTURES / "cross_domain.pth")["gen"]
    tensor = state["dec.mlp.weight"]
    place = tensor.file.storages[tensor.storage_key].start + 100
    path = Path(shutil.copy(FIXTURES / "cross_domain.pth", tmp_path / "a.pth"))
    data = bytearray(path.read_bytes())
    data[place : place + len(change)] = bytes([data[place] ^ 1]) if len(change) == 1 else change
    path.write_bytes(data)
    with pytest.raises(TorchFileError, match=f"data/{tensor.storage_key}: its checksum does not fit: download"):
        open_torch_file(path)


def test_a_checksum_takes_the_memory_of_a_piece(tmp_path):
    write_torch_file(tmp_path / "a.pt", {"a": np.zeros(2**23, np.float32)})
    tracemalloc.start()
    open_torch_file(tmp_path / "a.pt")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**23


def test_a_flipped_letter_of_a_name_is_refused(tmp_path):
    data = (FIXTURES / "tensors_zip.pt").read_bytes()
    (tmp_path / "a.pt").write_bytes(data.replace(b"transposed", b"transpoSed"))
    with pytest.raises(TorchFileError, match=r"data\.pkl: its checksum"):
        open_torch_file(tmp_path / "a.pt")


def test_a_file_saved_without_checksums_is_read():
    np.testing.assert_array_equal(open_torch_file(FIXTURES / "no_sums_zip.pt")["a"], [0, 1, 2])


def test_a_single_missing_checksum_is_refused(tmp_path):
    # torch.serialization.skip_data leaves 0 for the storages alone, and no numbers
    path = rezip(tmp_path / "x.pt", {})
    with zipfile.ZipFile(path) as archive:
        name, crc = next((i.filename, i.CRC) for i in archive.infolist() if i.filename.endswith("data/0"))
    path.write_bytes(path.read_bytes().replace(struct.pack("<I", crc), bytes(4)))
    with pytest.raises(TorchFileError, match=f"{name}: its checksum does not fit: download .* is 0"):
        open_torch_file(path)


def refusal(tmp_path, code: bytes) -> str:
    """The message that refuses the zip fixture with this pickle."""
    with pytest.raises(TorchFileError) as caught:
        open_torch_file(rezip(tmp_path / "x.pt", {"data.pkl": b"\x80\x02" + code + b"."}))
    message = str(caught.value)
    assert "\n" not in message and len(message) < 400 + len(str(tmp_path))
    return message


@pytest.mark.parametrize(
    "code",
    [
        b"}" + DEEP + b"Ns",
        b"}(" + DEEP + b"Nu",
        b"\x8f(" + DEEP + b"\x90",
        b"c__builtin__\nset\n]" + DEEP + b"a\x85R",
        b"ccollections\nOrderedDict\n]" + DEEP + b"N\x86a\x85R",
    ],
    ids=["setitem", "setitems", "additems", "set", "dict"],
)
def test_nested_keys_are_refused(code, tmp_path):
    assert "a tuple as a key" in refusal(tmp_path, code)


def test_nested_names_of_storages_are_refused(tmp_path):
    assert "unknown persistent id" in refusal(tmp_path, b"(" + STORAGE + DEEP + b"NK\1tQ")
    data = (FIXTURES / "tensors_legacy.pt").read_bytes()
    head = data[: data.index(b".", data.index(b"little_endian")) + 1]
    (tmp_path / "old.pth").write_bytes(head + b"\x80\x02}.\x80\x02]" + DEEP + b"a.")
    with pytest.raises(TorchFileError, match="no list of storages"):
        open_torch_file(tmp_path / "old.pth")


@pytest.mark.parametrize(
    "code",
    [
        WIDE + b"(h\0NNNK\1tQ",
        WIDE + b"(" + STORAGE + b"X\1\0\0\0" + b"0Nh\0tQ",
        WIDE + TENSOR + b"((" + STORAGE + b"X\1\0\0\0" + b"0NK\x3ctQK\0h\0)tR",
        WIDE + b"N\x93",
        WIDE + b"ctorch\ndevice\nh\0\x85R",
    ],
    ids=["persistent id", "count", "shape", "global", "device"],
)
def test_no_content_is_written_out(code, tmp_path):
    tracemalloc.start()
    refusal(tmp_path, code)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


def test_long_numbers_are_not_written_out(tmp_path):
    refusal(tmp_path, b"g" + b"1" * 4000 + b"\n")


def test_a_system_that_is_not_read_is_not_written_out(tmp_path):
    magic = (FIXTURES / "tensors_legacy.pt").read_bytes()[:15]
    (tmp_path / "old.pth").write_bytes(magic + b"\x80\x02" + WIDE + b".\x80\x02}.")
    with pytest.raises(TorchFileError, match="unknown protocol") as caught:
        open_torch_file(tmp_path / "old.pth")
    assert len(str(caught.value)) < 400 + len(str(tmp_path))


def test_devices_that_are_none_are_refused(tmp_path):
    device = b"ctorch\ndevice\n"
    doubled = b"X\4\0\0\0cuda" + (b"q\0" + device + b"h\0h\0\x86R") * 24  # device(x, x) = "x:x"
    for code in (doubled, device + b"X\x28\0\0\0" + b"c" * 40 + b"\x85R", device + b"X\4\0\0\0cudaJ\0\0\0\1\x86R"):
        assert "torch.device of an unknown kind" in refusal(tmp_path, code)


def test_a_compressed_byteorder_is_not_unpacked(tmp_path):
    path = tmp_path / "x.pt"
    rezip(path, {"byteorder": None})
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        prefix = archive.namelist()[0].split("/")[0]
        archive.writestr(f"{prefix}/byteorder", b"little" * 10**6)
    with pytest.raises(TorchFileError, match="byteorder is compressed"):
        open_torch_file(path)
    with pytest.raises(TorchFileError, match="big-endian"):
        open_torch_file(rezip(path, {"byteorder": b"little" * 4}))


def storage(key: bytes, count: int, view: bytes = b"") -> bytes:
    return b"(" + STORAGE + b"X\1\0\0\0" + key + b"N" + b"K" + bytes([count]) + view + b"tQ"


@pytest.mark.parametrize("order", [1, -1])
def test_the_larger_of_two_sizes_of_a_storage_counts(order, tmp_path):
    code = b"](" + b"".join([storage(b"0", 2), storage(b"0", 200)][::order]) + b"e"
    assert "data/0 is shorter" in refusal(tmp_path, code)


def test_a_view_beyond_its_storage_is_refused(tmp_path):
    assert "data/0 is shorter" in refusal(tmp_path, storage(b"0", 60, b"(NK\x32K\x0bt"))
    open_torch_file(rezip(tmp_path / "x.pt", {"data.pkl": b"\x80\x02" + storage(b"0", 60, b"(NK\x32K\x0at") + b"."}))


@pytest.mark.parametrize(("function", "dtype"), [(b"v2", b""), (b"v3", b"ctorch\nfloat32\n")])
@pytest.mark.parametrize("bit", [b"neg", b"cpu"])
def test_a_view_of_the_other_sign_is_refused_and_other_notes_of_a_tensor_are_not(bit, function, dtype, tmp_path):
    notes = b"}X\3\0\0\0" + bit + b"\x88s"
    code = b"ctorch._utils\n_rebuild_tensor_" + function + b"\n(" + storage(b"0", 60) + b"K\0K\2\x85K\1\x85\x89}"
    code += dtype + notes + b"tR"
    if bit == b"neg":
        assert "save tensor.resolve_conj().resolve_neg() again" in refusal(tmp_path, code)
    else:
        open_torch_file(rezip(tmp_path / "x.pt", {"data.pkl": b"\x80\x02" + code + b"."}))


def test_an_expanded_tensor_is_not_converted():
    tree = open_torch_file(FIXTURES / "cross_domain.pth")
    tensor = tree["gen"]["dec.direction.weight"]
    for shape in ((20_000, 20_000), (2**40, 2**20)):
        tree["gen"]["dec.direction.weight"] = dataclasses.replace(tensor, shape=shape, strides=(0, 0))
        with pytest.raises(ValueError, match="gen/dec.direction.weight is expanded"):
            convert(tree)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_what_training_scripts_save_beside_networks_does_no_harm(protocol):
    tree = open_torch_file(FIXTURES / f"harmless_{protocol}.pt")  # 2: a zip archive, the others: legacy files
    np.testing.assert_array_equal(tree["a"], [0, 1, 2])
    assert tree["scores"] == {"a": {"b": 1}} and tree["seen"] == {1, 2}
    assert set(tree["numbers"]) == {"best", "step"}


def test_an_opcode_without_a_place_is_no_damage():
    with pytest.raises(TorchFileError, match="FROZENSET has no place in a checkpoint; .*save again"):
        open_torch_file(FIXTURES / "frozenset_zip.pt")
