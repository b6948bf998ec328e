"""scripts/train.py stopped by signals and by a full disk, and started again."""

import functools
import json
import os
import resource
import shutil
import subprocess
import sys

import jax
import numpy as np

from tests.scripts.trainings import ROOT, SHORT, TINY_SETTINGS, metrics, params
from toontalker_jax.checkpoints import TrainCheckpoints
from toontalker_jax.training import preemption


def assert_same_run(workdir, undisturbed):
    assert metrics(workdir) == metrics(undisturbed)
    jax.tree.map(np.testing.assert_array_equal, params(workdir), params(undisturbed))


def test_sigterm_loses_nothing(start, train, stage1, tmp_path):
    training = start(tmp_path / "run", steps=4)
    told = ""
    for character in iter(functools.partial(training.stderr.read, 1), ""):
        told += character
        if told.endswith((" 1/4 [", " 2/4 [")):  # the bar of steps
            training.terminate()
            break
    errors = told + training.communicate()[1]
    assert training.returncode == preemption.EXIT_STATUS, errors
    with TrainCheckpoints(tmp_path / "run", read_only=True) as saved:
        step = saved.latest_step()
    assert errors.splitlines()[-1].startswith(f"stopped by SIGTERM after step {step}, which is saved: run the same")
    assert 0 < step < 4 and len(metrics(tmp_path / "run")) == step
    done = train(tmp_path / "run", steps=4)
    assert done.returncode == 0, done.stderr
    assert metrics(tmp_path / "run") == metrics(stage1)
    jax.tree.map(np.testing.assert_array_equal, params(tmp_path / "run"), params(stage1))


def test_sigkills_lose_nothing(stage1, tmp_path):
    """scripts/torture_resume.py in short: with the settings of the other runs here, which are compiled."""
    options = [f"--workdir={tmp_path}", "--kills=2", "--steps=6", f"--output={tmp_path / 'report.json'}", "--"]
    settings = SHORT | TINY_SETTINGS | {"model.dropout": 0.0, "ema_images": 0}
    settings |= {"weights.adversarial": 0.0, "r1.gamma": 0.0}
    options += [f"--config.{name}={value}" for name, value in settings.items()]
    command = [sys.executable, "-W", "error", "scripts/torture_resume.py", *options]
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["verdict"] == "nothing lost" and report["during a save"] == 1
    assert report["arrays"] > 440 and report["lines of metrics"] == 6


def test_a_full_disk_is_one_line_that_says_what_remains(start, stage1, tmp_path):
    shutil.copytree(stage1, tmp_path / "run")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))  # of a file, inherited
    try:
        process = start(tmp_path / "run", steps=6)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    errors = process.communicate()[1]
    assert process.returncode == 1
    last = errors.splitlines()[-1]
    assert last.startswith("error: step 6 could not be written to ") and "the newest step there is 4; " in last, errors
    assert "Traceback" not in errors
    assert len(metrics(tmp_path / "run")) == 6
