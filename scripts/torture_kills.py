"""A training by train.py of a tiny network: started, killed, and taken to its end; and what it leaves."""

import os
import random
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import orbax.checkpoint as ocp

from data_pipelines import puppets, video_writer
from toontalker_jax.checkpoints import TrainCheckpoints

ROOT = Path(__file__).resolve().parents[1]
LONGEST_S = 600.0  # no start may take longer without a kill
_TINY = {"model.width": 16, "model.motion_slots": 2, "model.heads": 2, "model.channel_base": 512}
_TINY |= {"model.channel_cap": 16, "model.dropout": 0.1, "weights.adversarial": 0.1, "ema_images": 64}
_TINY |= {"r1.gamma": 1.0, "r1.every": 3, "optimizer.warmup_steps": 1, "batch_size": 4, "data.last": 0}
_TINY |= {"log_every": 1, "checkpoint_every": 2}


def render_frames(folder: Path) -> None:
    who = puppets.sample_identity("real", "train", 0, 0)
    with video_writer.open_writer(folder, Fraction(12)) as writer:
        for motion in puppets.sample_motion("real", "train", 0, 0, 16)[::2]:
            writer.write(puppets.render(who, motion, 64))


def start(workdir: Path, more: list[str]) -> subprocess.Popen:
    """train.py on its way, with these flags more. Everything it compiles is kept for the next start."""
    top = workdir.parent
    settings = _TINY | {"data.real": top / "frames"}
    command = [sys.executable, "scripts/train.py", "--config=configs/video.py", f"--workdir={workdir}"]
    command += [f"--config.{name}={value}" for name, value in settings.items()] + more
    cache = {"JAX_COMPILATION_CACHE_DIR": str(top / "xla"), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    environment = cache | os.environ
    with open(top / f"{workdir.name}.log", "a") as log:
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)


def half_written(workdir: Path) -> list[str]:
    """Checkpoints under the names that Orbax gives them until they are complete."""
    return sorted(path.name for path in workdir.glob("checkpoints/*tmp*"))


def wait_for_saves(process: subprocess.Popen, workdir: Path, saves: int) -> None:
    """Returns when the process has begun that many saves, or has ended."""
    seen = set(half_written(workdir))  # of the last kill, until the process removes them
    deadline = time.monotonic() + LONGEST_S
    while saves and process.poll() is None and time.monotonic() < deadline:
        now = set(half_written(workdir))
        saves -= len(now - seen)
        seen = now
        time.sleep(0.001)


def lines_of_metrics(workdir: Path) -> int:
    metrics = workdir / "metrics.jsonl"
    return len(metrics.read_text().splitlines()) if metrics.exists() else 0


def wait_for(process: subprocess.Popen, workdir: Path, seconds: float, lines: int) -> None:
    """Returns after so many seconds, or when the process has ended or has brought the metrics to so many lines."""
    metrics, deadline = workdir / "metrics.jsonl", time.monotonic() + seconds

    def written() -> int:
        return metrics.stat().st_mtime_ns if metrics.exists() else 0

    before = written()  # A kill may have left more lines, which the process takes back first.
    while process.poll() is None and time.monotonic() < deadline:
        if written() != before and lines_of_metrics(workdir) >= lines:
            return
        time.sleep(0.01)


def kill_once(
    workdir: Path, moments: random.Random, during_save: bool, longest_s: float, steps: int, more: list[str]
) -> dict:
    """Starts train.py and kills it before it has taken `steps`. Returns the moment and what was left.

    {} if it ended before.
    """
    process, began = start(workdir, more), time.monotonic()
    if during_save:
        wait_for_saves(process, workdir, moments.choice((1, 2, 2, 3)))
        time.sleep(moments.uniform(0, 0.15))
    else:
        # How long a start takes changes with whatever else is running.
        wait_for(process, workdir, moments.uniform(0, longest_s), lines=steps - 1)
    process.kill()
    status = process.wait()
    if status != -9:
        if status:
            raise SystemExit(f"error: train.py ended by itself with status {status}, see {workdir}.log.")
        return {}
    return {
        "aimed at": "a save" if during_save else "any moment",
        "after seconds": round(time.monotonic() - began, 1),
        "half-written": half_written(workdir),
        "checkpoints": sorted(int(path.name) for path in workdir.glob("checkpoints/*") if path.name.isdigit()),
        "lines of metrics": lines_of_metrics(workdir),
    }


def finish(workdir: Path, more: list[str]) -> None:
    """Trains to the end."""
    if status := start(workdir, more).wait():
        raise SystemExit(f"error: train.py ended with status {status}, see {workdir}.log.")


def final_state(workdir: Path) -> dict[str, Any]:
    """{name: array} of the newest checkpoint."""
    with TrainCheckpoints(workdir, read_only=True) as checkpoints:
        folder = checkpoints.state_folder(checkpoints.latest_step())
    tree = ocp.StandardCheckpointHandler().restore(folder, args=ocp.args.StandardRestore())
    return {name: np.asarray(leaf) for name, leaf in ocp.tree.to_flat_dict(tree, sep="/").items()}
