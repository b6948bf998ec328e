"""Frames/s of the network alone and from file to file, against the machine's convolution rate.

The rate is measured in between. Then the seconds of a whole reenact.py for one frame, compiling and from the cache of
compiled programs, and its memory peak. Without --checkpoint the official network is filled with random numbers.
"""

import os
import resource
import statistics
import subprocess
import sys
import tempfile
from fractions import Fraction
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from flax import nnx

from data_pipelines import puppets, transforms, video_writer
from scripts.benchmarks.clock import seconds
from scripts.benchmarks.networks import random_network
from scripts.benchmarks.rates import convolution_rate
from toontalker_jax.checkpoints import load_model, save_model
from toontalker_jax.evaluation.flops import count_flops
from toontalker_jax.media import Options, open_driver
from toontalker_jax.models.config import ModelConfig
from toontalker_jax.models.toontalker import ToonTalker
from toontalker_jax.reenactment.transfer import KINDS, check_kind
from toontalker_jax.video_reenactor import VideoReenactor

ROOT = Path(__file__).resolve().parents[2]
FRAME_RATE = Fraction(25)
_REPORTED = ("type", "batch_size", "dtype", "frames", "repeats")

_CHECKPOINT = flags.DEFINE_string("checkpoint", None, "reenact: network to measure; random numbers without it.")
_IMAGE_SIZE = flags.DEFINE_integer("image_size", 256, "reenact: of the random network.")
_TYPE = flags.DEFINE_enum("type", "r2c", list(KINDS), "reenact: driver 2 source.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 1, "reenact: frames computed at once.", lower_bound=1)
flags.DEFINE_alias("batch", "batch_size")
_DTYPE = flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16", "float16"], "reenact: of convolutions.")
_FRAMES = flags.DEFINE_integer("frames", 16, "reenact: frames of one measurement, in whole batches.", lower_bound=1)
_REPEATS = flags.DEFINE_integer("repeats", 5, "reenact: measurements; their median is reported.", lower_bound=1)
_STARTS = flags.DEFINE_bool("starts", True, "reenact: also start reenact.py twice, with an empty and a filled cache.")


def puppet_frames(size: int, count: int) -> list[np.ndarray]:
    domain = KINDS[_TYPE.value][0]
    identity = puppets.sample_identity(domain, "test", 0, 0)
    return [puppets.render(identity, motion, size) for motion in puppets.sample_motion(domain, "test", 0, 0, count)]


def frame_gflop(model: ToonTalker) -> dict[str, float]:
    """Of one frame: the driver's motion encoder, and everything from its code to the picture."""
    driver, source = KINDS[_TYPE.value]
    config = model.config
    picture = jax.ShapeDtypeStruct((1, config.image_size, config.image_size, 3), jnp.float32)
    graph, state = nnx.split(model)
    encoded = jax.eval_shape(lambda state, x: nnx.merge(graph, state).encode_source(source, x), state, picture)
    w = jax.ShapeDtypeStruct((1, config.motion_slots, config.width), jnp.float32)
    codes = count_flops(lambda s, x: nnx.merge(graph, s).motion_codes(driver, x), state, picture)
    decode = count_flops(lambda s, e, w: nnx.merge(graph, s).decode(source, e, w).image, state, encoded, w)
    return {"motion_encoder": codes / 1e9, "decoder": decode / 1e9, "all": (codes + decode) / 1e9}


def starts(checkpoint: Path, source: Path, driver: Path, folder: Path) -> dict[str, float]:
    """Seconds that reenact.py takes to start, write one frame and end: compiling, and with what is kept of that."""
    command = [sys.executable, ROOT / "scripts/reenact.py", f"--checkpoint={checkpoint}", f"--source_path={source}"]
    command += [f"--driving_path={driver}", f"--save_path={folder / 'start.mp4'}", f"--type={_TYPE.value}"]
    command += ["--max_frames=1", f"--batch_size={_BATCH_SIZE.value}", f"--dtype={_DTYPE.value}"]
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(folder / "cache")}

    def start() -> None:
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise ValueError(f"reenact.py failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")

    return {name: seconds(start) for name in ("compiling", "from_cache")}


def psnr(output: np.ndarray, truth: np.ndarray) -> float:
    error = np.square(output.astype(np.float64) - truth).mean()
    return float(10 * np.log10(255**2 / max(error, 1e-12)))


def measure_speed(reenactor: VideoReenactor, source: Path, driver: Path, flop_a_frame: float) -> dict[str, Any]:
    """Frames/s, each round beside the machine's rate at that moment; medians over the rounds."""
    frames = list(open_driver(driver, reenactor.options).views(reenactor.config.image_size))
    output = driver.with_name("out.mp4")
    reenactor.write(source, driver, output)  # compiles
    rate_now = convolution_rate(_BATCH_SIZE.value, _DTYPE.value)
    rates, alone, files = [], [], []
    for _ in range(_REPEATS.value):
        rates.append(rate_now())
        alone.append(len(frames) / seconds(lambda: list(reenactor.reenactor.frames(frames))))
        files.append(reenactor.write(source, driver, output).frames_per_s)
    shares = [flop_a_frame * speed / rate for speed, rate in zip(alone, rates, strict=True)]
    return {
        "frames_per_s": statistics.median(alone),
        "frames_per_s_range": [min(alone), max(alone)],
        "frames_per_s_file_to_file": statistics.median(files),
        "file_to_file_over_alone": statistics.median(f / a for f, a in zip(files, alone, strict=True)),
        "convolution_gflop_per_s": statistics.median(rates) / 1e9,
        "share_of_convolution_rate": statistics.median(shares),
    }


def measure() -> dict[str, Any]:
    """The report."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        checkpoint = _CHECKPOINT.value or folder / "network"
        if not _CHECKPOINT.value:
            save_model(checkpoint, random_network(ModelConfig(image_size=_IMAGE_SIZE.value)))
        model = load_model(checkpoint, dtype=_DTYPE.value)
        check_kind(_TYPE.value, model.domains)
        batch = _BATCH_SIZE.value
        frames = puppet_frames(model.config.image_size, max(2, -(-_FRAMES.value // batch)) * batch)
        source, driver = folder / "source.png", folder / "driver.mp4"
        source.write_bytes(transforms.encode_png(frames[0]))
        with video_writer.open_writer(driver, FRAME_RATE) as writer:
            for frame in frames:
                writer.write(frame)
        report: dict[str, Any] = {
            **{flag: flags.FLAGS[flag].value for flag in _REPORTED},
            "checkpoint": _CHECKPOINT.value or "random numbers",
            "image_size": model.config.image_size,
            "gflop_per_frame": frame_gflop(model),
        }
        del model
        if _STARTS.value:
            report["one_frame_s"] = starts(checkpoint, source, driver, folder)
            report["host_memory_peak_gib"] = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
        options = Options(kind=_TYPE.value, batch_size=batch)
        reenactor = VideoReenactor(checkpoint, options, dtype=_DTYPE.value)
        report |= measure_speed(reenactor, source, driver, report["gflop_per_frame"]["all"] * 1e9)
        if _DTYPE.value != "float32":
            exact = VideoReenactor(checkpoint, options, dtype="float32")
            outputs = [np.stack(list(r.frames(source, driver))) for r in (reenactor, exact)]
            report["psnr_against_float32_db"] = psnr(*outputs)
        return report
