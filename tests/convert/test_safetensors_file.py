"""`.safetensors` files, written here byte by byte as the format says."""

import json

import ml_dtypes
import numpy as np
import pytest

from toontalker_jax.convert.safetensors_file import open_safetensors_file
from toontalker_jax.convert.torch_file import TorchFileError

INTEGERS = {np.dtype(f"{kind}{bits // 8}"): f"{kind.upper()}{bits}" for kind in "iu" for bits in (8, 16, 32, 64)}
NAMES = INTEGERS | {
    np.dtype(np.bool_): "BOOL",
    np.dtype(np.float32): "F32",
    np.dtype(np.float16): "F16",
    np.dtype(ml_dtypes.bfloat16): "BF16",
}


NESTED = (200_000).to_bytes(8, "little") + b"[" * 200_000
TWICE = (16).to_bytes(8, "little") + b'{"a": 1, "a": 1}'


def write(path, tensors, **changes):
    """changes: {name: other header entries}."""
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name, array in tensors.items():
        end = len(data) + array.nbytes
        header[name] = {"dtype": NAMES[array.dtype], "shape": array.shape, "data_offsets": [len(data), end]}
        header[name] |= changes.get(name, {})
        data += array.tobytes()
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def test_tensors_come_back_under_their_networks(tmp_path):
    random = np.random.default_rng(0)
    arrays = {
        "gen.enc.a": random.normal(size=(2, 3)).astype(np.float32),
        "gen_real.enc.a": random.normal(size=(4,)).astype(np.float16),
        "gen.b": random.normal(size=()).astype(ml_dtypes.bfloat16),
    }
    tree = open_safetensors_file(write(tmp_path / "a.safetensors", arrays))
    assert {network: set(state) for network, state in tree.items()} == {"gen": {"enc.a", "b"}, "gen_real": {"enc.a"}}
    for name, array in arrays.items():
        network, rest = name.split(".", 1)
        assert tree[network][rest].dtype == array.dtype
        np.testing.assert_array_equal(tree[network][rest].numpy(), array)


def test_names_without_a_network_are_gens(tmp_path):
    tree = open_safetensors_file(write(tmp_path / "a.safetensors", {"enc.a": np.ones(2, np.float32)}))
    np.testing.assert_array_equal(tree["gen"]["enc.a"], [1, 1])


def test_other_networks_of_a_training_file_are_keys_of_their_own(tmp_path):
    arrays = {name: np.ones(2, np.float32) for name in ("gen.a", "gen_real.a", "dis.a", "dis.b.c", "step")}
    tree = open_safetensors_file(write(tmp_path / "a.safetensors", arrays))
    assert {key: set(state) for key, state in tree.items()} == {
        "gen": {"a"},
        "gen_real": {"a"},
        "dis": {"a", "b.c"},
        "step": {""},
    }


def test_two_tensors_of_one_name_are_refused(tmp_path):
    arrays = {name: np.ones(2, np.float32) for name in ("gen.a", "dis", "dis.")}
    with pytest.raises(TorchFileError, match=r"two tensors are both named dis\."):
        open_safetensors_file(write(tmp_path / "a.safetensors", arrays))


def test_whole_numbers_are_read(tmp_path):
    arrays = {f"a.{name}": np.array([0, 1, 100]).astype(dtype) for dtype, name in NAMES.items()}
    state = open_safetensors_file(write(tmp_path / "a.safetensors", arrays))["gen"]
    for name, array in arrays.items():
        np.testing.assert_array_equal(state[name], array)
        assert state[name].dtype == array.dtype


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dtype": "F8_E4M3"}, "F8_E4M3"),
        ({"shape": [3]}, r"a of shape \(3,\) does not fit its bytes 0 to 8"),
        ({"shape": [-2]}, "does not fit"),
        ({"data_offsets": [0]}, "is described as"),
        ({"shape": [2.0]}, "is described as"),
        ({"shape": [True, 2]}, "is described as"),
        ({"shape": float("inf")}, "is described as"),
        ({"shape": [float("inf")]}, "is described as"),
        ({"shape": "2"}, "is described as"),
        ({"shape": ""}, "is described as"),
        ({"data_offsets": [0.0, 8.0]}, "is described as"),
        ({"shape": ["x" * 10**6]}, r"is described as .{,300}$"),
        ({"shape": [4], "data_offsets": [0, 16]}, "truncated inside a"),
    ],
)
def test_an_entry_that_does_not_fit_is_named(tmp_path, changes, message):
    with pytest.raises(TorchFileError, match=message):
        open_safetensors_file(write(tmp_path / "a.safetensors", {"a": np.ones(2, np.float32)}, a=changes))


@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04 something else", b"\xff" * 40, b"\x02" + bytes(7) + b"[]", NESTED, TWICE]
)
def test_another_file_is_refused(tmp_path, content):
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(TorchFileError, match="a: not a .safetensors file"):
        open_safetensors_file(tmp_path / "a")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(TorchFileError, match="none: no such file"):
        open_safetensors_file(tmp_path / "none")
