"""How fast a run goes, what it waits for, and a profile of some of its steps."""

import contextlib
import resource
import sys
import time
from collections.abc import Iterator, Sequence

import jax
from etils import epath

from toontalker_jax.training.chips import CHIPS

_SKIPPED = 10  # steps after a start that are not traced: compiling and filling queues

# bfloat16 FLOP/s without sparsity, from the makers' data sheets, by how the names of JAX's devices begin.
_PEAKS = {
    "TPU v4": CHIPS["v4"].flops,
    "TPU v5 lite": CHIPS["v5e"].flops,
    "TPU v5": CHIPS["v5p"].flops,
    "TPU v6 lite": CHIPS["v6e"].flops,
    "NVIDIA A100": 312e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H200": 989e12,
}


def peak_flops(devices: Sequence[jax.Device]) -> float | None:
    """What equal devices can do together in bfloat16, FLOP/s; None if that is not known."""
    peak = next((peak for name, peak in _PEAKS.items() if devices[0].device_kind.startswith(name)), None)
    return peak and peak * len(devices)


class Pace:
    """The clock between two reports.

    Args:
      rows: pairs (stage 1) or tuples of both directions (stage 2) a step.
      steps: of the whole run.
      flops: of a step, on all devices; None: unknown.
      peak: FLOP/s of all devices together; None: unknown.
    """

    def __init__(self, rows: int, steps: int, flops: float | None = None, peak: float | None = None):
        self._rows, self._steps, self._flops, self._peak = rows, steps, flops, peak
        self._since: tuple[int, float] | None = None  # the last report's step and time
        self._waited = 0.0

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Around what the devices may have to wait for: the next batch."""
        start = time.perf_counter()
        yield
        self._waited += time.perf_counter() - start

    def lap(self, step: int) -> dict[str, float]:
        """Since the last lap: pace/rows_per_s, step_s, data_wait (share of the time), hours_left, memory_gib and, if
        the peak is known, utilisation. The first lap, in which programs are compiled, tells nothing."""
        now = time.perf_counter()
        since, waited = self._since, self._waited
        self._since, self._waited = (step, now), 0.0
        if since is None or step == since[0]:
            return {}
        seconds = (now - since[1]) / (step - since[0])
        values = {
            "rows_per_s": self._rows / seconds,
            "step_s": seconds,
            "data_wait": waited / (now - since[1]),
            "hours_left": seconds * (self._steps - step) / 3600,
            "memory_gib": memory_gib(),
        }
        if self._flops and self._peak:
            values["utilisation"] = self._flops / seconds / self._peak
        return {f"pace/{name}": value for name, value in values.items()}


def memory_gib() -> float:
    """The most that was in use so far: of the first device's memory where it tells, else of this process's."""
    statistics = jax.local_devices()[0].memory_stats()
    if statistics:
        return statistics["peak_bytes_in_use"] / 2**30
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)


class Tracer:
    """Writes a `jax.profiler` trace of some steps into the workdir, from the 10th after the start on."""

    def __init__(self, workdir: epath.PathLike, first: int, steps: int):
        """`first`: steps done at the start; `steps`: to be traced, 0 for none."""
        self._folder = str(epath.Path(workdir) / "profile")
        self._running = False
        self._start, self._end = first + _SKIPPED, first + _SKIPPED + steps

    def __call__(self, step: int) -> None:
        """After the end of step number `step`, while the next one may be under way already."""
        if self._start == self._end or jax.process_index() > 0:
            return
        if step == self._start:
            jax.profiler.start_trace(self._folder)
            self._running = True
        elif step == self._end:
            self.close()

    def close(self) -> None:
        """Ends a trace that the run did not live to end."""
        if self._running:
            jax.profiler.stop_trace()
            self._running = False
