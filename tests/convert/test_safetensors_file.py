"""`.safetensors` files, written here byte by byte as the format says."""

import json

import ml_dtypes
import numpy as np
import pytest

from toontalker_jax.convert.safetensors_file import open_safetensors_file
from toontalker_jax.convert.torch_file import TorchFileError

NAMES = {np.dtype(np.float32): "F32", np.dtype(np.float16): "F16", np.dtype(ml_dtypes.bfloat16): "BF16"}


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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dtype": "F8_E4M3"}, "F8_E4M3"),
        ({"shape": [3]}, r"a of shape \(3,\) does not fit its bytes 0 to 8"),
        ({"shape": [-2]}, "does not fit"),
        ({"data_offsets": [0]}, "is described as"),
        ({"shape": [4], "data_offsets": [0, 16]}, "truncated inside a"),
    ],
)
def test_an_entry_that_does_not_fit_is_named(tmp_path, changes, message):
    with pytest.raises(TorchFileError, match=message):
        open_safetensors_file(write(tmp_path / "a.safetensors", {"a": np.ones(2, np.float32)}, a=changes))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 something else", b"\xff" * 40, b"\x02" + bytes(7) + b"[]"])
def test_another_file_is_refused(tmp_path, content):
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(TorchFileError, match="a: not a .safetensors file"):
        open_safetensors_file(tmp_path / "a")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(TorchFileError, match="none: no such file"):
        open_safetensors_file(tmp_path / "none")
