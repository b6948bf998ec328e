"""torchvision's VGG19 file → `models.perceptual.VGG19`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from toontalker_jax.convert.torch_file import open_torch_file
from toontalker_jax.models.perceptual import VGG19

# torchvision's `features` is one list of convolutions, ReLUs and pools; ours by the index there.
_CONVOLUTIONS = {
    "features.0": "conv1_1",
    "features.2": "conv1_2",
    "features.5": "conv2_1",
    "features.7": "conv2_2",
    "features.10": "conv3_1",
    "features.12": "conv3_2",
    "features.14": "conv3_3",
    "features.16": "conv3_4",
    "features.19": "conv4_1",
    "features.21": "conv4_2",
    "features.23": "conv4_3",
    "features.25": "conv4_4",
    "features.28": "conv5_1",
}
# conv5_2 … conv5_4 and the classifier: behind relu5_1, so no loss reads them
_UNUSED = ("features.30.", "features.32.", "features.34.", "classifier.")


def load_vgg19(path: str | Path, *, dtype: str = "float32") -> VGG19:
    """The network with the weights of torchvision's file (vgg19-dcbb9e9d.pth), which is read without torch.

    Raises TorchFileError for a file that is no torch checkpoint, ValueError for one that is not VGG19's.
    """
    state = open_torch_file(path)
    if not isinstance(state, dict):
        raise ValueError(f"{path}: holds a {type(state).__name__}, not a state dict; give torchvision's VGG19 file.")
    try:
        return vgg19_from_state_dict(state, dtype=dtype)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def vgg19_from_state_dict(state: Mapping[str, Any], *, dtype: str = "float32") -> VGG19:
    """`state` {torchvision's name: array, or lazy tensor} → the network that computes in `dtype`.

    Raises ValueError that names every tensor that is missing, unknown, of another shape or not finite.
    """
    vgg = nnx.eval_shape(lambda: VGG19(dtype=dtype, rngs=nnx.Rngs(0)))  # shapes only; every value is set below
    faults, used = [], set()
    for theirs, ours in _CONVOLUTIONS.items():
        conv = vgg.convs[ours]
        for name, parameter, axes in (
            (f"{theirs}.weight", conv.kernel, (2, 3, 1, 0)),  # OIHW → HWIO
            (f"{theirs}.bias", conv.bias, (0,)),
        ):
            used.add(name)
            if name not in state:
                faults.append(f"{name} is missing")
                continue
            expected = tuple(parameter.shape[axes.index(axis)] for axis in range(len(axes)))
            shape = tuple(getattr(state[name], "shape", ()))
            if shape != expected:
                faults.append(f"{name} has shape {shape}, not {expected}")
                continue
            array = np.asarray(state[name], np.float32)
            if not np.isfinite(array).all():
                faults.append(f"{name} is not finite")
            parameter.set_value(jnp.asarray(array.transpose(axes)))
    faults += [f"{name} is unknown" for name in state if name not in used and not str(name).startswith(_UNUSED)]
    if faults:
        shown = "; ".join(faults[:4]) + (f"; and {len(faults) - 4} more" if len(faults) > 4 else "")
        raise ValueError(f"not torchvision's VGG19: {shown}. Give vgg19-dcbb9e9d.pth (without batch norm).")
    return vgg
