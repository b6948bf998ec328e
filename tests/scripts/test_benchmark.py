"""The speed reports: their arithmetic, and that of a training step from end to end."""

import json
import os
import subprocess
import sys

import jax.numpy as jnp
import pytest

from scripts.benchmarks.clock import in_turn, ratio
from scripts.benchmarks.train import keep_gradient, shares
from tests.scripts.trainings import ROOT, SLOW, TINY_SETTINGS


def test_shares_are_what_leaving_parts_out_saves_and_sum_to_one():
    times = {"step": 10.0, "gradients": 9.0, "without_perceptual": 6.0, "without_adversarial": 4.0, "forward": 1.0}
    found = shares(times)
    wanted = {"optimizer": 0.1, "perceptual": 0.3, "discriminator": 0.2, "generator_backward": 0.3}
    assert found == pytest.approx(wanted | {"generator_forward": 0.1})


def test_a_part_that_the_recipe_lacks_has_no_share():
    found = shares({"step": 10.0, "gradients": 9.0, "forward": 3.0})
    assert found["perceptual"] is None and found["discriminator"] is None
    assert sum(share for share in found.values() if share is not None) == pytest.approx(1)
    assert found["generator_backward"] == pytest.approx(0.6)


def test_functions_are_timed_in_turn_after_one_call_that_does_not_count():
    calls = []
    times = in_turn({name: lambda name=name: calls.append(name) for name in "ab"}, rounds=2)
    assert "".join(calls) == "abababab"[: len(calls)] and len(calls) == 6
    assert [len(values) for values in times.values()] == [2, 2]
    assert ratio([1, 9, 4], of=[1, 3, 2]) == 2


def test_the_kept_gradient_moves_nothing():
    optimizer = keep_gradient()
    steps, state = optimizer.update({"w": jnp.ones(3)}, optimizer.init({"w": jnp.zeros(3)}), {"w": jnp.zeros(3)})
    assert not steps["w"].any() and state["w"].all()


def test_a_training_step_is_measured_with_its_parts_and_its_data(clips):
    settings = TINY_SETTINGS | SLOW | {"batch_size": 2, "data.real": clips / "real", "data.last": 0}
    flags = [f"--config.{name}={value}" for name, value in settings.items()]
    command = [sys.executable, "-W", "error", "-W", "ignore:the load_module:DeprecationWarning", "scripts/benchmark.py"]
    command += ["train", "--config=configs/video.py", "--steps=1", "--loader", *flags]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"JAX_NUM_CPU_DEVICES": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    step, parts = report["step_s"], report["shares"]
    assert report["pairs_per_s"] == pytest.approx(2 / step) and report["mesh"] == {"data": 1, "fsdp": 1}
    assert report["utilisation"] == pytest.approx(report["step_gflop"] / step / report["peak_gflop_per_s"])
    assert parts["perceptual"] is None and parts["discriminator"] is None
    assert sum(share for share in parts.values() if share is not None) == pytest.approx(1)
    assert parts["generator_forward"] == pytest.approx(report["programs_s"]["forward"] / step)
    assert report["data_wait"]["with_data_s"] > 0
