"""What is said of a wrong way to join other processes, and that none waits for one that failed."""

import random
import socket
import subprocess
import sys

import pytest

from toontalker_jax.training import processes


@pytest.mark.parametrize("how", ["somewhere", "localhost,2,0", "localhost:1,2", "localhost:1,2,x", "localhost:1,2,2"])
def test_a_wrong_description_of_the_others_is_one_clear_error(how):
    with pytest.raises(ValueError, match=f"--distributed={how}: "):
        processes.join(how)


def test_alone_where_nothing_is_said():
    processes.join("")


def test_a_port_that_is_taken_is_not_given(monkeypatch):
    with socket.socket() as other:
        other.bind(("localhost", 0))
        taken, free = other.getsockname()[1], processes.free_port()
        monkeypatch.setattr(random.SystemRandom, "sample", lambda self, *_: [taken, free])
        assert processes.free_port() == free and 20_000 <= free < 32_000
        monkeypatch.setattr(random.SystemRandom, "sample", lambda self, *_: [taken])
        with pytest.raises(OSError, match="none is free"):
            processes.free_port()


FAILS = """
import sys
import jax
from jax.experimental import multihost_utils
from toontalker_jax.training import processes

jax.config.update("jax_platforms", "cpu")
with processes.ending_on_errors():
    processes.join(sys.argv[1])
    multihost_utils.sync_global_devices("start")
    if str(jax.process_index()) == sys.argv[2]:
        raise SystemExit("error: no clips here") if sys.argv[3] == "told" else RuntimeError("surprise")
    multihost_utils.sync_global_devices("the other never comes")
"""


@pytest.mark.parametrize(("fails", "how", "says"), [(1, "told", "error: no clips"), (0, "", "RuntimeError: surprise")])
def test_processes_do_not_outlive_one_that_fails(fails, how, says, tmp_path):
    address = f"localhost:{processes.free_port()}"
    running = []
    for index in (0, 1):
        command = [sys.executable, "-c", FAILS, f"{address},2,{index}", str(fails), how]
        with open(tmp_path / str(index), "w") as log:
            running.append(subprocess.Popen(command, stdout=log, stderr=log))
    try:
        for process in running:
            process.wait(100)  # JAX waits for five minutes
    finally:
        for process in running:
            process.kill()
            process.wait()
    assert running[fails].returncode == 1 and running[1 - fails].returncode
    assert says in (tmp_path / str(fails)).read_text().splitlines()[-1]
