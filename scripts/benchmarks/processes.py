"""What it costs that processes keep in step: a training step on CPU devices, divided among processes in three ways.

One process with 4 devices, one with 8, and two with 4 each, which talk by gloo through the machine's own network. The
global batch is the same and all share this machine's cores, so the arithmetic is the same: what a step takes longer is
dividing it (4 → 8 devices) and crossing the border between processes (8 → 2 × 4). Beside it the sum over devices of as
many float32 numbers as the step has gradients, alone. Everything in turn.
"""

import contextlib
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from absl import flags

from scripts.benchmarks import train
from scripts.benchmarks.clock import seconds
from toontalker_jax.training.processes import free_port

SETTINGS = {"1 process x 4 devices": (1, 4), "1 process x 8 devices": (1, 8), "2 processes x 4 devices": (2, 4)}
TASKS = ("step", "sum")

_CHILD = flags.DEFINE_list("child", None, "processes: of this script's own use: port, processes, index, devices.")


def serve(port: int, count: int, index: int, devices: int) -> None:
    """A child: does the task named by each line of stdin, and answers with a line of the seconds it took."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # gloo prints
    jax.config.update("jax_num_cpu_devices", devices)
    if count > 1:
        jax.distributed.initialize(f"localhost:{port}", num_processes=count, process_id=index)
    training = train.prepare(flags.FLAGS.config)
    stepper, layout = train.Stepper(training), training.layout
    size = sum(x.size for x in jax.tree.leaves((stepper.state.generator, stepper.state.discriminator)))
    gradients = jax.jit(lambda: jnp.ones((layout.mesh.size, size)), out_shardings=layout.rows)()
    total = jax.jit(lambda x: x.sum(axis=0), out_shardings=layout.whole)
    tasks = {"step": stepper, "sum": lambda: total(gradients)}
    for function in tasks.values():
        jax.block_until_ready(function())
    print(json.dumps({"gradients": size}), file=answers)
    for line in sys.stdin:
        print(json.dumps(seconds(tasks[line.strip()])), file=answers)


class Group:
    """The children of one setting."""

    def __init__(self, count: int, devices: int):
        port, environment = free_port(), os.environ | {"JAX_PLATFORMS": "cpu"}
        self.children = [
            subprocess.Popen(
                [sys.executable, *sys.argv, f"--child={port},{count},{index},{devices}"],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for index in range(count)
        ]

    def answers(self) -> list[Any]:
        """One of each child. Raises ValueError where one has ended instead."""
        lines = [child.stdout.readline() for child in self.children]
        if not all(lines):
            raise ValueError("a process ended early; its message stands above.")
        return [json.loads(line) for line in lines]

    def seconds(self, task: str) -> float:
        """That the slowest child takes for a task."""
        for child in self.children:
            child.stdin.write(task + "\n")
            child.stdin.flush()
        return max(self.answers())

    def end(self) -> None:
        for child in self.children:
            child.kill()
            child.communicate()


@contextlib.contextmanager
def groups() -> Iterator[tuple[dict[str, Group], int]]:
    """The settings' children, ready, and the number of gradients."""
    with contextlib.ExitStack() as stack:
        ready, gradients = {}, 0
        for name, setting in SETTINGS.items():
            ready[name] = Group(*setting)
            stack.callback(ready[name].end)
            gradients = ready[name].answers()[0]["gradients"]
        yield ready, gradients


def measure() -> dict[str, Any]:
    """The report; a child never returns."""
    if _CHILD.value:
        serve(*map(int, _CHILD.value))
        raise SystemExit(0)
    if flags.FLAGS.config is None:
        raise ValueError("name the recipe: --config=configs/…")
    times = {name: {task: [] for task in TASKS} for name in SETTINGS}
    with groups() as (ready, gradients):
        for _ in range(flags.FLAGS.steps):
            for name, group in ready.items():
                for task in TASKS:
                    times[name][task].append(group.seconds(task))
    table = {name: {f"{task}_s": statistics.median(values[task]) for task in TASKS} for name, values in times.items()}
    first, *_, last = table.values()
    return {
        "batch_size": flags.FLAGS.config.batch_size,
        "rounds": flags.FLAGS.steps,
        "gradient_mib": 4 * gradients / 2**20,
        "settings": table,
        "two_processes_over_one": last["step_s"] / first["step_s"],
    }
