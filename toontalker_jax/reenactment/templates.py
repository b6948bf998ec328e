"""Motion templates: a driver's motion codes on disk, to be used on any source without the driver's video."""

import hashlib
import json
import zipfile
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from etils import epath
from flax import nnx

from toontalker_jax.models.toontalker import ToonTalker

FORMAT = 1
TEMPLATE_SUFFIX = ".npz"


class MotionTemplate(NamedTuple):
    """The motion of a driver, as one network sees it."""

    codes: np.ndarray  # w_rd of every frame, float32 [F, K, d]
    domain: str  # the driver's
    network: str  # `network_hash` of the network that encoded it: codes mean nothing to another one
    frame_rate: Fraction  # frames per second
    times: tuple[Fraction, ...] | None = None  # seconds of every frame, where the rate varies


def network_hash(model: ToonTalker) -> str:
    """SHA-256 in hex of every parameter with its name, shape and float32 values: the same network, the same hash."""
    digest = hashlib.sha256()
    for path, value in nnx.to_flat_state(nnx.state(model, nnx.Param)):
        array = np.ascontiguousarray(value[...], np.float32)
        digest.update(f"{'/'.join(map(str, path))} {array.shape}\n".encode())
        digest.update(array)
    return digest.hexdigest()


def save_template(path: epath.PathLike, template: MotionTemplate) -> None:
    """Writes an .npz without pickle: `codes`, and `about`, a JSON text."""
    about = {
        "format": FORMAT,
        "domain": template.domain,
        "network": template.network,
        "frame_rate": str(template.frame_rate),
        "times": None if template.times is None else [str(time) for time in template.times],
    }
    path = epath.Path(path)
    partial = path.parent / (path.name + ".partial")
    try:
        with partial.open("wb") as file:
            np.savez(file, codes=template.codes, about=np.array(json.dumps(about)))
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def load_template(path: epath.PathLike) -> MotionTemplate:
    """Reads what `save_template` wrote; nothing in the file can run code.

    Raises:
      FileNotFoundError: nothing there.
      ValueError: not a motion template, or one of another format.
    """
    try:
        with epath.Path(path).open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            about, codes = json.loads(str(arrays["about"])), arrays["codes"]
        if about["format"] != FORMAT:
            raise ValueError(f"its format is {about['format']}, this version reads {FORMAT}")
        if codes.dtype != np.float32 or codes.ndim != 3 or not len(codes) or not np.isfinite(codes).all():
            raise ValueError(f"its codes are {codes.dtype} {codes.shape}, or not finite")
        times, rate = about["times"], Fraction(about["frame_rate"])
        if rate <= 0 or (times is not None and len(times) != len(codes)):
            raise ValueError(f"its frame rate is {rate}, and it has {len(times or ())} times for {len(codes)} frames")
        times = None if times is None else tuple(map(Fraction, times))
        return MotionTemplate(codes, about["domain"], about["network"], rate, times)
    except (ValueError, KeyError, TypeError, EOFError, ArithmeticError, RuntimeError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: not a motion template ({error}): make one with --save_motion.") from None


def check_template(template: MotionTemplate, domain: str, network: str, shape: tuple[int, int]) -> None:
    """Raises ValueError unless the template was made by this network, from a driver of this domain."""
    if template.domain != domain:
        raise ValueError(f"the motion template is of a {template.domain} driver, this type takes a {domain} one.")
    if template.network != network or template.codes.shape[1:] != shape:
        raise ValueError(
            f"the motion template was made by network {template.network[:12]}, this is {network[:12]}: make it again"
            f" from the driver's video."
        )
