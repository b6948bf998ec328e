"""SIGTERM before and after the first step. tests/scripts has whole runs."""

import signal
import subprocess
import sys

import pytest

from toontalker_jax.training.preemption import Notice, Preempted


@pytest.fixture
def notice():
    before = signal.getsignal(signal.SIGTERM)
    yield Notice()
    signal.signal(signal.SIGTERM, before)


def test_before_the_first_step_it_ends_the_run_at_once(notice):
    with pytest.raises(Preempted, match="before its first step was done: run the same command again"):
        signal.raise_signal(signal.SIGTERM)


def test_later_it_waits_for_the_end_of_the_step(notice):
    assert not notice(1)
    signal.raise_signal(signal.SIGTERM)
    assert notice(2)


AMONG_SEVERAL = """
import signal, sys, time
import jax
from toontalker_jax.training import preemption, processes

when = int(sys.argv[1])
jax.config.update("jax_platforms", "cpu")
notice = preemption.Notice()
processes.join(f"localhost:{processes.free_port()},1,0")
stops = []
for step in range(5001, 5007):
    if step == when:
        signal.raise_signal(signal.SIGTERM)
        time.sleep(3)  # JAX looks for it once a second
    stops.append(notice(step))
print(stops)
"""


@pytest.mark.parametrize(("when", "stop"), [(5001, 5001), (5003, 5003)])
def test_processes_that_resumed_agree_on_a_step_whenever_the_notice_comes(when, stop):
    done = subprocess.run([sys.executable, "-c", AMONG_SEVERAL, str(when)], capture_output=True, text=True)
    assert done.stdout.split("\n")[-2] == str([step == stop for step in range(5001, 5007)]), done.stdout + done.stderr
