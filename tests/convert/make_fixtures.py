"""Writes tests/convert/fixtures/*.pt and *.pth with torch. Needs torch ≥ 2.0 (written with 2.13.0, CPU); tests do not.

Run from the root of the repository: PYTHONPATH=. python tests/convert/make_fixtures.py
"""

import argparse
import os
from collections import OrderedDict, defaultdict
from pathlib import Path

import numpy as np
import torch

from tests.convert import official

FIXTURES = Path(__file__).parent / "fixtures"
# torchvision's vgg19 `features`: (index, in, out) of its convolutions
VGG19_CONVS = [
    (0, 3, 64), (2, 64, 64), (5, 64, 128), (7, 128, 128), (10, 128, 256), (12, 256, 256), (14, 256, 256),
    (16, 256, 256), (19, 256, 512), (21, 512, 512), (23, 512, 512), (25, 512, 512), (28, 512, 512), (30, 512, 512),
    (32, 512, 512), (34, 512, 512),
]  # fmt: skip


def tensors() -> dict:
    """One of everything; tests/convert/test_torch_file.py states the same values in numpy."""
    base = torch.arange(60, dtype=torch.float32).reshape(3, 4, 5)
    half = torch.arange(-3, 3) / 4
    state = OrderedDict(
        base=base,
        transposed=base.permute(2, 0, 1),
        window=base[1:, 1:3, ::2],
        expanded=base[0, 0, :3].expand(2, 3),
        scalar=torch.tensor(2.5),
        empty=torch.zeros(0, 3),
        parameter=torch.nn.Parameter(torch.tensor([1.0, -1.0])),
        float16=half.half(),
        bfloat16=half.bfloat16(),
        float64=half.double(),
    )
    for dtype in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool):
        state[str(dtype).removeprefix("torch.")] = torch.tensor([0, 1, 5]).to(dtype)
    state._metadata = OrderedDict({"": {"version": 1}})
    optimizer = {"state": {0: {"step": torch.tensor(7.0)}}, "param_groups": [{"lr": 5e-4, "betas": (0.0, 0.99)}]}
    return {
        "gen": state,
        "optimizer": optimizer,
        "args": argparse.Namespace(size=64, name="tiny", device=torch.device("cuda", 1)),
        "plain": [1, -(2**40), 0.5, "text", None, True, torch.Size([2, 3]), torch.float16, {3, 4}],
    }


class Evil:
    """Pickles as a call of os.system, which writes the file `owned` where it runs."""

    def __reduce__(self):
        return os.system, ("touch owned",)


def vgg19() -> OrderedDict:
    """Full shapes and torchvision's names in a few kilobytes: one number a tensor, expanded."""
    state = OrderedDict()
    for number, (index, channels_in, channels_out) in enumerate(VGG19_CONVS):
        state[f"features.{index}.weight"] = torch.full((1,), number + 0.5).expand(channels_out, channels_in, 3, 3)
        state[f"features.{index}.bias"] = torch.full((1,), number + 0.25).expand(channels_out)
    for index, features_in, features_out in ((0, 25088, 4096), (3, 4096, 4096), (6, 4096, 1000)):
        state[f"classifier.{index}.weight"] = torch.zeros(1).expand(features_out, features_in)
        state[f"classifier.{index}.bias"] = torch.zeros(1).expand(features_out)
    return state


def network(salt: str, dtype: torch.dtype = torch.float32) -> OrderedDict:
    """The state dict of a module tree with the official names: parameters, and buffers for the blur kernels."""
    root = torch.nn.Module()
    for name, array in official.state(salt).items():
        *path, leaf = name.split(".")
        owner = root
        for part in path:
            if part not in owner._modules:
                owner.add_module(part, torch.nn.Module())
            owner = owner._modules[part]
        if leaf == "kernel":
            owner.register_buffer(leaf, torch.from_numpy(array))
        else:
            owner.register_parameter(leaf, torch.nn.Parameter(torch.from_numpy(array)))
    return root.to(dtype).state_dict()


def training_extras() -> dict:
    """What a training file holds besides its networks: a discriminator, both optimizers after a step, the arguments."""
    discriminator = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 1), torch.nn.Linear(2, 1))
    with torch.no_grad():
        for parameter in discriminator.parameters():
            parameter.fill_(0.5)
            parameter.grad = torch.ones_like(parameter)
    optimizer = torch.optim.Adam(discriminator.parameters(), lr=5e-4, betas=(0.0, 0.99))
    optimizer.step()
    arguments = argparse.Namespace(size=64, iter=440000, lr=5e-4, type="c2r", device=torch.device("cuda", 0), ckpt=None)
    return {
        "dis": discriminator.state_dict(),
        "g_optim": optimizer.state_dict(),
        "d_optim": optimizer.state_dict(),
        "args": arguments,
    }


def harmless() -> dict:
    """What training scripts put beside their networks."""
    scores = defaultdict(dict)
    scores["a"]["b"] = 1
    numbers = {"best": np.float64(0.5), "step": np.int64(3)}
    return {"a": torch.arange(3.0), "scores": scores, "seen": {1, 2}, "state": b"ab\xff", "numbers": numbers}


def main() -> None:
    FIXTURES.mkdir(exist_ok=True)
    for name, value in (("tensors", tensors()), ("evil", {"gen": Evil()}), ("vgg19", vgg19())):
        torch.save(value, FIXTURES / f"{name}_zip.pt")
        torch.save(value, FIXTURES / f"{name}_legacy.pt", _use_new_zipfile_serialization=False)
    extras = training_extras()
    torch.save({"gen": network("gen"), "gen_real": network("gen_real")} | extras, FIXTURES / "cross_domain.pth")
    torch.save({"gen": network("gen_real", torch.bfloat16)}, FIXTURES / "in_domain_bfloat16.pth")
    in_domain = {"gen": network("gen_real")} | extras
    torch.save(in_domain, FIXTURES / "in_domain_legacy.pth", _use_new_zipfile_serialization=False)
    torch.save({"a": torch.tensor([1, 65535]).to(torch.uint16)}, FIXTURES / "untyped_zip.pt")
    for protocol in (2, 3, 4, 5):
        form = {"pickle_protocol": protocol, "_use_new_zipfile_serialization": protocol == 2}
        torch.save(harmless(), FIXTURES / f"harmless_{protocol}.pt", **form)
    torch.save({"a": torch.arange(3.0), "b": frozenset([1])}, FIXTURES / "frozenset_zip.pt", pickle_protocol=4)
    torch.serialization.set_crc32_options(False)
    torch.save({"a": torch.arange(3.0)}, FIXTURES / "no_sums_zip.pt")
    torch.serialization.set_crc32_options(True)
    torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), FIXTURES / "script_zip.pt")


if __name__ == "__main__":
    main()
