"""The speed reports: their arithmetic, and that of a training step from end to end."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from data_pipelines.loaders import Reading
from data_pipelines.preparation.cut_options import CutOptions
from data_pipelines.preparation.layouts import find_items
from data_pipelines.preparation.plan import make_plan
from data_pipelines.preparation.prepare import prepare
from scripts.benchmarks import data, layers, processes
from scripts.benchmarks.clock import in_turn, ratio
from scripts.benchmarks.train import keep_gradient, shares
from tests.data_pipelines.preparation import trees
from tests.scripts.trainings import ROOT, SLOW, TINY_SETTINGS
from toontalker_jax.models.config import ModelConfig


def test_shares_are_what_leaving_parts_out_saves_and_sum_to_one():
    times = {"step": 10.0, "gradients": 9.0, "without_perceptual": 6.0, "without_adversarial": 4.0, "forward": 1.0}
    wanted = {"optimizer": 0.1, "perceptual": 0.3, "discriminator": 0.2, "generator_backward": 0.3}
    wanted["generator_forward"] = 0.1
    assert shares(times, None) == pytest.approx(wanted | {"data_wait": None})
    slower = {name: 0.8 * share for name, share in wanted.items()}
    assert shares(times, 0.2) == pytest.approx(slower | {"data_wait": 0.2})


def test_a_part_that_the_recipe_lacks_has_no_share():
    found = shares({"step": 10.0, "gradients": 9.0, "forward": 3.0}, None)
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
    wait = report["data_wait"]
    assert parts["data_wait"] == wait["share"] == pytest.approx(1 - wait["without_s"] / wait["with_data_s"])
    assert parts["generator_forward"] == pytest.approx(report["programs_s"]["forward"] / step * (1 - wait["share"]))


@pytest.fixture
def layer_flags(monkeypatch):
    for name, value in {"resolution": 64, "rows": 2, "layer_rounds": 1}.items():
        monkeypatch.setattr(layers, f"_{name.upper()}", SimpleNamespace(value=value))
    config = ConfigDict({"model": {"image_size": 64, "width": 16, "motion_slots": 2, "heads": 2, "channel_base": 512}})
    monkeypatch.setattr(layers, "CONFIG", SimpleNamespace(value=config))


def test_a_layer_whose_gradient_takes_too_long_is_named(monkeypatch, layer_flags):
    def kinds(config, resolution, rows):
        shape = (rows, resolution, resolution, config.channels(resolution))
        return {"cheap": layers.Kind((shape,), lambda x: 2 * x), "dear": layers.Kind((shape,), lambda x: x * x)}

    monkeypatch.setattr(layers, "convolutions", kinds)
    for group in ("generation", "motion", "objectives"):
        monkeypatch.setattr(layers, group, lambda *_: {})
    taken = iter([{"forward": [1.0], "both": [6.0]}, {"forward": [1.0], "both": [6.5]}])
    monkeypatch.setattr(layers, "in_turn", lambda functions, rounds: next(taken))
    report = layers.measure()
    assert report["above_limit"] == ["dear"] and report["channels"] == 8 and report["resolution"] == 64
    assert report["layers"]["dear"] == {"forward_ms": 1000.0, "forward_backward_ms": 6500.0, "ratio": 6.5}


def test_every_kind_of_layer_is_made_in_the_recipes_sizes(layer_flags):
    config = ModelConfig(**layers.CONFIG.value.model)
    for group in (layers.convolutions, layers.generation, layers.motion):
        for kind in group(config, 16, 2).values():
            inputs = [jax.ShapeDtypeStruct(shape, np.float32) for shape in kind.inputs]
            jax.eval_shape(lambda *inputs, kind=kind: kind.call(kind.layer, *inputs), *inputs)


CHILD = """
import json, sys
port, processes, index, devices = map(int, sys.argv[-1].removeprefix("--child=").split(","))
print(json.dumps({"gradients": 2**18}), flush=True)
for line in sys.stdin:
    assert line in ("step\\n", "sum\\n")
    print(processes + index if line == "step\\n" else devices / 8, flush=True)
"""


def test_the_slowest_process_says_how_long_a_step_takes(monkeypatch, tmp_path):
    """Of children that only answer: real ones compile for a minute (docs/benchmarks.md has a run)."""
    (tmp_path / "child.py").write_text(CHILD)
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "child.py"), "processes"])
    parsed = SimpleNamespace(config=SimpleNamespace(batch_size=16), steps=3)
    monkeypatch.setattr(processes, "flags", SimpleNamespace(FLAGS=parsed))
    monkeypatch.setattr(processes, "_CHILD", SimpleNamespace(value=None))
    report = processes.measure()
    assert (report["batch_size"], report["rounds"], report["gradient_mib"]) == (16, 3, 1.0)
    assert report["settings"] == {
        "1 process x 4 devices": {"step_s": 1, "sum_s": 0.5},
        "1 process x 8 devices": {"step_s": 1, "sum_s": 1.0},
        "2 processes x 4 devices": {"step_s": 3, "sum_s": 0.5},
    }
    assert report["two_processes_over_one"] == 3


def test_a_process_that_ends_is_told(monkeypatch, tmp_path):
    (tmp_path / "child.py").write_text("print('{\"gradients\": 1}', flush=True); input()")
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "child.py")])
    monkeypatch.setattr(processes, "flags", SimpleNamespace(FLAGS=SimpleNamespace(config=object(), steps=1)))
    monkeypatch.setattr(processes, "_CHILD", SimpleNamespace(value=None))
    with pytest.raises(ValueError, match="a process ended early"):
        processes.measure()


def test_a_loader_is_measured_against_bare_decoding(monkeypatch, tmp_path):
    trees.movie(tmp_path / "in/a.gif", 0, 4)
    plan = make_plan("clips", *find_items(tmp_path / "in"), CutOptions(image_size=trees.SIDE), test_share=0)
    prepare(plan, tmp_path / "in", tmp_path / "out")
    values = {"data": str(tmp_path / "out"), "split": "train", "pairs": 4, "seconds": 0.1, "rounds": 1}
    for name, value in values.items():
        monkeypatch.setattr(data, f"_{name.upper()}", SimpleNamespace(value=value))
    used = [(cores, reading.num_workers, reading.num_threads) for _, cores, reading in data.settings(8)]
    assert used == [(1, 0, 1), (8, 0, 8), (1, 1, 1), (8, 8, 1)]
    monkeypatch.setattr(data, "settings", lambda _: [("here", 2, Reading(num_threads=1))])
    report = data.measure()
    loader = report["loaders"]["here"]
    assert (report["clips"], report["frames"], report["image_size"]) == (1, 4, trees.SIDE)
    assert loader["frames_per_s"] == 2 * loader["frames_per_s_a_core"] == 2 * loader["pairs_per_s"] > 0
    assert loader["share_of_decoding"] == pytest.approx(loader["frames_per_s"] / loader["decoding_frames_per_s"])
    assert report["first_batch_s"] > 0 and len(loader["memory_mib"]) == 2 and min(loader["memory_mib"]) > 10
