"""Files that torch wrote (fixtures/, see make_fixtures.py), read without it; and broken ones, refused."""

import io
import pickle
import shutil
import struct
import zipfile
from pathlib import Path

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from toontalker_jax.convert.convert import convert
from toontalker_jax.convert.lazy_tensor import LazyTensor, TorchFileError
from toontalker_jax.convert.torch_file import open_torch_file
from toontalker_jax.convert.torch_pickle import Builder, RefusedGlobalError, read_pickle
from toontalker_jax.convert.torch_writer import write_torch_file

FIXTURES = Path(__file__).parent / "fixtures"
BASE = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
HALF = np.arange(-3, 3) / 4
EXPECTED = {  # what make_fixtures.tensors() holds
    "base": BASE,
    "transposed": BASE.transpose(2, 0, 1),
    "window": BASE[1:, 1:3, ::2],
    "expanded": np.array([[0, 1, 2], [0, 1, 2]], np.float32),
    "scalar": np.float32(2.5),
    "empty": np.zeros((0, 3), np.float32),
    "parameter": np.array([1, -1], np.float32),
    "float16": HALF.astype(np.float16),
    "bfloat16": HALF.astype(ml_dtypes.bfloat16),
    "float64": HALF,
    **{name: np.array([0, 1, 5]).astype(name) for name in "int64 int32 int16 int8 uint8 bool".split()},
}


@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_every_tensor_of_a_torch_file_is_read_exactly(form):
    state = open_torch_file(FIXTURES / f"tensors_{form}.pt")["gen"]
    assert list(state) == list(EXPECTED)
    for name, expected in EXPECTED.items():
        tensor = state[name]
        assert isinstance(tensor, LazyTensor)
        array = tensor.numpy()
        assert array.dtype == tensor.dtype == expected.dtype, name
        assert array.shape == tensor.shape == expected.shape, name
        assert array.flags.c_contiguous and array.flags.writeable
        np.testing.assert_array_equal(array, expected, err_msg=name)
    views = ("base", "transposed", "window", "expanded")
    assert {state[name].storage_key for name in views} == {state["base"].storage_key}
    assert state["window"].strides == (20, 5, 2) and state["window"].offset == 25
    np.testing.assert_array_equal(np.asarray(state["window"], np.int32), EXPECTED["window"])


@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_plain_values_survive(form):
    tree = open_torch_file(FIXTURES / f"tensors_{form}.pt")
    assert tree["args"] == {"size": 64, "name": "tiny", "device": "cuda:1"}
    assert tree["plain"] == [1, -(2**40), 0.5, "text", None, True, (2, 3), np.dtype(np.float16), {3, 4}]
    assert tree["optimizer"]["param_groups"] == [{"lr": 5e-4, "betas": (0.0, 0.99)}]
    assert tree["optimizer"]["state"][0]["step"].numpy() == 7


def test_a_dict_that_holds_itself_is_refused(tmp_path):
    path = rezip(tmp_path / "x.pt", {"data.pkl": b"\x80\x02}q\0X\3\0\0\0genh\0s."})
    with pytest.raises(ValueError, match="no enc.convs"):
        convert(open_torch_file(path))


def test_a_tensor_of_an_untyped_storage_is_read():
    np.testing.assert_array_equal(open_torch_file(FIXTURES / "untyped_zip.pt")["a"], np.array([1, 65535], np.uint16))


def test_a_read_takes_only_its_own_part_of_the_storage(tmp_path):
    # Everything behind the first row is cut off after opening: a reader of whole storages would notice.
    path = shutil.copy(FIXTURES / "tensors_zip.pt", tmp_path / "a.pt")
    state = open_torch_file(path)["gen"]
    start = state["base"].file.storages[state["base"].storage_key].start
    with open(path, "r+b") as file:
        file.truncate(start + 12)
    np.testing.assert_array_equal(state["expanded"].numpy(), EXPECTED["expanded"])
    with pytest.raises(TorchFileError, match="ends inside a tensor"):
        state["base"].numpy()


@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_a_call_in_a_pickle_is_refused_by_name_and_never_made(form, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TorchFileError, match=r"asks for 'posix\.system'.*refused; if you trust"):
        open_torch_file(FIXTURES / f"evil_{form}.pt")
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_every_truncation_is_refused_in_one_line(form, tmp_path):
    data = (FIXTURES / f"tensors_{form}.pt").read_bytes()
    path = tmp_path / "cut.pt"
    for length in [*range(5, 60, 7), *range(60, len(data) - 1, 211), len(data) - 1]:
        path.write_bytes(data[:length])
        with pytest.raises(TorchFileError, match="truncated|not a torch checkpoint") as caught:
            open_torch_file(path)
        assert "\n" not in str(caught.value) and str(path) in str(caught.value)


@pytest.mark.filterwarnings("ignore")  # Python warns of odd escapes in a damaged string
@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_flipped_bytes_are_refused_in_one_line_or_do_no_harm(form, tmp_path):
    data = (FIXTURES / f"tensors_{form}.pt").read_bytes()
    path, rng = tmp_path / "flipped.pt", np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        damaged = bytearray(data)
        for place in rng.integers(0, len(data), 3):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            open_torch_file(path)
        except TorchFileError as error:
            refused += "\n" not in str(error)
    assert refused > 50  # most flips of the zip fall into padding


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "truncated"),
        (b"hello, I am a text", "not a torch checkpoint"),
        (b"\x00" * 257 + b"ustar" + b"\x00" * 250, "tar format"),
        (b"\n<!DOCTYPE html><html>", "page of HTML"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "pointer of Git LFS"),
        (b"\x80\x04\x95", "not a torch checkpoint"),  # any other pickle
    ],
)
def test_other_files_are_refused(content, message, tmp_path):
    path = tmp_path / "x.pt"
    path.write_bytes(content)
    with pytest.raises(TorchFileError, match=message):
        open_torch_file(path)


def test_a_missing_file_a_script_and_another_zip_are_refused(tmp_path):
    with pytest.raises(TorchFileError, match="no such file"):
        open_torch_file(tmp_path / "none.pt")
    with pytest.raises(TorchFileError, match="TorchScript"):
        open_torch_file(FIXTURES / "script_zip.pt")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(TorchFileError, match=r"without data\.pkl"):
        open_torch_file(tmp_path / "other.zip")


def rezip(path: Path, change: dict[str, bytes | None], compression: int = zipfile.ZIP_STORED) -> Path:
    """The zip fixture with some members replaced, or left out where None."""
    with zipfile.ZipFile(FIXTURES / "tensors_zip.pt") as old, zipfile.ZipFile(path, "w", compression) as new:
        for name in old.namelist():
            content = change.get(name.split("/", 1)[1], old.read(name))
            if content is not None:
                new.writestr(name, content)
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data/0": None}, "no member data/0"),
        ({"data/0": b"short"}, "data/0 is shorter"),
        ({"byteorder": b"big"}, "big-endian"),
        ({"data.pkl": b"\x80\x02}q"}, "truncated or damaged"),
    ],
)
def test_damaged_members_are_refused(change, message, tmp_path):
    with pytest.raises(TorchFileError, match=message):
        open_torch_file(rezip(tmp_path / "x.pt", change))


def test_compressed_members_are_refused(tmp_path):
    with pytest.raises(TorchFileError, match="compressed"):
        open_torch_file(rezip(tmp_path / "x.pt", {}, zipfile.ZIP_DEFLATED))


@pytest.mark.parametrize(
    ("offset", "shape", "strides", "message"),
    [
        (0, (7, 9), (9, 1), "beyond its storage"),
        (1, (60,), (1,), "beyond its storage"),
        (-1, (2,), (1,), "offset -1"),
        (59, (2,), (-1,), r"strides \(-1,\)"),
        (0, (2, 2), (1,), "damaged"),
    ],
)
def test_a_tensor_that_leaves_its_storage_is_refused(offset, shape, strides, message, tmp_path):
    def number(n: int) -> bytes:
        return b"J" + struct.pack("<i", n)

    def numbers(values: tuple[int, ...]) -> bytes:
        return b"(" + b"".join(map(number, values)) + b"t"

    tensor = b"ctorch._utils\n_rebuild_tensor\n((X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0" + b"0X\3\0\0\0cpu"
    tensor += number(60) + b"tQ" + number(offset) + numbers(shape) + numbers(strides) + b"tR"
    with pytest.raises(TorchFileError, match=message):
        open_torch_file(rezip(tmp_path / "x.pt", {"data.pkl": b"\x80\x02" + tensor + b"."}))


def test_parameters_of_2017_are_read(tmp_path):
    # torch 0.1 pickled a state dict's parameters as Parameter(tensor) with a state of flags.
    storage = b"(X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0" + b"0X\3\0\0\0cpuK\2NtQ"
    tensor = b"ctorch._utils\n_rebuild_tensor\n(" + storage + b"K\0K\2\x85K\1\x85tR"
    parameter = b"ctorch.nn.parameter\nParameter\n" + tensor + b"\x85R\x88\x89ccollections\nOrderedDict\n]\x85R\x87b"
    data = (FIXTURES / "tensors_legacy.pt").read_bytes()
    head = data[: data.index(b".", data.index(b"little_endian")) + 1]
    keys = pickle.dumps(["0"], protocol=2)
    path = tmp_path / "old.pth"
    path.write_bytes(
        head + b"\x80\x02}U\1a" + parameter + b"s." + keys + struct.pack("<q", 2) + np.float32([1, 2]).tobytes()
    )
    np.testing.assert_array_equal(open_torch_file(path)["a"], np.float32([1, 2]))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_the_pickle_machine_agrees_with_pickle_on_plain_values(protocol):
    shared = [1, 2]
    value = {"a": (1, -5, 2**70, 300), "b": [shared, shared], 3: {"x", "y"}, "é" * 300: (b"bytes", 1e300, ()), "n": {}}
    back = read_pickle(io.BytesIO(pickle.dumps(value, protocol)), {"__builtin__.set": Builder(set)} | BYTES)
    assert back == value
    assert back["b"][0] is back["b"][1]


BYTES = {"_codecs.encode": Builder(lambda text, _: text.encode("latin1")), "builtins.set": Builder(set)}


def test_the_pickle_machine_sets_no_attributes_and_calls_no_values():
    def allowed():
        pass

    vocabulary = {"a.function": Builder(allowed), "a.value": np.dtype(np.float32)}
    read_pickle(io.BytesIO(b"\x80\x02ca\nfunction\n}X\1\0\0\0xK\1sb."), vocabulary)
    read_pickle(io.BytesIO(b"\x80\x02ca\nfunction\nN}X\1\0\0\0xK\1s\x86b."), vocabulary)
    assert not hasattr(allowed, "x") and not hasattr(Builder, "x")
    with pytest.raises(ValueError, match="cannot call a"):
        read_pickle(io.BytesIO(b"\x80\x02ca\nvalue\n)R."), vocabulary)
    for code, name in ((b"(ios\nsystem\n.", "INST"), (b"Pid\n.", "PERSID"), (b"\x82\1.", "EXT1")):
        with pytest.raises(ValueError, match=f"{name} has no place"):
            read_pickle(io.BytesIO(code), vocabulary)
    with pytest.raises(RefusedGlobalError, match="builtins.eval"):
        read_pickle(io.BytesIO(b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93."), vocabulary)


def test_what_is_written_reads_back_exactly_at_aligned_places(tmp_path):
    arrays = {name: np.asarray(array) for name, array in EXPECTED.items()}
    tree = {
        "gen": arrays | {"jax": jnp.arange(6.0).reshape(2, 3)},
        "plain": [1, -(2**70), 0, 0.5, "ä", None, True, (2,)],
        7: {},
    }
    write_torch_file(tmp_path / "a.pt", tree)
    back = open_torch_file(tmp_path / "a.pt")
    assert back["plain"] == tree["plain"] and back[7] == {} and list(back["gen"]) == list(tree["gen"])
    for name, array in tree["gen"].items():
        assert back["gen"][name].dtype == array.dtype and back["gen"][name].shape == array.shape
        np.testing.assert_array_equal(back["gen"][name], array)
    assert all(s.start % 64 == 0 for s in back["gen"]["base"].file.storages.values())
    # lazy tensors go straight from file to file
    write_torch_file(tmp_path / "b.pt", back)
    assert (tmp_path / "b.pt").read_bytes() == (tmp_path / "a.pt").read_bytes()


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "a.pt"
    write_torch_file(path, {"a": np.zeros(2, np.float32)})
    before = path.read_bytes()

    class Full:
        shape, dtype = (3,), np.dtype(np.float32)

        def __array__(self, dtype=None, copy=None):
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write_torch_file(path, {"a": Full()})
    with pytest.raises(ValueError, match="the root / gen / x is an array of complex64"):
        write_torch_file(path, {"gen": {"x": np.zeros(2, np.complex64)}})
    with pytest.raises(ValueError, match="the root / x is a object"):
        write_torch_file(path, {"x": object()})
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_a_partial_file_of_another_stays(tmp_path):
    (tmp_path / "a.pt.partial").write_text("another's")
    write_torch_file(tmp_path / "a.pt", {"a": np.zeros(2, np.float32)})
    assert (tmp_path / "a.pt.partial").read_text() == "another's"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pt", "a.pt.partial"]
