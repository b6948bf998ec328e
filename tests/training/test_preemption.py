"""SIGTERM before and after the first step. tests/scripts has whole runs."""

import json
import signal
import subprocess
import sys

import pytest

from toontalker_jax.training.preemption import Notice, Preempted


@pytest.fixture
def notice():
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield Notice()
    for number, handler in before.items():
        signal.signal(number, handler)


def test_before_the_first_step_it_ends_the_run_at_once(notice):
    with pytest.raises(Preempted, match="before its first step was done: run the same command again"):
        signal.raise_signal(signal.SIGTERM)


def test_later_it_waits_for_the_end_of_the_step(notice):
    assert not notice(1)
    signal.raise_signal(signal.SIGTERM)
    assert notice(2)


def test_ctrl_c_ends_the_run_at_once_before_the_first_step_and_then_after_a_step_or_if_pressed_again(notice):
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    notice = Notice()
    assert not notice(1)
    signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        notice(2)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


AMONG_SEVERAL = """
import signal, sys, time
import jax
from jax.experimental import multihost_utils
from toontalker_jax.training import preemption, processes

when, saved = int(sys.argv[1]), int(sys.argv[2])
jax.config.update("jax_platforms", "cpu")
notice = preemption.Notice()
processes.join(f"localhost:{processes.free_port()},1,0")
stops = []
for step in range(5001, 5007):
    if step == when:
        if saved:
            multihost_utils.reached_preemption_sync_point(saved)  # as Orbax does when it has written a step
        signal.raise_signal(signal.SIGTERM)
        time.sleep(3)  # JAX looks for it once a second
    stops.append(notice(step))
print(stops)
"""


@pytest.mark.parametrize(("when", "saved"), [(5001, 0), (5003, 0), (5003, 5000)])
def test_a_run_that_resumed_stops_at_the_step_of_the_notice_whenever_it_comes(when, saved):
    command = [sys.executable, "-c", AMONG_SEVERAL, str(when), str(saved)]
    done = subprocess.run(command, capture_output=True, text=True)
    stops = json.loads(done.stdout.split("\n")[-2].lower())
    assert True in stops and 5001 + stops.index(True) == when, done.stdout + done.stderr
