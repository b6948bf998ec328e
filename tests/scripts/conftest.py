"""Trainings by scripts/train.py that several tests look at."""

import os
import subprocess
import sys
from fractions import Fraction

import pytest

from data_pipelines import puppets, video_writer
from tests.scripts.trainings import ROOT, SHORT, TINY_SETTINGS


@pytest.fixture(scope="session")
def clips(tmp_path_factory):
    """A folder with a clip of 4 frames of each domain."""
    folder = tmp_path_factory.mktemp("clips")
    for domain in ("real", "cartoon"):
        who = puppets.sample_identity(domain, "train", 0, 0)
        with video_writer.open_writer(folder / domain, Fraction(12)) as writer:
            for motion in puppets.sample_motion(domain, "train", 0, 0, 16)[::4]:
                writer.write(puppets.render(who, motion, 64))
    return folder


@pytest.fixture(scope="session")
def start(clips):
    """`start(workdir, recipe, devices=1, launcher=(), **overrides)`: the script on its way."""

    def start(workdir, recipe="video.py", devices=1, launcher=(), **overrides):
        small = TINY_SETTINGS if recipe == "video.py" else {}
        settings = small | SHORT | {"data.last": 0, "data.real": clips / "real"} | overrides
        # ml_collections loads a recipe by a deprecated call.
        strict = ["-W", "error", "-W", "ignore:the load_module:DeprecationWarning"]
        command = [sys.executable, *strict, *launcher, "scripts/train.py", f"--config=configs/{recipe}"]
        command += [f"--workdir={workdir}", *(f"--config.{key}={value}" for key, value in settings.items())]
        environment = os.environ | {"JAX_NUM_CPU_DEVICES": str(devices)}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, cwd=ROOT, env=environment, **pipes)

    return start


@pytest.fixture(scope="session")
def train(start):
    """As `start`; waits for the end."""

    def train(*arguments, **overrides):
        process = start(*arguments, **overrides)
        output, errors = process.communicate()
        return subprocess.CompletedProcess(process.args, process.returncode, output, errors)

    return train


@pytest.fixture(scope="session")
def stage1(train, tmp_path_factory):
    """The workdir of 4 steps of stage 1 without a break."""
    workdir = tmp_path_factory.mktemp("stage1")
    done = train(workdir, steps=4)
    assert done.returncode == 0, done.stderr
    return workdir
