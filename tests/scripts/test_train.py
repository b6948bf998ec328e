"""scripts/train.py from end to end on folders of frames: both stages, resume, devices, what it says of mistakes."""

import functools
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx

from data_pipelines import puppets, video_writer
from toontalker_jax.checkpoints import TrainCheckpoints, load_model
from toontalker_jax.training import preemption

ROOT = Path(__file__).resolve().parents[2]
TINY = {"width": 16, "motion_slots": 2, "heads": 2, "channel_base": 512, "channel_cap": 16}
# Not the recipes' start: its layer norms blow up small differences of frames, and the rounding in them, a hundredfold.
TINY |= {"difference_init": False}
TINY_SETTINGS = {f"model.{name}": value for name, value in TINY.items()}
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
def cache(tmp_path_factory):
    """Environment of a script; all share what XLA compiles."""
    return {"JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("xla"))}


@pytest.fixture(scope="module")
def start(cache, clips):
    """`start(workdir, recipe, devices=1, launcher=(), **overrides)`: the script on its way."""

    def start(workdir, recipe="video.py", devices=1, launcher=(), **overrides):
        small = TINY_SETTINGS if recipe == "video.py" else {}
        settings = small | SHORT | {"data.last": 0, "data.real": clips / "real"} | overrides
        # ml_collections loads a recipe by a deprecated call.
        strict = ["-W", "error", "-W", "ignore:the load_module:DeprecationWarning"]
        command = [sys.executable, *strict, *launcher, "scripts/train.py", f"--config=configs/{recipe}"]
        command += [f"--workdir={workdir}", *(f"--config.{key}={value}" for key, value in settings.items())]
        environment = os.environ | cache | {"JAX_NUM_CPU_DEVICES": str(devices)}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, cwd=ROOT, env=environment, **pipes)

    return start


@pytest.fixture(scope="module")
def train(start):
    """As `start`; waits for the end."""

    def train(*arguments, **overrides):
        process = start(*arguments, **overrides)
        output, errors = process.communicate()
        return subprocess.CompletedProcess(process.args, process.returncode, output, errors)

    return train


@pytest.fixture(scope="module")
def stage1(train, tmp_path_factory):
    """The workdir of 4 steps of stage 1 without a break."""
    workdir = tmp_path_factory.mktemp("stage1")
    done = train(workdir, steps=4)
    assert done.returncode == 0, done.stderr
    return workdir


@pytest.fixture
def half(stage1, train, tmp_path_factory):
    """Of the same run, the first 2 steps."""
    workdir = tmp_path_factory.mktemp("half")
    done = train(workdir, steps=2)
    assert done.returncode == 0, done.stderr
    return workdir


def metrics(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def params(workdir):
    return nnx.to_pure_dict(nnx.state(load_model(workdir)))


def test_a_run_leaves_what_it_promises(stage1):
    names = {path.name for path in stage1.iterdir()}
    assert names == {"config.json", "parameters.txt", "checkpoints", "metrics.jsonl", "pace.jsonl", "tensorboard"}
    assert json.loads((stage1 / "config.json").read_text())["model"]["width"] == 16
    assert [line["step"] for line in metrics(stage1)] == [1, 2, 3, 4]
    assert set(metrics(stage1)[0]) == {"step", "l1/real", "image_gradient/real", "loss", "gradient_norm", "still/real"}
    assert "Total:" in (stage1 / "parameters.txt").read_text()


def assert_same_run(workdir, undisturbed):
    assert metrics(workdir) == metrics(undisturbed)
    jax.tree.map(np.testing.assert_array_equal, params(workdir), params(undisturbed))


def test_a_resumed_run_equals_an_uninterrupted_one_on_other_devices_but_for_rounding(train, half, stage1, tmp_path):
    shutil.copytree(half, tmp_path / "elastic")
    done = train(half, steps=4)
    assert done.returncode == 0, done.stderr
    assert_same_run(half, stage1)
    done = train(tmp_path / "elastic", steps=4, devices=4, **{"mesh.fsdp": 2})
    assert done.returncode == 0, done.stderr
    for one, four in zip(metrics(stage1), metrics(tmp_path / "elastic"), strict=True):
        assert four == pytest.approx(one, rel=1e-4)  # sums in another order


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


def test_two_processes_of_four_devices_train_as_one_device_does(start, stage1, tmp_path):
    """With the state in slices over pairs of devices, by the launcher for one machine."""
    launcher = ("scripts/launch/local.py", "--processes=2", "--devices=4", "--")
    process = start(tmp_path, devices=4, launcher=launcher, steps=4, **{"mesh.fsdp": 2})
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    for one, eight in zip(metrics(stage1), metrics(tmp_path), strict=True):
        assert eight.pop("gradient_norm") == pytest.approx(one.pop("gradient_norm"), rel=1e-3)
        assert eight == pytest.approx(one, rel=1e-4)  # sums in another order
    assert len(list((tmp_path / "tensorboard").iterdir())) == 1  # of process 0 alone
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), params(tmp_path), params(stage1))


@pytest.fixture(scope="module")
def prepared(run_script, clips, tmp_path_factory):
    """The clips as prepare_data.py writes them: 4 frames of an identity each."""
    path = tmp_path_factory.mktemp("prepared") / "data"
    options = ("--image_size=64", "--test_share=0", f"--output={path}")
    done = run_script("prepare_data", "cartoon", f"--input={clips}", *options)
    assert done.returncode == 0, done.stderr
    return path


# The paper's losses by networks take minutes to compile.
ALONE = {"weights.perceptual": 0.0, "weights.adversarial": 0.0}


def test_the_papers_stage1_trains_from_prepared_data_and_tells_bad_records(train, prepared, tmp_path):
    shutil.copytree(prepared, tmp_path / "damaged")
    shard = next((tmp_path / "damaged").rglob("*.array_record*"))
    data = bytearray(shard.read_bytes())
    pictures = [match.start() for match in re.finditer(b"\xff\xd8\xff", data)]
    for record in (1, 2, 5):
        data[pictures[record] + 100] ^= 255
    shard.write_bytes(data)
    small = TINY_SETTINGS | {"model.image_size": 64}
    small |= {"data.real": tmp_path / "damaged", "steps": 2, "batch_size": 2}
    small |= {"data.workers": 2, "data.threads": 0}
    small |= {"model.dropout": 0.0}  # Random numbers would only cost compile time.
    done = train(tmp_path / "run", "stage1.py", **small, **ALONE)
    assert done.returncode == 0, done.stderr
    assert "bad record 1, replaced by another draw: frame " in done.stderr and shard.name in done.stderr
    assert set(metrics(tmp_path / "run")[0]) == {"step", "l1/real", "loss", "gradient_norm", "still/real"}
    with TrainCheckpoints(tmp_path / "run", read_only=True) as saved:
        assert saved.describe_step()[1]["metadata"]["data"]["clips"].startswith("2 clips of 8 frames")


def test_the_papers_stage2_goes_on_and_keeps_what_it_was_told_of_the_data(train, stage1, prepared, tmp_path):
    options = {"min_distance": 2, "max_distance": 3, "identity_balanced": True, "flip": True, "colour_jitter": 0.2}
    options |= {"driver_weights.real": 3, "driver_weights.cartoon": 1, "first": 1}
    sources = {f"data.{name}": value for name, value in (options | {"real": prepared, "cartoon": prepared}).items()}
    # tests/training/test_stages.py has the analogy loss, whose gradient takes another minute to compile.
    losses = ALONE | {"weights.analogy": 0.0}
    done = train(tmp_path, "stage2.py", steps=3, init=stage1, batch_size=2, **losses, **sources)
    assert done.returncode == 0, done.stderr
    assert set(load_model(tmp_path).domains) == {"real", "cartoon"}
    domains = {f"{name}/{d}" for name in ("l1", "still") for d in ("real", "cartoon")}
    assert set(metrics(tmp_path)[0]) == {"step", "loss", "gradient_norm"} | domains
    with TrainCheckpoints(tmp_path, read_only=True) as saved:
        data = saved.describe_step()[1]["metadata"]["data"]
    assert data.pop("real").startswith("2 clips of 6 frames") and data.pop("cartoon").startswith("2 clips of 8 frames")
    told = {name: value for name, value in options.items() if "." not in name and name != "first"}
    rows = {"rows of r2c": 3, "rows of c2r": 1}
    assert data == told | rows | {"seed": 0, "batch_size": 2, "image_size": 64, "first frame": 1}


@pytest.mark.parametrize(
    ("recipe", "overrides", "message"),
    [
        ("video.py", {"model.widht": 1}, "widht"),
        ("video.py", {"steps": 0}, "steps = 0"),
        ("video.py", {"steps": 1}, "warmup_steps = 1"),
        ("video.py", {"steps": 9, "data.real": "nowhere.mp4"}, "nowhere.mp4"),
        ("video.py", {"steps": 9, "data.real": ""}, "--config.data.real"),
        ("video.py", {"steps": 9, "weights.perceptual": 1}, "--config.vgg"),
        ("video.py", {"steps": 9, "data.min_distance": 4}, "4 frame(s), 5 needed: remove it, or lower min_distance"),
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
