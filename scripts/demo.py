"""The whole path in a few minutes: render puppets, train both stages briefly, reenact with the shipped network.

    make demo

Writes to runs/demo/: a video of each type (source | driver | result | truth), grid.png, report.json, and the two short
trainings in stage1/ and stage2/ (TensorBoard: tensorboard --logdir runs/demo).
"""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
from absl import app, flags, logging

from data_pipelines import puppets, transforms, video_writer
from toontalker_jax.checkpoints import load_model
from toontalker_jax.evaluation.protocols import transfer_recovery
from toontalker_jax.models.toontalker import ToonTalker
from toontalker_jax.reenactment.transfer import KINDS, Reenactor

_OUTPUT = flags.DEFINE_string("output", "runs/demo", "Folder to write to; replaced if it is there.")
_CHECKPOINT = flags.DEFINE_string("checkpoint", "pretrained/puppets", "The network that reenacts.")
_CASES = flags.DEFINE_integer("cases", 16, "Cases of each type for the recovery.", lower_bound=1)
_STEPS = flags.DEFINE_list("steps", ["200", "60"], "Steps of the short stage 1 and stage 2.")

ROOT = Path(__file__).resolve().parents[1]
VIDEO_FRAMES, FRAME_RATE = 60, Fraction(25)
GRID_MOMENTS, GAP = 5, 8


def script(name: str, *arguments: str) -> None:
    """Runs a script of this folder as a user would."""
    print(f"\n$ python scripts/{name} {' '.join(arguments)}", flush=True)
    subprocess.run([sys.executable, ROOT / "scripts" / name, *arguments], cwd=ROOT, check=True)


def train_briefly(output: Path) -> dict[str, list[float]]:
    """Prepares a small puppet data set and runs both stages on it. Returns the first and last loss of each."""
    data = output / "data"
    clips = ["--real_clips=96", "--cartoon_clips=48", "--test_clips=4", "--frames=16"]
    script("prepare_data.py", "puppets", f"--output={data}", "--image_size=64", *clips)
    losses = {}
    for stage, steps in enumerate(_STEPS.value, start=1):
        workdir = output / f"stage{stage}"
        overrides = [f"--config.data.real={data}", f"--config.data.cartoon={data}", f"--config.steps={steps}"]
        overrides += ["--config.optimizer.warmup_steps=10", "--config.log_every=10", f"--config.pictures_every={steps}"]
        if stage == 2:
            overrides.append(f"--config.init={output / 'stage1'}")
        script("train.py", f"--config=configs/puppets.py:stage={stage}", f"--workdir={workdir}", *overrides)
        lines = [json.loads(line)["loss"] for line in (workdir / "metrics.jsonl").read_text().splitlines()]
        losses[f"stage{stage}_loss"] = [lines[0], lines[-1]]
    return losses


def enlarge(picture: np.ndarray, zoom: int) -> np.ndarray:
    return transforms.resize(picture, picture.shape[0] * zoom, picture.shape[1] * zoom)


def block(source: np.ndarray, driving: np.ndarray, output: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Rows driver, result (the source at its left) and truth; columns are moments."""
    moments = np.linspace(0, len(driving) - 1, GRID_MOMENTS + 1, dtype=int)[1:]
    blank = np.full_like(source, 255)
    rows = ((blank, driving), (source, output), (blank, truth))
    return np.concatenate([np.concatenate([left, *frames[moments]], axis=1) for left, frames in rows])


def reenact(model: ToonTalker, output: Path) -> tuple[dict[str, float], np.ndarray]:
    """Writes the videos; returns the recovery of every type over held-out cases, and the grid, a block a type."""
    size, recovery, blocks = model.config.image_size, {}, []
    for kind in KINDS:
        reenactor = Reenactor(model, kind, "relative", batch_size=8)
        cases = puppets.transfer_cases(kind, "test", 0, _CASES.value, 4, size)
        recovery[kind] = transfer_recovery(reenactor.transfer, cases)["mean"]
        print(f"{kind}: motion recovery {recovery[kind]:.3f} over {_CASES.value} held-out cases", flush=True)

        (case,) = puppets.transfer_cases(kind, "test", 1, 1, VIDEO_FRAMES, size, num_frames=VIDEO_FRAMES + 1)
        result = reenactor.transfer(case["source"], case["reference"], case["driving"])
        with video_writer.open_writer(output / f"{kind}.mp4", FRAME_RATE) as writer:
            for driving, frame, truth in zip(case["driving"], result, case["truth"], strict=True):
                writer.write(enlarge(np.concatenate([case["source"], driving, frame, truth], axis=1), zoom=4))
        blocks.append(block(case["source"], case["driving"], result, case["truth"]))
    gap = np.full((blocks[0].shape[0], GAP, 3), 255, np.uint8)
    halves = [np.concatenate([left, gap, right], axis=1) for left, right in (blocks[:2], blocks[2:])]
    return recovery, np.concatenate([halves[0], np.full((GAP, *halves[0].shape[1:]), 255, np.uint8), halves[1]])


def main(argv: Sequence[str]) -> None:
    logging.set_verbosity(logging.WARNING)
    start, output = time.monotonic(), Path(_OUTPUT.value).resolve()
    model = load_model(ROOT / _CHECKPOINT.value)
    if output.exists():
        shutil.rmtree(output)
    output.mkdir(parents=True)
    losses = train_briefly(output)
    print("\nReenacting with the shipped network", flush=True)
    recovery, grid = reenact(model, output)
    (output / "grid.png").write_bytes(transforms.encode_png(enlarge(grid, zoom=2)))
    report = {
        "recovery": recovery,
        "cases": _CASES.value,
        "train": losses,
        "seconds": round(time.monotonic() - start, 1),
    }
    (output / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    for name, (first, last) in losses.items():
        print(f"{name}: {first:.3f} → {last:.3f}")
    print(f"Look at {output}/: {', '.join(f'{kind}.mp4' for kind in KINDS)}, grid.png, report.json")


if __name__ == "__main__":
    app.run(main)
