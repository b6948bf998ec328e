"""Training checkpoints: saved in the background, kept by policy, and read back from the newest sound one."""

import functools
import shutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import jax
import orbax.checkpoint as ocp
from absl import logging
from etils import epath
from orbax.checkpoint import checkpoint_managers

from toontalker_jax.checkpoints.agreement import attempt, check_same
from toontalker_jax.checkpoints.digests import check_digests, digests
from toontalker_jax.checkpoints.format import (
    GENERATOR,
    absolute,
    check_fits,
    describe,
    in_bucket,
    one_line,
    put_aside,
    stored_tree,
)
from toontalker_jax.models.config import ModelConfig

T = TypeVar("T")
# How long the processes wait for each other's part of a step: if one cannot write, the others learn it by this alone.
_WRITE_S = 600
_SLICE_BYTES = 16 << 20  # Copies of smaller arrays are not written in slices, for each of which a program is compiled


class Restored(NamedTuple):
    """A training state read back: `metadata` as given to `save`; `digests` of the arrays as they were then."""

    step: int
    state: Any
    metadata: dict[str, Any]
    digests: dict[str, int]


class NewestSound(NamedTuple, Generic[T]):
    """What was read of the newest sound step, and the newer steps that are damaged: {step: why}."""

    found: T
    damaged: dict[int, str]


def _any(step: int, metadata: Mapping[str, Any]) -> None:
    del step, metadata


def check_kept(keep_newest: int, keep_every: int) -> None:
    """Raises ValueError for a policy of `TrainCheckpoints` that Orbax would take, to keep nothing."""
    for name, value, least in (("keep_newest", keep_newest, 1), ("keep_every", keep_every, 0)):
        if value < least:
            raise ValueError(f"{name} = {value}: must be at least {least}.")


class TrainCheckpoints:
    """The training checkpoints of a workdir.

    The state is a mapping whose entry 'generator' (and 'generator_ema', if any) is the nested dict of the ToonTalker
    parameters, so that `load_model(workdir)` can use it.

    A step appears under its name only when all of it is written. What may happen to it afterwards (a file lost or cut
    short, flipped bits) is found when it is read.
    """

    def __init__(
        self,
        workdir: epath.PathLike,
        *,
        keep_newest: int = 2,
        keep_every: int = 0,
        read_only: bool = False,
    ):
        """keep_newest: steps kept; keep_every: each multiple of this, too, for good. Raises as `check_kept`."""
        check_kept(keep_newest, keep_every)
        policies = [checkpoint_managers.LatestN(keep_newest)]
        if keep_every:
            policies.append(checkpoint_managers.EveryNSteps(keep_every))
        whole = ocp.type_handlers.ArrayHandler(min_slice_bytes_for_replica_parallel=_SLICE_BYTES)
        ocp.type_handlers.register_type_handler(jax.Array, whole, override=True)
        self._keep_newest = keep_newest
        self._workdir = absolute(workdir)
        self._directory = self._workdir / "checkpoints"
        self._saving: int | None = None
        self._failed = False
        self._manager = ocp.CheckpointManager(
            self._directory,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=checkpoint_managers.AnyPreservationPolicy(policies),
                read_only=read_only,
                cleanup_tmp_directories=not read_only,  # what a killed run left half-written
                async_options=ocp.AsyncOptions(timeout_secs=_WRITE_S),
            ),
            item_names=("state", "model"),
        )

    def latest_step(self) -> int | None:
        """The newest complete step, or None."""
        return self._manager.latest_step()

    def check_space(self, state: Any) -> None:
        """Warns if the disk has no room for the newest steps and one under way; a bucket is taken to have it.

        Raises:
          OSError: not even one `state` fits.
        """
        if in_bucket(self._directory):
            return
        one = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
        wanted = one * max(self._keep_newest + 1 - len(self._manager.all_steps()), 1)
        free = shutil.disk_usage(self._directory).free
        told = f"{self._directory} has {free / 1e9:.3g} GB free, a checkpoint takes {one / 1e9:.3g} GB"
        if free < one:
            raise OSError(f"{told}: free space there, or choose another workdir.")
        if free < wanted:
            logging.warning("%s, keep_newest = %d of them and one more are needed.", told, self._keep_newest)

    def save(
        self,
        step: int,
        state: Mapping[str, Any],
        config: ModelConfig,
        domains: Sequence[str],
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Starts to write `state`; returns when the arrays are copied and may be donated.

        `metadata` is anything JSON can hold.

        Raises:
          KeyError: the state has no 'generator'.
          ValueError: there is a checkpoint of this step or a later one.
          OSError: this step, or the one before, could not be written.
        """
        if GENERATOR not in state:
            raise KeyError(f"the training state has no {GENERATOR!r} (its keys: {sorted(state)}).")
        description = {"model": describe(config, domains), "metadata": dict(metadata or {})}
        description["digests"] = digests(state)
        items = ocp.args.Composite(state=ocp.args.StandardSave(state), model=ocp.args.JsonSave(description))
        self.wait()
        newest = self.latest_step()
        if newest is not None and step <= newest:
            raise ValueError(f"{self._directory} has step {newest} already: step {step} cannot follow it.")
        self._saving = step
        self._or_failed(lambda: self._manager.save(step, args=items))

    def check_saved(self) -> None:
        """Raises what `wait` would, but does not wait for a save under way."""
        if self._saving is not None and not self._manager.is_saving_in_progress():
            self.wait()

    def wait(self) -> None:
        """Returns when everything started is written. Raises OSError if that failed."""
        self._or_failed(self._manager.wait_until_finished)
        self._saving = None

    def close(self) -> None:
        """Waits, too. Raises OSError if a step could not be written, unless that has been raised before."""
        told = self._failed
        try:
            self._or_failed(self._manager.close)
        except OSError:  # of a bucket Orbax raises the same once more
            if not told:
                raise

    def _or_failed(self, act: Callable[[], Any]) -> None:
        try:
            act()
        # TensorStore's are ValueErrors, with a page of its settings; JAX's come from waiting in vain for a process.
        except (OSError, ValueError, jax.errors.JaxRuntimeError) as error:
            step, self._saving, self._failed = self._saving, None, True
            if jax.process_index() == 0:
                for partial in self._directory.glob(f"{step}.*"):  # Room for what else is to be written.
                    partial.rmtree()
            older = [int(path.name) for path in self._directory.iterdir() if path.name.isdigit()]
            older = [other for other in older if other != step]  # in a bucket the failed one has its folder, too
            remains = f"the newest step there is {max(older)}" if older else "there is no older step"
            raise OSError(
                f"step {step} could not be written to {self._directory}, {remains}; "
                f"free space and run the same command again to go on from it: {one_line(error)}"
            ) from error

    def agreed_steps(self) -> list[int]:
        """The complete steps, oldest first. Raises OSError if the processes see different ones."""
        self.wait()
        steps = sorted(self._manager.all_steps())
        check_same(self._directory, steps)
        return steps

    def newest_sound(self, read: Callable[[int], T], check: Callable[[T], None] | None = None) -> NewestSound[T]:
        """`read(step)` of the newest step for which it works, in every process; each one skipped is a warning.

        Args:
          check: called in every process with what was read, once all have read it; raises if it is damaged.

        Raises:
          FileNotFoundError: there is no complete step.
          Mismatch: `read` raised it, which ends the search: the step is sound.
          OSError: all steps are damaged, and the message lists them; or the processes see different steps.
        """
        self.agreed_steps()
        damaged: dict[int, str] = {}
        for step in self._steps():
            found, why = attempt(functools.partial(read, step))
            if check and not why:
                why = attempt(functools.partial(check, found))[1]
            if not why:
                return NewestSound(found, damaged)
            damaged[step] = why
            logging.warning("%s: step %d is damaged and skipped: %s", self._directory, step, why)
        listed = "; ".join(f"{step}: {why}" for step, why in damaged.items())
        raise OSError(f"{self._directory} has no sound step, nothing of it was touched. {listed}")

    def restore_newest(
        self, abstract_state: Mapping[str, Any], check: Callable[[int, Mapping[str, Any]], None] = _any
    ) -> Restored:
        """The newest sound step. Damaged newer ones are moved to `damaged/<step>` of the workdir.

        Args:
          abstract_state: as of `restore`.
          check: called with a step and its metadata; raises Mismatch to forbid that this step is gone on from.

        Raises: as `newest_sound` and `restore`.
        """
        restored, damaged = self.newest_sound(lambda step: self._read(abstract_state, step, check), self._check_bits)
        if damaged:
            self._set_aside(damaged)
        return restored

    def restore(self, abstract_state: Mapping[str, Any], step: int | None = None) -> Restored:
        """Reads a step (None: the newest) into the shapes, dtypes and shardings of `abstract_state`.

        Args:
          abstract_state: jax.ShapeDtypeStruct leaves with a sharding, or arrays; same structure as what was saved.

        Raises:
          FileNotFoundError: there is no such step.
          Mismatch: names or shapes differ from what was saved.
          OSError: bits differ.
        """
        restored = self._read(abstract_state, step, _any)
        self._check_bits(restored)
        return restored

    def _read(
        self, abstract_state: Mapping[str, Any], step: int | None, check: Callable[[int, Mapping[str, Any]], None]
    ) -> Restored:
        step, description = self.describe_step(step)
        check(step, description["metadata"])
        check_fits(f"step {step} of {self._directory}", self.tree(step), abstract_state)
        # Not by the manager: its barriers would leave the other processes waiting when one cannot read its part.
        state = ocp.StandardCheckpointHandler().restore(
            self.state_folder(step), args=ocp.args.StandardRestore(abstract_state)
        )
        return Restored(step, state, description["metadata"], description.get("digests", {}))  # Once there were none.

    def _check_bits(self, restored: Restored) -> None:
        # Nothing is read here: a process that failed to would leave the others waiting.
        check_digests(f"step {restored.step} of {self._directory}", restored.state, restored.digests)

    def describe_step(self, step: int | None = None) -> tuple[int, dict[str, Any]]:
        """A step's number (None: the newest) and its {"model": contents of model.json, "metadata", "digests"}."""
        steps = self._steps()
        if step is not None and step not in steps:
            raise FileNotFoundError(f"{self._directory} has no step {step}; it has {sorted(steps)}.")
        step = steps[0] if step is None else step
        return step, ocp.JsonCheckpointHandler().restore(self._directory / str(step) / "model")

    def tree(self, step: int) -> Mapping[str, Any]:
        """The stored state's nested names; leaves have `.shape` and `.dtype`."""
        return stored_tree(self.state_folder(step))

    def state_folder(self, step: int) -> epath.Path:
        """Where Orbax keeps the state of a step."""
        return self._directory / str(step) / "state"

    def _steps(self) -> list[int]:
        """Complete steps, the newest first. Raises FileNotFoundError if there are none."""
        self.wait()
        steps = sorted(self._manager.all_steps(), reverse=True)
        if not steps:
            raise FileNotFoundError(f"{self._directory} has no complete step; it has [].")
        return steps

    def _set_aside(self, steps: Sequence[int]) -> None:
        """Moves steps out of the way, so that they can be saved again."""
        if jax.process_index() == 0:
            for step in steps:
                moved = put_aside(self._directory / str(step), self._workdir / "damaged")
                logging.warning("%s: step %d now lies in %s.", self._directory, step, moved)
        ocp.multihost.sync_global_processes("set_aside")
        self._manager.reload()

    def __enter__(self) -> "TrainCheckpoints":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def has_steps(workdir: epath.PathLike) -> bool:
    """Whether a run in `workdir` would go on from a checkpoint, damaged or not.

    When it returns, every process has looked: none makes the folder before. Raises OSError if they see it differently.
    """
    folder = absolute(workdir) / "checkpoints"
    there = folder.exists()
    check_same(folder, "a folder" if there else "none")
    if not there:
        return False
    with TrainCheckpoints(workdir, read_only=True) as saved:
        return bool(saved.agreed_steps())
