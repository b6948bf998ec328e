"""scripts/train.py from end to end on folders of frames: both stages, resume, devices, what it says of mistakes."""

import json
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx

from data_pipelines import puppets, video_writer
from toontalker_jax.checkpoints import load_model

ROOT = Path(__file__).resolve().parents[2]
TINY = {"width": 16, "motion_slots": 2, "heads": 2, "channel_base": 512, "channel_cap": 16}
# Not the recipes' start: its layer norms blow up small differences of frames, and the rounding in them, a hundredfold.
TINY |= {"difference_init": False}
# Adam's first steps turn gradients that are all rounding into whole steps: the rate keeps these small.
SLOW = {"optimizer.learning_rate": 1e-5, "optimizer.warmup_steps": 1, "optimizer.decay": "none"}
SHORT = SLOW | {"batch_size": 8, "log_every": 1}


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """A folder with a clip of 4 frames of each domain."""
    folder = tmp_path_factory.mktemp("clips")
    for domain in ("real", "cartoon"):
        who = puppets.sample_identity(domain, "train", 0, 0)
        with video_writer.open_writer(folder / domain, Fraction(12)) as writer:
            for motion in puppets.sample_motion(domain, "train", 0, 0, 16)[::4]:
                writer.write(puppets.render(who, motion, 64))
    return folder


@pytest.fixture(scope="module")
def train(tmp_path_factory, clips):
    """`train(workdir, recipe, devices=1, **overrides)`. The runs share what XLA compiles."""
    cache = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("xla"))}

    def train(workdir, recipe="video.py", devices=1, **overrides):
        small = {f"model.{name}": value for name, value in TINY.items()} if recipe == "video.py" else {}
        settings = small | SHORT | {"data.last": 0, "data.real": clips / "real"} | overrides
        # ml_collections loads a recipe by a deprecated call.
        strict = ["-W", "error", "-W", "ignore:the load_module:DeprecationWarning"]
        command = [sys.executable, *strict, "scripts/train.py", f"--config=configs/{recipe}"]
        command += [f"--workdir={workdir}", *(f"--config.{key}={value}" for key, value in settings.items())]
        environment = os.environ | cache | {"JAX_NUM_CPU_DEVICES": str(devices)}
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)

    return train


@pytest.fixture(scope="module")
def stage1(train, tmp_path_factory):
    """The workdir of 4 steps of stage 1 without a break."""
    workdir = tmp_path_factory.mktemp("stage1")
    done = train(workdir, steps=4)
    assert done.returncode == 0, done.stderr
    return workdir


def metrics(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def params(workdir):
    return nnx.to_pure_dict(nnx.state(load_model(workdir)))


def test_a_run_leaves_what_it_promises(stage1):
    names = {path.name for path in stage1.iterdir()}
    assert names == {"config.json", "parameters.txt", "checkpoints", "metrics.jsonl", "tensorboard"}
    assert json.loads((stage1 / "config.json").read_text())["model"]["width"] == 16
    assert [line["step"] for line in metrics(stage1)] == [1, 2, 3, 4]
    assert set(metrics(stage1)[0]) == {"step", "l1/real", "image_gradient/real", "loss", "gradient_norm"}
    assert "Total:" in (stage1 / "parameters.txt").read_text()


def test_a_resumed_run_equals_an_uninterrupted_one(train, stage1, tmp_path):
    for steps in (2, 4):
        done = train(tmp_path, steps=steps)
        assert done.returncode == 0, done.stderr
    assert metrics(tmp_path) == metrics(stage1)
    jax.tree.map(np.testing.assert_array_equal, params(tmp_path), params(stage1))


def test_eight_devices_train_as_one_does(train, stage1, tmp_path):
    done = train(tmp_path, steps=4, devices=8)
    assert done.returncode == 0, done.stderr
    for one, eight in zip(metrics(stage1), metrics(tmp_path), strict=True):
        assert eight == pytest.approx(one, rel=1e-4)  # sums in another order


def test_stage2_goes_on_from_stage1(train, stage1, clips, tmp_path):
    sources = {"data.cartoon": clips / "cartoon", "data.real_split": "", "data.cartoon_split": ""}
    done = train(tmp_path, "puppets.py:stage=2", steps=3, init=stage1, batch_size=1, **sources)
    assert done.returncode == 0, done.stderr
    assert set(load_model(tmp_path).domains) == {"real", "cartoon"}
    assert {"analogy/r2c", "analogy/c2r", "l1/real", "l1/cartoon"} < set(metrics(tmp_path)[0])


@pytest.mark.parametrize(
    ("recipe", "overrides", "message"),
    [
        ("video.py", {"modell": 1}, "modell"),
        ("video.py", {"model.widht": 1}, "widht"),
        ("video.py", {"steps": 0}, "steps = 0"),
        ("video.py", {"steps": 1}, "warmup_steps = 1"),
        ("video.py", {"steps": 9, "data.real": "nowhere.mp4"}, "nowhere.mp4"),
        ("video.py", {"steps": 9, "data.real": ""}, "--config.data.real"),
        ("video.py", {"steps": 9, "weights.perceptual": 1}, "--config.vgg"),
        ("puppets.py:stage=2", {"steps": 9}, "--config.init"),
        ("puppets.py:stages=2", {"steps": 9}, "stages=2"),
    ],
    ids=lambda value: "" if isinstance(value, dict) else value,
)
def test_a_mistake_is_named_before_anything_is_written(train, tmp_path, recipe, overrides, message):
    done = train(tmp_path / "run", recipe, **overrides)
    assert done.returncode != 0
    assert message in "".join(done.stderr.splitlines()[-4:]), done.stderr
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
