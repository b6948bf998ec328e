"""Worker processes: the same batches, the same account of bad records, the same errors."""

import itertools
import multiprocessing
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from absl import flags

from data_pipelines import loaders
from data_pipelines.clip_source import BadRecord
from data_pipelines.loaders import Reading
from data_pipelines.sampling import Sampling
from tests.data_pipelines.numbered_clips import SIZE, NumberedClips, UnevenClips, assert_equal

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def parsed_flags():
    """As under absl.app.run; and as before afterwards."""
    was_parsed = flags.FLAGS.is_parsed()
    flags.FLAGS.mark_as_parsed()
    yield
    if not was_parsed:
        flags.FLAGS.unparse_flags()


def run(count=7, **reading):
    """Some batches of stage 2, and the bad records met."""
    real = NumberedClips([4] * 6, mark=1, identities=list("aabbcd"), bad={(2, 1), (5, 0)})
    cartoon = NumberedClips([3, 9], mark=2, bad={(1, 4)})
    sampling = Sampling(min_distance=2, identity_balanced=True, flip=True, colour_jitter=0.2)
    batches = loaders.stage2_batches(real, cartoon, 6, SIZE, 3, 2, sampling, Reading(**reading), (2, 1))
    try:
        return list(itertools.islice(batches, count)), batches.bad_records
    finally:
        batches.close()


@pytest.mark.parametrize(("workers", "threads"), [(2, 0), (4, 2)])
def test_the_number_of_workers_changes_nothing(workers, threads):
    batches, bad = run(num_workers=workers, num_threads=threads)
    expected, bad_alone = run()
    assert bad == bad_alone and len(bad) == 3
    for batch, same in zip(batches, expected, strict=True):
        assert_equal(batch, same)


def test_batches_of_workers_are_the_callers_as_long_as_it_holds_them():
    clips, reading = NumberedClips([7, 30, 12, 100]), Reading(num_workers=2, num_threads=1)
    batches = loaders.pair_batches(clips, 4, SIZE, 0, reading=reading)
    expected = loaders.pair_batches(clips, 4, SIZE, 0)
    held = []
    for step in range(60):
        batch, same = next(batches), next(expected)
        assert_equal(batch, same)
        if step % 10 == 0:
            held.append((batch["driving"][1:], same["driving"][1:]))
    batches.close()
    for rows, same in held:
        np.testing.assert_array_equal(rows, same)


def test_workers_need_no_memory_of_their_own_kind(monkeypatch):
    monkeypatch.setattr(loaders, "SHARES_MEMORY", False)  # as where there is no memory without a name
    for batch, same in zip(run(2, num_workers=1, num_threads=0)[0], run(2)[0], strict=True):
        assert_equal(batch, same)


def test_workers_may_have_files_open_for_their_memory():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, hard), hard))
    try:
        loaders.pair_batches(NumberedClips([3, 3]), 4, SIZE, 0, reading=Reading(num_workers=1))
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_workers_go_on_when_the_machine_is_wanted_back():
    batches = loaders.pair_batches(NumberedClips([3, 3]), 4, SIZE, 0, reading=Reading(num_workers=2, num_threads=0))
    for _ in range(2):  # one of each worker, so that both have started
        next(batches)
    for worker in multiprocessing.active_children():
        worker.terminate()
    assert len(list(itertools.islice(batches, 40))) == 40  # more than lie ready
    batches.close()


def test_a_worker_that_is_killed_is_told_of():
    batches = loaders.pair_batches(NumberedClips([3, 3]), 4, SIZE, 0, reading=Reading(num_workers=1, num_threads=0))
    next(batches)
    multiprocessing.active_children()[0].kill()
    with pytest.raises(OSError, match="a decoding process has ended; if memory ran out, use fewer data.workers: .* -9"):
        list(itertools.islice(batches, 1000))
    batches.close()


STARTS_WORKERS = """
import multiprocessing, os, signal, sys
from absl import flags
from data_pipelines import loaders
from tests.data_pipelines.numbered_clips import SIZE, NumberedClips

if __name__ == "__main__":
    flags.FLAGS(["run"])
    reading = loaders.Reading(num_workers=2, num_threads=0)
    batches = loaders.pair_batches(NumberedClips([3, 3]), 4, SIZE, 0, reading=reading)
    next(batches), next(batches)
    print(*(worker.pid for worker in multiprocessing.active_children()), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_workers_end_when_the_run_is_killed(tmp_path):
    script = tmp_path / "run.py"
    script.write_text(STARTS_WORKERS)
    command, environment = [sys.executable, str(script)], os.environ | {"PYTHONPATH": str(ROOT)}
    # Not to a pipe: the workers hold its other end.
    with open(tmp_path / "pids", "w+") as pids:
        assert subprocess.run(command, stdout=pids, stderr=subprocess.DEVNULL, env=environment).returncode == -9
    workers = [Path(f"/proc/{pid}") for pid in (tmp_path / "pids").read_text().split()]
    assert len(workers) == 2
    deadline = time.monotonic() + 60
    while any(alive(worker) for worker in workers):
        assert time.monotonic() < deadline, "workers outlive the run"
        time.sleep(0.1)


def alive(process):
    """Not one that has ended and waits for somebody to ask how."""
    try:
        return (process / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    ("clips", "error", "message"),
    [
        (NumberedClips([3, 3], bad={(1, i) for i in range(3)}), BadRecord, "1 bad record.* clip1 in shard1: damaged"),
        (UnevenClips([3, 3]), ValueError, "of clip clip1 is 5×4"),
    ],
)
def test_what_goes_wrong_in_a_worker_is_said_here(clips, error, message):
    batches = loaders.pair_batches(clips, 4, SIZE, 0, reading=Reading(num_workers=1, max_bad_records=0))
    with pytest.raises(error, match=message):
        list(itertools.islice(batches, 3))
    batches.close()


def test_a_worker_of_the_training_script_starts_no_device():
    # A spawned process runs the main script again under this name, before it gets its work.
    code = """
import runpy
runpy.run_path("scripts/train.py", run_name="__mp_main__")
from jax._src import xla_bridge
assert not xla_bridge.backends_are_initialized(), "importing scripts/train.py starts a device"
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
