"""What the clock of a run says."""

import contextlib

import jax
import jax.numpy as jnp
import pytest

from toontalker_jax.training import pace


def test_a_lap_tells_rates_of_the_steps_since_the_last_one(monkeypatch):
    clock = iter([100.0, 101.0, 103.0, 105.0, 106.0, 110.0, 111.0])
    monkeypatch.setattr(pace.time, "perf_counter", lambda: next(clock))
    watch = pace.Pace(rows=16, steps=1000, flops=1e12, peak=1e13)
    assert watch.lap(1) == {}  # at 100
    with watch.waiting():  # 101 … 103
        pass
    values = watch.lap(11)  # at 105
    memory = values.pop("pace/memory_gib")
    expected = {"rows_per_s": 32, "step_s": 0.5, "data_wait": 0.4, "hours_left": 0.5 * 989 / 3600, "utilisation": 0.2}
    assert values == pytest.approx({f"pace/{name}": value for name, value in expected.items()})
    assert 0.01 < memory < 100
    assert watch.lap(12)["pace/data_wait"] == 0  # at 106
    later = pace.Pace(rows=16, steps=20)
    assert later.lap(1) == {}  # at 110
    assert "pace/utilisation" not in later.lap(2)  # at 111


def test_a_trace_holds_the_steps_asked_for(tmp_path):
    tracer, add = pace.Tracer(tmp_path, first=100, steps=2), jax.jit(lambda x: x + 1)
    x = jnp.zeros(())
    for step in range(101, 115):
        x = add(x)
        tracer(step)
        assert (tmp_path / "profile").exists() == (step >= 112)  # it is written at its end
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))


def test_a_trace_ends_with_the_run_and_none_is_made_unasked(tmp_path):
    with contextlib.closing(pace.Tracer(tmp_path / "short", first=0, steps=5)) as tracer:
        tracer(10)
    assert list(tmp_path.rglob("*.xplane.pb"))
    pace.Tracer(tmp_path / "none", first=0, steps=0)(10)
    assert not (tmp_path / "none").exists()
