"""What the tests of scripts/train.py share: a tiny training, and what it leaves."""

import json
from pathlib import Path

from flax import nnx

from tests.conftest import LEAN
from toontalker_jax.checkpoints import load_model

ROOT = Path(__file__).resolve().parents[2]
# Not the recipes' start: its layer norms blow up small differences of frames, and the rounding in them, a hundredfold.
TINY = {"difference_init": False}
SIZES = ("width", "motion_slots", "heads", "channel_base", "channel_cap", "sft_from", "query", "backward_resolutions")
TINY |= {name: getattr(LEAN, name) for name in SIZES}
TINY_SETTINGS = {f"model.{name}": value for name, value in TINY.items()}
# Adam's first steps turn gradients that are all rounding into whole steps: the rate keeps these small.
SLOW = {"optimizer.learning_rate": 1e-5, "optimizer.warmup_steps": 1, "optimizer.decay": "none"}
SHORT = SLOW | {"batch_size": 8, "log_every": 1}


def metrics(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def params(workdir):
    return nnx.to_pure_dict(nnx.state(load_model(workdir)))
