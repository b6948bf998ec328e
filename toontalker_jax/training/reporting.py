"""What a run leaves to read: JSON lines, TensorBoard scalars and picture grids. Process 0 alone writes."""

import json
from collections.abc import Mapping

import jax
import numpy as np
from etils import epath
from tensorboardX import SummaryWriter


class Reporter:
    """Writes `metrics.jsonl` and TensorBoard events into a workdir.

    Lines of `metrics.jsonl` after `resume_step` are dropped, so that a resumed run's log equals an uninterrupted one's.
    """

    def __init__(self, workdir: epath.PathLike, resume_step: int):
        self._on = jax.process_index() == 0
        if not self._on:
            return
        workdir = epath.Path(workdir)
        workdir.mkdir(parents=True, exist_ok=True)
        path = workdir / "metrics.jsonl"
        kept = [line for line in path.read_text().splitlines() if line] if path.exists() else []
        kept = [line for line in kept if json.loads(line)["step"] <= resume_step]
        path.write_text("".join(f"{line}\n" for line in kept))
        self._lines = path.open("a")
        self._board = SummaryWriter(str(workdir / "tensorboard"), purge_step=resume_step + 1)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        if self._on:
            self._lines.write(json.dumps({"step": step, **values}) + "\n")
            self._lines.flush()
            for name, value in values.items():
                self._board.add_scalar(name, value, step)

    def pictures(self, step: int, grids: Mapping[str, np.ndarray]) -> None:
        """grids: {name: uint8 [H, W, 3]}."""
        if self._on:
            for name, grid in grids.items():
                self._board.add_image(name, grid, step, dataformats="HWC")

    def close(self) -> None:
        if self._on:
            self._lines.close()
            self._board.close()
