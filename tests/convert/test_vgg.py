"""torchvision's VGG19 file, by stand-ins that torch wrote: all names and full shapes, one number a tensor."""

from pathlib import Path

import numpy as np
import pytest

from toontalker_jax.convert.torch_file import TorchFileError, open_torch_file
from toontalker_jax.convert.vgg import load_vgg19, vgg19_from_state_dict

FIXTURES = Path(__file__).parent / "fixtures"
ORDER = "1_1 1_2 2_1 2_2 3_1 3_2 3_3 3_4 4_1 4_2 4_3 4_4 5_1".split()


def test_every_convolution_of_the_legacy_file_finds_its_place():
    vgg = load_vgg19(FIXTURES / "vgg19_legacy.pt", dtype="bfloat16")
    assert vgg.dtype == "bfloat16" and len(vgg.convs) == 13
    for number, name in enumerate(ORDER):
        conv = vgg.convs[f"conv{name}"]
        assert conv.kernel[...].dtype == np.float32
        assert (conv.kernel[...] == number + 0.5).all() and (conv.bias[...] == number + 0.25).all()


def test_faults_are_named(tmp_path):
    state = open_torch_file(FIXTURES / "vgg19_zip.pt")
    bad = dict(state)
    del bad["features.2.bias"]
    bad["features.5.weight"] = np.zeros((3, 3, 64, 128), np.float32)
    bad["features.7.bias"] = np.full(128, np.nan, np.float32)
    bad["features.1.running_mean"] = np.zeros(64)
    with pytest.raises(ValueError) as caught:
        vgg19_from_state_dict(bad)
    for fault in (
        "features.2.bias is missing",
        "features.5.weight has shape (3, 3, 64, 128), not (128, 64, 3, 3)",
        "features.7.bias is not finite",
        "features.1.running_mean is unknown",
    ):
        assert fault in str(caught.value)
    with pytest.raises(ValueError, match="tensors_zip.pt: not torchvision's VGG19: .* and 26 more"):
        load_vgg19(FIXTURES / "tensors_zip.pt")
    with pytest.raises(TorchFileError, match="no such file"):
        load_vgg19(tmp_path / "none.pth")
