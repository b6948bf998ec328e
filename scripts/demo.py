"""The whole path in a few minutes: render puppets, train both stages briefly, reenact with the shipped network.

    make demo

Writes to runs/demo/: a video of each type (source | driver | result | truth), grid.png, report.json, and the two short
trainings in stage1/ and stage2/ (to look: pip install tensorboard; tensorboard --logdir runs/demo).
"""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from absl import app, flags, logging

from data_pipelines import puppets
from scripts.demo_pictures import block, write_grid, write_video
from toontalker_jax.checkpoints import load_model
from toontalker_jax.evaluation.protocols import transfer_recovery
from toontalker_jax.models.toontalker import ToonTalker
from toontalker_jax.reenactment.transfer import KINDS, Reenactor

_OUTPUT = flags.DEFINE_string("output", "runs/demo", "Folder to write to; replaced if it is there.")
_CHECKPOINT = flags.DEFINE_string("checkpoint", "pretrained/puppets", "The network that reenacts.")
_CASES = flags.DEFINE_integer("cases", 16, "Cases of each type for the recovery.", lower_bound=1)
_STEPS = flags.DEFINE_list("steps", ["200", "140"], "Steps of the short stage 1 and stage 2.")

ROOT = Path(__file__).resolve().parents[1]
VIDEO_FRAMES = 60


def script(name: str, *arguments: str) -> None:
    """Runs a script of this folder as a user would."""
    print(f"\n$ python scripts/{name} {' '.join(arguments)}", flush=True)
    subprocess.run([sys.executable, ROOT / "scripts" / name, *arguments], cwd=ROOT, check=True)


def ends(values: Sequence[float]) -> list[float]:
    """Means of the first and of the last fifth: single batches differ more than a short training brings."""
    fifth = -(-len(values) // 5)
    return [sum(values[:fifth]) / fifth, sum(values[-fifth:]) / fifth]


def train_briefly(output: Path) -> dict[str, list[float]]:
    """Prepares a small puppet data set and runs both stages on it. Returns each one's loss at both ends."""
    data = output / "data"
    clips = ["--real_clips=96", "--cartoon_clips=48", "--test_clips=4", "--frames=16"]
    script("prepare_data.py", "puppets", f"--output={data}", "--image_size=64", *clips)
    losses = {}
    for stage, steps in enumerate(_STEPS.value, start=1):
        workdir = output / f"stage{stage}"
        overrides = [f"--config.data.real={data}", f"--config.data.cartoon={data}", f"--config.steps={steps}"]
        overrides += ["--config.optimizer.warmup_steps=10", "--config.log_every=1", f"--config.pictures_every={steps}"]
        if stage == 2:
            # The recipe's weights are for hours: in so few steps all that one would see of them is noise.
            weights = {"weights.change": 1, "weights.analogy": 1, "weights.adversarial": 0, "r1.gamma": 0}
            overrides += [f"--config.init={output / 'stage1'}", *(f"--config.{k}={v}" for k, v in weights.items())]
        script("train.py", f"--config=configs/puppets.py:stage={stage}", f"--workdir={workdir}", *overrides)
        lines = (workdir / "metrics.jsonl").read_text().splitlines()
        losses[f"stage{stage}_loss"] = ends([json.loads(line)["loss"] for line in lines])
    return losses


def reenact(model: ToonTalker, output: Path) -> dict[str, float]:
    """Writes the videos and grid.png, a block a type; returns the recovery of every type over held-out cases."""
    size, recovery, blocks = model.config.image_size, {}, []
    for kind in KINDS:
        reenactor = Reenactor(model, kind, "relative", batch_size=8)
        cases = puppets.transfer_cases(kind, "test", 0, _CASES.value, 4, size)
        recovery[kind] = transfer_recovery(reenactor.transfer, cases)["mean"]
        print(f"{kind}: motion recovery {recovery[kind]:.3f} over {_CASES.value} held-out cases", flush=True)

        (case,) = puppets.transfer_cases(kind, "test", 1, 1, VIDEO_FRAMES, size, num_frames=VIDEO_FRAMES + 1)
        result = reenactor.transfer(case["source"], case["reference"], case["driving"])
        write_video(output / f"{kind}.mp4", case, result)
        blocks.append(block(case["source"], case["driving"], result, case["truth"]))
    write_grid(output / "grid.png", blocks)
    return recovery


def main(argv: Sequence[str]) -> None:
    logging.set_verbosity(logging.WARNING)
    start, output = time.monotonic(), Path(_OUTPUT.value).resolve()
    model = load_model(ROOT / _CHECKPOINT.value)
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    losses = train_briefly(output)
    print("\nReenacting with the shipped network", flush=True)
    recovery = reenact(model, output)
    seconds = round(time.monotonic() - start, 1)
    report = {"recovery": recovery, "cases": _CASES.value, "train": losses, "seconds": seconds}
    (output / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    for name, (first, last) in losses.items():
        print(f"{name}: {first:.3f} → {last:.3f}")
    print(f"Look at {output}/: {', '.join(f'{kind}.mp4' for kind in KINDS)}, grid.png, report.json")


if __name__ == "__main__":
    app.run(main)
