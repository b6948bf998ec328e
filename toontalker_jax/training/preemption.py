"""Notices that the scheduler wants the machine back: SIGTERM, sent to one process or to all."""

import signal

import jax
from jax.experimental import multihost_utils

EXIT_STATUS = 75  # EX_TEMPFAIL of sysexits.h: nothing is wrong, run the same command again


class Preempted(BaseException):
    """The run stopped on notice; `step` is saved, or None: there was nothing new to save yet.

    No Exception: it may come in the midst of anything, as of reading a checkpoint, which is not damaged for that.
    """

    def __init__(self, step: int | None):
        when = "before its first step was done" if step is None else f"after step {step}, which is saved"
        super().__init__(f"stopped by SIGTERM {when}: run the same command again to go on.")


class Notice:
    """`notice(step)`, asked by every process after every step: is this the step to save and stop at?

    It has its own handler of SIGTERM from the time it is made, which raises Preempted until the first step is done.
    Among several processes JAX's handler takes its place: it tells all of them, and they agree on a step that none has
    passed. SIGINT ends the run at the end of the step under way: Python would raise KeyboardInterrupt anywhere, and in
    JAX's garbage collection, where a training often is, nobody would see it.
    """

    def __init__(self):
        self._received = self._asked = self._interrupted = False
        signal.signal(signal.SIGTERM, self._receive)
        signal.signal(signal.SIGINT, self._interrupt)

    def _receive(self, *_: object) -> None:
        self._received = True
        if not self._asked:
            raise Preempted(None)

    def _interrupt(self, *_: object) -> None:
        again, self._interrupted = self._interrupted, True
        if again or not self._asked:
            raise KeyboardInterrupt

    def __call__(self, step: int) -> bool:
        """Raises KeyboardInterrupt after SIGINT."""
        first, self._asked = not self._asked, True
        if self._interrupted:
            raise KeyboardInterrupt
        if not jax.distributed.is_initialized():
            return self._received
        if first and jax.process_count() == 1:
            # Orbax asks JAX for the steps that it has saved: a notice at that moment would be for a step long done.
            # Among several processes one that is further on makes that all but impossible.
            signal.signal(signal.SIGTERM, self._receive)
        # For a notice that came before any process had asked, as in the midst of compiling, they agree on step 1, which
        # a run that goes on from a later one never takes.
        early = first and multihost_utils.reached_preemption_sync_point(1)
        return multihost_utils.reached_preemption_sync_point(step) or early or self._received
