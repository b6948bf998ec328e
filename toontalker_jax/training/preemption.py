"""Notices that the scheduler wants the machine back: SIGTERM, sent to one process or to all."""

import signal

import jax
from jax.experimental import multihost_utils

EXIT_STATUS = 75  # EX_TEMPFAIL of sysexits.h: nothing is wrong, run the same command again


class Preempted(Exception):
    """The run stopped on notice; `step` is saved."""

    def __init__(self, step: int):
        super().__init__(f"stopped by SIGTERM after step {step}, which is saved: run the same command again to go on.")


class Notice:
    """`notice(step)`, asked by every process after every step: is this the step to save and stop at?

    Where `jax.distributed` runs, its own SIGTERM handler tells all processes, and they agree on a step that none has
    passed. A single process has its own handler from the time this is made; SIGINT stays what it was.
    """

    def __init__(self):
        self._alone = not jax.distributed.is_initialized()
        self._received = False
        if self._alone:
            signal.signal(signal.SIGTERM, self._receive)

    def _receive(self, *_: object) -> None:
        self._received = True

    def __call__(self, step: int) -> bool:
        return self._received if self._alone else multihost_utils.reached_preemption_sync_point(step)
