"""Several processes, on one machine or many, that train one network together."""

import contextlib
import os
import random
import socket
import sys
import traceback
from collections.abc import Iterator

import jax

from toontalker_jax.training.preemption import EXIT_STATUS

# After so long without a sign of life a process counts as gone, and all end. JAX's own 100 s are long: gloo, which
# tells within seconds, misses one now and then.
_HEARTBEAT_S = 50


def free_port() -> int:
    """One of this machine's, for the processes on it to meet at.

    Not one that the system would give: it would give it to the next connection of anybody, too, before it is used.
    """
    for port in random.SystemRandom().sample(range(20_000, 32_000), 100):  # Linux gives those from 32768 on
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("localhost", port))
            return port
    raise OSError("of 100 ports between 20000 and 32000 none is free: stop what listens there.")


def join(how: str) -> None:
    """Meet the other processes of the run; before anything else touches a device.

    Args:
      how: "" to stay alone; "auto" where the launcher can be asked (SLURM, Open MPI, Kubernetes, TPU pods); or
        "ADDRESS:PORT,PROCESSES,INDEX", the address being that of process 0.

    Raises:
      ValueError: none of these, or "auto" where nothing tells who the others are.
    """
    if not how:
        return
    if how == "auto":
        try:
            jax.distributed.initialize(heartbeat_timeout_seconds=_HEARTBEAT_S)
        except (ValueError, RuntimeError) as error:
            raise ValueError(
                f"--distributed=auto: {error} Name the processes: --distributed=ADDRESS:PORT,PROCESSES,INDEX."
            ) from None
        return
    address, *numbers = how.split(",")
    if ":" not in address or len(numbers) != 2 or not all(number.isdigit() for number in numbers):
        raise ValueError(f"--distributed={how}: use 'auto' or ADDRESS:PORT,PROCESSES,INDEX, as in 10.0.0.1:8476,2,0.")
    count, index = map(int, numbers)
    if index >= count:
        raise ValueError(f"--distributed={how}: of {count} processes, the indices are 0 to {count - 1}.")
    jax.distributed.initialize(
        address,
        count,
        index,
        cluster_detection_method="deactivate",
        heartbeat_timeout_seconds=_HEARTBEAT_S,
    )


@contextlib.contextmanager
def ending_on_errors() -> Iterator[None]:
    """Where processes have met, an error in the block ends this one at once, with the status that it would have had;
    not so 0 and the status of a notice, with which all end together.

    JAX's own end would wait five minutes for the others, which wait for this one in the midst of a step, and abort.
    Now the launcher, or JAX in the others, sees that it is gone.
    """
    try:
        yield
    except (Exception, SystemExit) as error:
        status = error.code if isinstance(error, SystemExit) else 1
        if not jax.distributed.is_initialized() or status in (None, 0, EXIT_STATUS):
            raise
        if not isinstance(error, SystemExit):
            traceback.print_exception(error)
        elif isinstance(status, str):
            print(status, file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status if isinstance(status, int) else 1)
