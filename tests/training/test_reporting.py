"""metrics.jsonl whatever happens: killed at any moment, resumed from an older step, no room to write it."""

import json
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from etils import epath

from toontalker_jax.training import reporting
from toontalker_jax.training.reporting import Reporter, describe_run, held


def steps(workdir):
    return [json.loads(line)["step"] for line in (workdir / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture
def clock(monkeypatch):
    """Seconds since some time, by hand."""
    now = [1000.0]
    monkeypatch.setattr(reporting.time, "monotonic", lambda: now[0])
    return now


def test_lines_are_written_every_ten_seconds_when_asked_and_at_the_end(tmp_path, clock):
    reporter = Reporter(tmp_path, 0)
    reporter.scalars(1, {"loss": 1.0}, {})
    assert steps(tmp_path) == []
    clock[0] += 10
    reporter.scalars(2, {"loss": 1.0}, {})
    assert steps(tmp_path) == [1, 2]
    reporter.scalars(3, {"loss": 1.0}, {})
    assert steps(tmp_path) == [1, 2]
    reporter.flush()
    assert steps(tmp_path) == [1, 2, 3]
    reporter.scalars(4, {"loss": 1.0}, {})
    reporter.close()
    assert steps(tmp_path) == [1, 2, 3, 4]


def test_a_workdir_is_held_by_one_run(tmp_path):
    workdir = epath.Path(tmp_path) / "run"
    with held(workdir):
        with pytest.raises(OSError, match="run: another run trains there; stop it first"), held(workdir):
            pass
    with held(workdir):
        pass


def test_lines_after_the_step_gone_on_from_are_dropped(tmp_path):
    reporter = Reporter(tmp_path, 0)
    for step in (1, 2, 3):
        reporter.scalars(step, {"loss": 1.0}, {})
    reporter.close()
    Reporter(tmp_path, 2).close()
    assert steps(tmp_path) == [1, 2]


def test_the_last_line_may_be_half_written_and_no_other(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2}\n{"step": 3, "lo')
    Reporter(tmp_path, 5).close()
    assert steps(tmp_path) == [1, 2]
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"st\n{"step": 3}\n')
    with pytest.raises(json.JSONDecodeError):
        Reporter(tmp_path, 5)


KILLED_WHILE_WRITING = """
import os, signal, sys
from etils import epath
from toontalker_jax.training.reporting import Reporter

reporter = Reporter(sys.argv[1], 0)
reporter.scalars(1, {"loss": 1.0}, {})
reporter.flush()
reporter.scalars(2, {"loss": 2.0}, {})
write_text = type(epath.Path("/")).write_text

def half(path, text):
    write_text(path, text[: len(text) - 5])
    os.kill(os.getpid(), signal.SIGKILL)

type(epath.Path("/")).write_text = half
reporter.flush()
"""


def test_a_kill_while_the_file_is_written_leaves_the_one_before(tmp_path):
    done = subprocess.run([sys.executable, "-c", KILLED_WHILE_WRITING, tmp_path], env=os.environ | {"PYTHONPATH": "."})
    assert done.returncode == -9
    assert steps(tmp_path) == [1]
    Reporter(tmp_path, 1).close()
    assert {path.name for path in tmp_path.iterdir()} == {"metrics.jsonl", "pace.jsonl", "tensorboard"}


def test_a_full_disk_is_an_error_when_flushed_and_a_warning_at_the_end(tmp_path, monkeypatch, caplog):
    def full(*_):
        raise OSError(28, "No space left on device")

    reporter = Reporter(tmp_path, 0)
    reporter.scalars(1, {"loss": 1.0}, {})
    monkeypatch.setattr(type(epath.Path(tmp_path)), "write_text", full)
    with pytest.raises(OSError, match="No space left"):
        reporter.flush()
    reporter.close()
    assert "the last of metrics.jsonl, pace.jsonl or tensorboard/ could not be written" in caplog.text
    assert not [thread for thread in threading.enumerate() if "Event" in type(thread).__name__]  # that one is closed


def test_a_dead_tensorboard_is_an_error_and_does_not_block(tmp_path):
    reporter = Reporter(tmp_path, 0)
    reporter._board.file_writer.event_writer._worker.stop()
    with pytest.raises(OSError, match="TensorBoard's events could not be written"):
        for step in range(100):
            reporter.scalars(step, {"loss": 1.0}, {})
    reporter.close()


def test_every_network_that_there_is_has_its_parameters_listed(tmp_path):
    networks = {"generator": {"a": np.zeros((3, 4))}, "discriminator": {"b": np.zeros(5)}, "none": {}}
    describe_run(epath.Path(tmp_path), {}, networks)
    generator, discriminator = (tmp_path / "parameters.txt").read_text().split("\n\n")
    assert generator.startswith("generator\n") and "Total: 12" in generator
    assert discriminator.startswith("discriminator\n") and "Total: 5" in discriminator


def test_tensorboard_gets_the_scalars_the_pace_and_the_pictures(tmp_path):
    reporter = Reporter(tmp_path, 0)
    reporter.scalars(1, {"loss": 1.0}, {"pace/step_s": 2.0})
    reporter.pictures(1, {"grid": np.zeros((4, 4, 3), np.uint8)})
    reporter.close()
    (events,) = (tmp_path / "tensorboard").iterdir()
    assert all(part in events.read_bytes() for part in (b"loss", b"pace/step_s", b"grid", b"\x89PNG"))


def test_the_other_processes_write_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(reporting.jax, "process_index", lambda: 1)
    describe_run(epath.Path(tmp_path), {}, {"generator": {"a": np.zeros(3)}})
    reporter = Reporter(tmp_path / "run", 0)
    reporter.scalars(1, {"loss": 1.0}, {})
    reporter.pictures(1, {"grid": np.zeros((4, 4, 3), np.uint8)})
    reporter.flush()
    reporter.close()
    assert not list(tmp_path.iterdir())
