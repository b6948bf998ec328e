"""The loop with a one-number model: what it reports and saves when, and the stop that names the culprit."""

import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from toontalker_jax.checkpoints import TrainCheckpoints
from toontalker_jax.models.config import ModelConfig
from toontalker_jax.training import loop, pace, watch
from toontalker_jax.training.preemption import Preempted
from toontalker_jax.training.reporting import Reporter
from toontalker_jax.training.sharding import Layout, make_mesh
from toontalker_jax.training.state import TrainState
from toontalker_jax.training.watch import Watch

DATA = {"seed": 0, "clips": "2 clips", "flip": False}
RECIPE = {"seed": 0, "steps": 5, "batch_size": 2, "optimizer": {"decay": "none", "learning_rate": 1.0}}


def train_step(state, batch, vgg):
    """Adds the batch's mean to w. `grow` overflows at step 6."""
    del vgg
    w = state.generator["w"] + batch["x"].mean()
    metrics = {"loss": w, "gradient_norm": w, "grow": jnp.where(state.step >= 5, jnp.inf, 1.0)}
    return state._replace(step=state.step + 1, generator={"w": w}), metrics


def start():
    empty = {name: {} for name in TrainState._fields}
    return TrainState(**empty | {"step": jnp.zeros((), jnp.int32), "generator": {"w": jnp.zeros(())}})


def train(workdir, schedule, data=DATA, recipe=RECIPE, stop=lambda step: False, trace_steps=0):
    """Runs the loop on batches 1, 2, 3 …, whose rows are counted from the step at which it starts."""
    layout = Layout(make_mesh(devices=jax.devices()[:1]))
    run = loop.Run(
        train_step=train_step,
        vgg=None,
        pictures=lambda params, batch: {"grid": jnp.full((4, 4, 3), 1.0)},
        shown={"x": np.ones(2, np.float32)},
        batch={"x": jax.ShapeDtypeStruct((2,), np.float32)},
        rows=2,
        batches=lambda done: ({"x": np.full(2, n, np.float32)} for n in itertools.count(done + 1)),
        data=data,
        recipe=recipe,
        schedule=schedule,
        layout=layout,
        stop=stop,
        count_flops=lambda: 0.0,
        trace_steps=trace_steps,
    )
    with TrainCheckpoints(workdir) as saved:
        state = loop.resume(start(), saved, layout, data, recipe)
        reporter = Reporter(workdir, int(state.step))
        try:
            return loop.train(run, state, saved, reporter, ModelConfig(image_size=64), ("real",))
        finally:
            saved.wait()
            reporter.close()


def lines(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_reports_and_checkpoints_come_when_they_are_due_and_at_the_end(tmp_path):
    state = train(tmp_path, loop.Schedule(5, log_every=2, pictures_every=10, checkpoint_every=3))
    assert float(state.generator["w"]) == 1 + 2 + 3 + 4 + 5
    assert [(line["step"], line["loss"]) for line in lines(tmp_path)] == [(1, 1.0), (2, 3.0), (4, 10.0), (5, 15.0)]
    assert sorted(int(path.name) for path in (tmp_path / "checkpoints").iterdir()) == [3, 5]


def test_metrics_and_pictures_are_read_when_the_next_step_is_under_way_or_a_checkpoint_is_due(tmp_path, monkeypatch):
    order, begin, report, pictures = [], loop.shard_batch, Watch.report, Reporter.pictures

    def told(name, call, number):
        def observed(*arguments):
            order.append((name, number(arguments)))
            return call(*arguments)

        return observed

    monkeypatch.setattr(loop, "shard_batch", told("begin", begin, lambda arguments: int(arguments[0]["x"][0])))
    monkeypatch.setattr(Watch, "report", told("report", report, lambda arguments: arguments[1]))
    monkeypatch.setattr(Reporter, "pictures", told("pictures", pictures, lambda arguments: arguments[1]))
    train(tmp_path, loop.Schedule(5, log_every=1, pictures_every=2, checkpoint_every=3))
    late = [("begin", 1), ("begin", 2), ("report", 1), ("begin", 3), ("report", 2), ("pictures", 2), ("report", 3)]
    assert order == [*late, ("begin", 4), ("begin", 5), ("report", 4), ("pictures", 4), ("report", 5), ("pictures", 5)]


def test_the_pace_is_told_from_the_second_report_on(tmp_path):
    train(tmp_path, loop.Schedule(5, log_every=2, pictures_every=10, checkpoint_every=10))
    laps = [json.loads(line) for line in (tmp_path / "pace.jsonl").read_text().splitlines()]
    assert [lap["step"] for lap in laps] == [2, 4, 5]
    told = ("rows_per_s", "step_s", "data_wait", "hours_left", "memory_gib")
    assert all(set(lap) == {"step", *(f"pace/{name}" for name in told)} for lap in laps)
    assert laps[-1]["pace/hours_left"] == 0 < laps[0]["pace/hours_left"]


def test_every_step_is_looked_at_for_alarms(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(watch, "Alarms", lambda: lambda step, values: ["step 3: ahoy"] if values["loss"] == 6 else [])
    train(tmp_path, loop.Schedule(5, log_every=5, pictures_every=10, checkpoint_every=10))
    assert caplog.text.count("step 3: ahoy") == 1


def test_the_steps_that_are_asked_for_are_traced(tmp_path, monkeypatch):
    traced = []
    monkeypatch.setattr(jax.profiler, "start_trace", traced.append)
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: traced.append("end"))
    monkeypatch.setattr(pace, "_SKIPPED", 2)
    train(tmp_path / "quiet", loop.Schedule(5, 1, 10, 10))
    assert traced == []
    train(tmp_path / "traced", loop.Schedule(5, 1, 10, 10), trace_steps=1)
    assert traced == [str(tmp_path / "traced" / "profile"), "end"]


def test_a_run_goes_on_where_it_stopped_with_the_batches_that_follow(tmp_path):
    train(tmp_path, loop.Schedule(3, 1, 10, 10))
    state = train(tmp_path, loop.Schedule(5, 1, 10, 10))
    assert float(state.generator["w"]) == 15
    assert [line["step"] for line in lines(tmp_path)] == [1, 2, 3, 4, 5]


def test_when_a_checkpoint_is_begun_the_log_has_its_step(tmp_path, monkeypatch):
    logged, save = {}, TrainCheckpoints.save

    def observed(saved, step, *rest):
        logged[step] = lines(tmp_path)[-1]["step"]
        save(saved, step, *rest)

    monkeypatch.setattr(TrainCheckpoints, "save", observed)
    train(tmp_path, loop.Schedule(5, log_every=1, pictures_every=10, checkpoint_every=2))
    assert logged == {2: 2, 4: 4, 5: 5}


def test_a_notice_saves_the_step_and_the_run_goes_on_from_it(tmp_path):
    schedule = loop.Schedule(5, 1, 10, 10)
    with pytest.raises(Preempted, match="after step 3, which is saved"):
        train(tmp_path, schedule, stop=lambda step: step == 3)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["3"]
    assert [line["step"] for line in lines(tmp_path)] == [1, 2, 3]
    assert float(train(tmp_path, schedule).generator["w"]) == 15


def test_a_notice_at_the_last_step_changes_nothing(tmp_path):
    assert float(train(tmp_path, loop.Schedule(5, 1, 10, 10), stop=lambda step: step == 5).generator["w"]) == 15


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # as in test_damaged_checkpoints.py
def test_a_run_goes_on_from_the_newest_sound_step_and_ends_as_if_nothing_had_been(tmp_path):
    train(tmp_path, loop.Schedule(4, 1, 10, checkpoint_every=2))
    (tmp_path / "checkpoints" / "4" / "state" / "manifest.ocdbt").unlink()
    state = train(tmp_path, loop.Schedule(5, 1, 10, checkpoint_every=2))
    assert float(state.generator["w"]) == 15
    assert [line["step"] for line in lines(tmp_path)] == [1, 2, 3, 4, 5]
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["4", "5"]
    assert sorted(path.name for path in (tmp_path / "damaged").iterdir()) == ["4", "README"]


def test_a_save_that_fails_ends_the_run_before_the_next_one(tmp_path, monkeypatch):
    def fail(saved):
        raise OSError("step 2 could not be written")

    monkeypatch.setattr(TrainCheckpoints, "check_saved", fail)
    with pytest.raises(OSError, match="step 2 could not be written"):
        train(tmp_path, loop.Schedule(5, 1, 10, 10))


def test_a_run_goes_on_only_with_the_recipe_it_began_with(tmp_path):
    train(tmp_path, loop.Schedule(2, 1, 10, 10))
    with pytest.raises(ValueError, match="differently: optimizer.learning_rate was 1.0, is 0.5. Set"):
        train(tmp_path, loop.Schedule(3, 1, 10, 10), recipe=RECIPE | {"optimizer": {"learning_rate": 0.5}})


def test_a_run_that_has_ended_does_nothing(tmp_path):
    schedule = loop.Schedule(3, 1, 10, 10)
    train(tmp_path, schedule)
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "checkpoints").rglob("*")}
    assert float(train(tmp_path, schedule).generator["w"]) == 6
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "checkpoints").rglob("*")} == written
    assert [line["step"] for line in lines(tmp_path)] == [1, 2, 3]


def test_a_run_goes_on_only_with_the_data_it_began_with(tmp_path):
    train(tmp_path, loop.Schedule(2, 1, 10, 10))
    message = "step 2 was trained differently: data: flip was False, is True; data: new was None, is 1; data: seed"
    with pytest.raises(ValueError, match=message):
        train(tmp_path, loop.Schedule(3, 1, 10, 10), DATA | {"flip": True, "seed": 3, "new": 1})
    assert lines(tmp_path)[-1]["step"] == 2
    assert float(train(tmp_path, loop.Schedule(3, 1, 10, 10)).generator["w"]) == 1 + 2 + 3


def test_a_checkpoint_that_tells_no_data_is_taken_with_a_warning(tmp_path, caplog):
    state = jax.device_put(start())
    with TrainCheckpoints(tmp_path) as saved:
        saved.save(1, state._asdict(), ModelConfig(image_size=64), ("real",))
    train(tmp_path, loop.Schedule(2, 1, 10, 10))
    assert "step 1 does not tell its data" in caplog.text


@pytest.mark.parametrize("checkpoint_every", [1, 2, 7])
def test_a_loss_that_is_not_finite_stops_the_run_and_is_named(tmp_path, checkpoint_every):
    with pytest.raises(FloatingPointError, match="step 6: grow = inf"):
        train(tmp_path, loop.Schedule(20, 1, 20, checkpoint_every))
    with TrainCheckpoints(tmp_path, read_only=True) as saved:
        assert saved.latest_step() == {1: 5, 2: 4, 7: None}[checkpoint_every]
    assert lines(tmp_path)[-1]["step"] == 5
