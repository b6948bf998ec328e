"""Starts a training in several processes of this machine.

    python scripts/launch/local.py --processes=2 --devices=4 -- scripts/train.py --config=… --workdir=…

Each process gets `--devices` devices of its own, in order (with JAX_PLATFORMS=cpu, so many virtual ones). One process
is all that a machine needs; several are for many network cards or NUMA nodes, and for trying out what a cluster does.
SIGTERM and Ctrl-C go to every process. When one fails, the others are stopped, and its exit status is
ours.
"""

import os
import signal
import subprocess
import sys
import time

from absl import app, flags

from toontalker_jax.training.processes import free_port

_PROCESSES = flags.DEFINE_integer("processes", 2, "How many.", lower_bound=1)
_DEVICES = flags.DEFINE_integer("devices", 1, "Devices of each.", lower_bound=1)
_GRACE_S = 30.0  # after the first process failed


def environment(index: int) -> dict[str, str]:
    if os.environ.get("JAX_PLATFORMS") == "cpu":
        return os.environ | {"JAX_NUM_CPU_DEVICES": str(_DEVICES.value)}
    first = index * _DEVICES.value
    return os.environ | {"JAX_LOCAL_DEVICE_IDS": ",".join(map(str, range(first, first + _DEVICES.value)))}


def wait(processes: list[subprocess.Popen]) -> int:
    """The first exit status that is not 0; the others end, or are ended, before this returns."""
    while True:
        statuses = [process.poll() for process in processes]
        failed = [status for status in statuses if status]
        if failed or None not in statuses:
            break
        time.sleep(0.1)
    deadline = time.monotonic() + _GRACE_S
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    return failed[0] if failed else 0


def main(arguments: list[str]) -> None:
    if len(arguments) < 2:
        raise SystemExit("error: name the script and its flags behind a --.")
    address = f"localhost:{free_port()}"
    command = [sys.executable, *arguments[1:]]
    processes = [
        subprocess.Popen([*command, f"--distributed={address},{_PROCESSES.value},{i}"], env=environment(i))
        for i in range(_PROCESSES.value)
    ]
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: [process.send_signal(number) for process in processes])
    sys.exit(wait(processes))


if __name__ == "__main__":
    app.run(main)
