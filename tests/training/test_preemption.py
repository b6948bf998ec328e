"""SIGTERM before and after the first step. tests/scripts has whole runs."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from toontalker_jax.training.preemption import EXIT_STATUS, Notice, Preempted


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


ONE_OF_TWO = r"""
import os, sys, time
from toontalker_jax.training import preemption, processes

with processes.ending_on_errors():
    notice = preemption.Notice()
    processes.join(sys.argv[1].removeprefix("--distributed="))
    for step in range(1, 500):
        os.write(1, b"at %d\n" % step)  # at once: two processes write
        time.sleep(0.1)
        if notice(step):
            os.write(1, b"stopped %d\n" % step)
            sys.exit(preemption.EXIT_STATUS)
"""


def test_two_processes_agree_on_the_step_to_stop_at_and_end_with_the_status_of_a_notice(tmp_path):
    (tmp_path / "steps.py").write_text(ONE_OF_TWO)
    launcher = ["scripts/launch/local.py", "--processes=2", "--devices=1", "--", str(tmp_path / "steps.py")]
    root = Path(__file__).resolve().parents[2]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    environment = os.environ | {"PYTHONPATH": str(root)}
    with subprocess.Popen([sys.executable, *launcher], cwd=root, env=environment, **pipes) as running:
        output = ""
        for line in running.stdout:
            output += line
            if line == "at 3\n" and output.count(line) == 2:  # both have asked before
                running.terminate()  # the launcher, which passes it on
    assert running.returncode == EXIT_STATUS, output
    first, second = re.findall(r"stopped (\d+)", output)
    assert first == second and int(first) >= 3, output
