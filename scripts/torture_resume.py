"""Is anything lost when training is killed? Trains once in peace, then again with SIGKILLs, and compares bit for bit.

    python scripts/torture_resume.py --workdir=/tmp/torture --kills=20 --output=report.json

Half of the kills come while a checkpoint is being written, the others at any moment from the start of Python on. The
network is tiny, with every kind of state: average, discriminator, dropout. Arguments after `--` go to train.py, as
`--config.seed=1`. Exit status 1 if the final states or metrics.jsonl differ, or if there was no time for all kills.
"""

import json
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
from absl import app, flags, logging

from data_pipelines import puppets, video_writer
from toontalker_jax.checkpoints import TrainCheckpoints

_WORKDIR = flags.DEFINE_string("workdir", None, "A new folder for everything.", required=True)
_KILLS = flags.DEFINE_integer("kills", 20, "How often the second training is killed.", lower_bound=0)
_STEPS = flags.DEFINE_integer("steps", 60, "Of each training.", lower_bound=2)
_SEED = flags.DEFINE_integer("seed", 0, "Of the moments of the kills.")
_OUTPUT = flags.DEFINE_string("output", None, "A JSON file for the report.")

_ROOT = Path(__file__).resolve().parents[1]
_LONGEST_S = 600.0  # no start may take longer without a kill
_TINY = {"model.width": 16, "model.motion_slots": 2, "model.heads": 2, "model.channel_base": 512}
_TINY |= {"model.channel_cap": 16, "model.dropout": 0.1, "weights.adversarial": 0.1, "ema_images": 64}
_TINY |= {"optimizer.warmup_steps": 1, "discriminator_optimizer.learning_rate": 1e-3, "batch_size": 4, "data.last": 0}
_TINY |= {"log_every": 1, "checkpoint_every": 2}


def render_frames(folder: Path) -> None:
    who = puppets.sample_identity("real", "train", 0, 0)
    with video_writer.open_writer(folder, Fraction(12)) as writer:
        for motion in puppets.sample_motion("real", "train", 0, 0, 16)[::2]:
            writer.write(puppets.render(who, motion, 64))


def start(workdir: Path, more: list[str]) -> subprocess.Popen:
    """train.py on its way. Everything it compiles is kept for the next start."""
    top = workdir.parent
    settings = _TINY | {"data.real": top / "frames", "steps": _STEPS.value}
    command = [sys.executable, "scripts/train.py", "--config=configs/video.py", f"--workdir={workdir}"]
    command += [f"--config.{name}={value}" for name, value in settings.items()] + more
    cache = {"JAX_COMPILATION_CACHE_DIR": str(top / "xla"), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    environment = cache | os.environ
    with open(top / f"{workdir.name}.log", "a") as log:
        return subprocess.Popen(command, cwd=_ROOT, env=environment, stdout=log, stderr=log)


def half_written(workdir: Path) -> list[str]:
    """Checkpoints under the names that Orbax gives them until they are complete."""
    return sorted(path.name for path in workdir.glob("checkpoints/*tmp*"))


def wait_for_saves(process: subprocess.Popen, workdir: Path, saves: int) -> None:
    """Returns when the process has begun that many saves, or has ended."""
    seen = set(half_written(workdir))  # of the last kill, until the process removes them
    deadline = time.monotonic() + _LONGEST_S
    while saves and process.poll() is None and time.monotonic() < deadline:
        now = set(half_written(workdir))
        saves -= len(now - seen)
        seen = now
        time.sleep(0.001)


def kill_once(workdir: Path, moments: random.Random, during_save: bool, longest_s: float, more: list[str]) -> dict:
    """Starts train.py and kills it. Returns the moment and what was left; {} if it ended before."""
    process, began = start(workdir, more), time.monotonic()
    if during_save:
        wait_for_saves(process, workdir, moments.choice((1, 2, 2, 3)))
        time.sleep(moments.uniform(0, 0.15))
    else:
        try:
            process.wait(moments.uniform(0, longest_s))
        except subprocess.TimeoutExpired:
            pass
    process.kill()
    status = process.wait()
    if status != -9:
        if status:
            raise SystemExit(f"error: train.py ended by itself with status {status}, see {workdir}.log.")
        return {}
    metrics = workdir / "metrics.jsonl"
    return {
        "aimed at": "a save" if during_save else "any moment",
        "after seconds": round(time.monotonic() - began, 1),
        "half-written": half_written(workdir),
        "checkpoints": sorted(int(path.name) for path in workdir.glob("checkpoints/*") if path.name.isdigit()),
        "lines of metrics": len(metrics.read_text().splitlines()) if metrics.exists() else 0,
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


def compare(peace: Path, torture: Path) -> dict[str, Any]:
    """What differs between the two trainings, to the last bit."""
    ours, wanted = final_state(torture), final_state(peace)
    same = {name for name in ours.keys() & wanted.keys() if ours[name].tobytes() == wanted[name].tobytes()}
    logs = [(workdir / "metrics.jsonl").read_bytes() for workdir in (peace, torture)]
    return {
        "arrays": len(wanted),
        "numbers": sum(array.size for array in wanted.values()),
        "arrays that differ": sorted((ours.keys() | wanted.keys()) - same),
        "lines of metrics": logs[0].count(b"\n"),
        "metrics equal": logs[0] == logs[1],
        "damaged": sorted(path.name for path in torture.glob("damaged/*")),
    }


def main(arguments: list[str]) -> None:
    logging.set_verbosity(logging.ERROR)  # Orbax tells of its every step
    top, more = Path(_WORKDIR.value).absolute(), arguments[1:]
    render_frames(top / "frames")
    peace, torture = top / "peace", top / "torture"
    finish(peace, more)  # compiles, too
    moments, kills, longest_s = random.Random(_SEED.value), [], _LONGEST_S
    print("kill  aimed at    after s  checkpoints  lines  half-written")
    for number in range(_KILLS.value):
        left = kill_once(torture, moments, number % 2 == 0, longest_s, more)
        if not left:
            break
        kills.append(left)
        if left["aimed at"] == "a save":  # This shows how long a start takes.
            longest_s = min(longest_s, left["after seconds"])
        print(f"{number + 1:4}  {left['aimed at']:10}  {left['after seconds']:7}  {left['checkpoints']!s:11}", end="  ")
        print(f"{left['lines of metrics']:5}  {', '.join(left['half-written'])}", flush=True)
    finish(torture, more)
    # What lies half-written after the others may be of an earlier kill.
    during_save = sum(kill["aimed at"] == "a save" and bool(kill["half-written"]) for kill in kills)
    report = {"kills": kills, "killed": len(kills), "during a save": during_save}
    report |= {"steps": _STEPS.value, "seed": _SEED.value} | compare(peace, torture)
    lost = report["arrays that differ"] or not report["metrics equal"] or len(kills) < _KILLS.value
    report["verdict"] = "something differs" if lost else "nothing lost"
    if _OUTPUT.value:
        Path(_OUTPUT.value).write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps({name: value for name, value in report.items() if name != "kills"}, indent=2))
    sys.exit(1 if lost else 0)


if __name__ == "__main__":
    app.run(main)
