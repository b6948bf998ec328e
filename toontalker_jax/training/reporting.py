"""What a run leaves to read: its recipe, JSON lines, TensorBoard scalars and pictures. Process 0 alone writes."""

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from absl import logging
from clu import parameter_overview
from etils import epath
from tensorboardX import SummaryWriter

from toontalker_jax.checkpoints.format import in_bucket

_SECONDS_BETWEEN_WRITES = 10.0
_GRIDS_A_FILE = 10  # of TensorBoard's events in a bucket, where all of a file is written anew with each flush


@contextlib.contextmanager
def held(workdir: epath.Path) -> Iterator[None]:
    """Keeps a second run out of a local workdir, until the block or this process ends.

    Raises:
      OSError: another run holds it.
    """
    if jax.process_index() or in_bucket(workdir):
        yield
        return
    workdir.mkdir(parents=True, exist_ok=True)
    folder = os.open(workdir, os.O_RDONLY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OSError(f"{workdir}: another run trains there; stop it first, or choose another workdir.") from None
        except OSError as error:
            logging.warning("%s: that no second run starts there cannot be seen to (%s).", workdir, error)
        yield
    finally:
        os.close(folder)


def describe_run(workdir: epath.Path, recipe: Mapping[str, Any], networks: Mapping[str, Any]) -> None:
    """Writes config.json, the recipe, and parameters.txt: every parameter of the networks by name, those there are."""
    if jax.process_index():
        return
    (workdir / "config.json").write_text(json.dumps(recipe, indent=2) + "\n")
    overviews = (
        f"{name}\n{parameter_overview.get_parameter_overview(parameters, include_stats=False)}\n"
        for name, parameters in networks.items()
        if parameters
    )
    (workdir / "parameters.txt").write_text("\n".join(overviews))


class Reporter:
    """Writes `metrics.jsonl`, `pace.jsonl` and TensorBoard events into a workdir, local or in a bucket.

    Metrics are equal from run to run, the pace is not. Lines after `resume_step` are dropped, so that a resumed run's
    metrics equal an uninterrupted one's.
    """

    def __init__(self, workdir: epath.PathLike, resume_step: int):
        self.workdir = epath.Path(workdir)
        self._on = jax.process_index() == 0
        if not self._on:
            return
        self.workdir.mkdir(parents=True, exist_ok=True)
        self._metrics, self._pace = (_Log(self.workdir / f"{name}.jsonl", resume_step) for name in ("metrics", "pace"))
        self._open_board(1, purge_step=resume_step + 1)

    def scalars(self, step: int, metrics: Mapping[str, float], pace: Mapping[str, float]) -> None:
        if self._on:
            self._metrics.add(step, metrics)
            self._pace.add(step, pace)
            for name, value in {**metrics, **pace}.items():
                self._check_board()
                self._board.add_scalar(name, value, step)

    def pictures(self, step: int, grids: Mapping[str, np.ndarray]) -> None:
        """grids: {name: uint8 [H, W, 3]}."""
        if self._on:
            if in_bucket(self.workdir) and self._grids >= _GRIDS_A_FILE:
                self._close_board()
                self._open_board(self._file + 1)
            self._grids += len(grids)
            for name, grid in grids.items():
                self._check_board()
                self._board.add_image(name, grid, step, dataformats="HWC")

    def flush(self) -> None:
        """Every line so far is in its file when this returns. Raises OSError if one cannot be written."""
        if self._on:
            self._metrics.flush()
            self._pace.flush()

    def close(self) -> None:
        """Writes what it can. A failure is a warning: the lines that are lost follow the newest checkpoint."""
        if not self._on:
            return
        for write in (self.flush, self._close_board):
            try:
                write()
            except OSError as error:
                logging.warning("the last of metrics.jsonl, pace.jsonl or tensorboard/ could not be written: %s", error)

    def _open_board(self, number: int, **options: int) -> None:
        self._file, self._grids = number, 0
        # The suffix keeps files of one second apart.
        self._board = SummaryWriter(str(self.workdir / "tensorboard"), filename_suffix=f".{number}", **options)

    def _close_board(self) -> None:
        writer = self._board.file_writer.event_writer
        try:
            self._board.close()
        except Exception as error:  # Google's client raises its own.
            raise OSError(f"TensorBoard's events could not be written to {self.workdir}: {error}") from error
        finally:
            # Or it tries again when Python ends, up to when it keeps all that it has written to a bucket.
            writer._closed, writer._ev_writer = True, None

    def _check_board(self) -> None:
        """Raises OSError if the thread that writes events has died, of a full disk for one: its queue would block."""
        if not self._board.file_writer.event_writer._worker.is_alive():
            raise OSError(f"TensorBoard's events could not be written to {self.workdir}: is the disk full?")


class _Log:
    """JSON lines. Objects in a bucket cannot be appended to: the file is kept in memory and written whole under another
    name, which then replaces it. So a process that is killed leaves a whole file, without the lines since `flush`."""

    def __init__(self, path: epath.Path, resume_step: int):
        self._path = path
        lines = path.read_text().splitlines() if path.exists() else []
        if lines and not _is_whole(lines[-1]):
            lines.pop()  # A version that appended was killed while it did.
        self._lines = [line for line in lines if json.loads(line)["step"] <= resume_step]
        self._unwritten, self._written_at = True, 0.0
        self.flush()

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Nothing is added where there are no values."""
        if values:
            self._lines.append(json.dumps({"step": step, **values}))
            self._unwritten = True
            if time.monotonic() - self._written_at >= _SECONDS_BETWEEN_WRITES:
                self.flush()

    def flush(self) -> None:
        if self._unwritten:
            partial = self._path.parent / (self._path.name + ".partial")
            partial.write_text("".join(f"{line}\n" for line in self._lines))
            partial.replace(self._path)
            self._unwritten, self._written_at = False, time.monotonic()


def _is_whole(line: str) -> bool:
    try:
        json.loads(line)
    except json.JSONDecodeError:
        return False
    return True
