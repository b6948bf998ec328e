"""scripts/train.py stopped by signals, by a full disk, by another recipe, and started again."""

import functools
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from tests.scripts.trainings import ROOT, SHORT, TINY_SETTINGS, metrics, params
from toontalker_jax.checkpoints import TrainCheckpoints
from toontalker_jax.training import preemption


@pytest.fixture
def half(stage1, train, tmp_path_factory):
    """Of the same run, the first 2 steps."""
    workdir = tmp_path_factory.mktemp("half")
    done = train(workdir, steps=2)
    assert done.returncode == 0, done.stderr
    return workdir


def assert_same_run(workdir, undisturbed):
    assert metrics(workdir) == metrics(undisturbed)
    jax.tree.map(np.testing.assert_array_equal, params(workdir), params(undisturbed))


def test_a_resumed_run_equals_an_uninterrupted_one_on_other_devices_but_for_rounding(train, half, stage1, tmp_path):
    shutil.copytree(half, tmp_path / "elastic")
    done = train(half, steps=4)
    assert done.returncode == 0, done.stderr
    assert_same_run(half, stage1)
    done = train(tmp_path / "elastic", steps=4, devices=8)
    assert done.returncode == 0, done.stderr
    for one, eight in zip(metrics(stage1), metrics(tmp_path / "elastic"), strict=True):
        assert eight == pytest.approx(one, rel=1e-4)  # sums in another order


def test_sigterm_at_any_time_loses_nothing(start, train, stage1, tmp_path):
    starting = start(tmp_path, steps=4)
    while not (tmp_path / "checkpoints").exists() and starting.poll() is None:
        time.sleep(0.01)
    starting.terminate()
    starting.communicate()
    assert starting.returncode in (-signal.SIGTERM, preemption.EXIT_STATUS)  # before or after it listens
    training = start(tmp_path, steps=4)
    told = ""
    for character in iter(functools.partial(training.stderr.read, 1), ""):
        told += character
        if told.endswith((" 1/4 [", " 2/4 [")):  # the bar of steps
            training.terminate()
            break
    errors = told + training.communicate()[1]
    assert training.returncode == preemption.EXIT_STATUS, errors
    with TrainCheckpoints(tmp_path, read_only=True) as saved:
        step = saved.latest_step()
    assert errors.splitlines()[-1].startswith(f"stopped by SIGTERM after step {step}, which is saved: run the same")
    assert 0 < step < 4 and len(metrics(tmp_path)) == step
    done = train(tmp_path, steps=4)
    assert done.returncode == 0, done.stderr
    assert_same_run(tmp_path, stage1)


def test_sigkills_lose_nothing(stage1, cache, tmp_path):
    """scripts/torture_resume.py in short: with the settings of the other runs here, which are compiled."""
    options = [f"--workdir={tmp_path}", "--kills=2", "--steps=6", f"--output={tmp_path / 'report.json'}", "--"]
    settings = SHORT | TINY_SETTINGS | {"model.dropout": 0.0, "weights.adversarial": 0.0, "ema_images": 0}
    options += [f"--config.{name}={value}" for name, value in settings.items()]
    command = [sys.executable, "-W", "error", "scripts/torture_resume.py", *options]
    environment = os.environ | cache | {"JAX_NUM_CPU_DEVICES": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["verdict"] == "nothing lost" and report["during a save"] == 1
    assert report["arrays"] > 500 and report["lines of metrics"] == 6


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


def test_a_run_is_not_continued_on_other_data(train, stage1):
    done = train(stage1, steps=6, seed=1, **{"data.min_distance": 2})
    message = "error: step 4 was trained differently: seed was 0, is 1; data: min_distance was 1, is 2. Set it back"
    assert done.returncode != 0 and done.stderr.splitlines()[-1].startswith(message), done.stderr
    assert len(metrics(stage1)) == 4
