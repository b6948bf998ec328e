"""Orbax on disk: inference checkpoints and training checkpoints. Paths may be local or in a bucket.

An inference checkpoint is a folder:
  model.json  what to build: format, ModelConfig, domains, versions of the packages that wrote it
  params/     the parameters, as nested dicts (Orbax)

A training workdir keeps its steps in `checkpoints/<step>/`, each with the state, the same model.json contents and the
caller's metadata. `load_model` reads either.
"""

import dataclasses
import importlib.metadata
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp
from etils import epath
from flax import nnx
from orbax.checkpoint import checkpoint_managers

from toontalker_jax.models.config import ModelConfig
from toontalker_jax.models.toontalker import ToonTalker

FORMAT = 1
_DATA_FILE_BYTES = 64 << 20  # Orbax holds a data file in memory until it is this large; by itself it would hold 2 GB
GENERATOR, GENERATOR_EMA = "generator", "generator_ema"  # top-level keys of a training state that `load_model` reads


def describe(config: ModelConfig, domains: Sequence[str]) -> dict[str, Any]:
    """The contents of model.json."""
    return {
        "format": FORMAT,
        "config": dataclasses.asdict(config),
        "domains": list(domains),
        "versions": package_versions(),
    }


def package_versions() -> dict[str, str]:
    """Of what computes and stores: for model.json and reports."""
    return {name: importlib.metadata.version(name) for name in ("jax", "flax", "orbax-checkpoint")}


def check_free(path: epath.PathLike) -> epath.Path:
    """The absolute path. Raises FileExistsError if something is there."""
    path = _absolute(path)
    if path.exists():
        raise FileExistsError(f"{path} exists already: choose another path, or remove it first.")
    return path


def save_model(
    path: epath.PathLike, model: ToonTalker, *, overwrite: bool = False, notes: Mapping[str, Any] | None = None
) -> None:
    """Writes an inference checkpoint. Every process calls this; it appears under its name only when complete.

    Args:
      notes: further JSON files of the folder, {name: contents}.

    Raises:
      FileExistsError: `path` exists and `overwrite` is False.
      OSError: writing failed, of a full disk for one; in one line, and nothing of it is left.
    """
    path = _absolute(path) if overwrite else check_free(path)
    partial = path.parent / (path.name + ".partial")
    try:
        _write_model(partial, model, notes or {})
        if jax.process_index() == 0:
            older = path.parent / (path.name + ".older")
            if path.exists():
                path.rename(older)
            partial.rename(path)
            older.rmtree(missing_ok=True)
    except BaseException as error:
        if jax.process_index() == 0:
            partial.rmtree(missing_ok=True)
        if isinstance(error, (OSError, ValueError)):  # TensorStore's are ValueErrors, with a page of its settings
            raise OSError(f"{path} could not be written, nothing of it is kept: {_shortened(error)}") from error
        raise
    ocp.multihost.sync_global_processes("save_model")


def _write_model(folder: epath.Path, model: ToonTalker, notes: Mapping[str, Any]) -> None:
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    save = ocp.args.PyTreeSave(params, ocdbt_target_data_file_size=_DATA_FILE_BYTES)
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        checkpointer.save(folder / "params", save, force=True)  # force: a killed run may have left one
    if jax.process_index() == 0:
        files = {"model.json": describe(model.config, tuple(model.domains))} | dict(notes)
        for name, contents in files.items():
            (folder / name).write_text(json.dumps(contents, indent=2) + "\n")


def _shortened(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 300 else text[:300] + " …"


def load_model(path: epath.PathLike, **how: Any) -> ToonTalker:
    """The model of an inference checkpoint, or of the newest step of a training workdir (its EMA if it keeps one).

    Parameters lie on the first local device. `how`: dtype, dropout or remat; without, or None: the configuration's own.

    Raises:
      FileNotFoundError: `path` is neither.
      ValueError: what is stored does not fit this version of the network.
    """
    path = _absolute(path)
    if (path / "model.json").exists():
        description = json.loads((path / "model.json").read_text())
        return _restore_model(path, description, path / "params", None, how)
    if (path / "checkpoints").exists():
        with TrainCheckpoints(path, read_only=True) as checkpoints:
            step, description = checkpoints.describe_step()
            tree = checkpoints.tree(step)
        key = GENERATOR_EMA if tree.get(GENERATOR_EMA) else GENERATOR
        return _restore_model(path, description["model"], path / "checkpoints" / str(step) / "state", key, how)
    raise FileNotFoundError(f"{path} holds neither model.json (a checkpoint) nor checkpoints/ (a training workdir).")


class Restored(NamedTuple):
    """A training state read back: `metadata` is what was given to `save`."""

    step: int
    state: Any
    metadata: dict[str, Any]


class TrainCheckpoints:
    """The training checkpoints of a workdir: saved in the background, the newest ones kept.

    The state is a mapping whose entry 'generator' (and 'generator_ema', if any) is the nested dict of the ToonTalker
    parameters, so that `load_model(workdir)` can use it.
    """

    def __init__(
        self,
        workdir: epath.PathLike,
        *,
        keep_newest: int = 2,
        keep_every: int | None = None,
        read_only: bool = False,
    ):
        """keep_newest: steps kept; keep_every: in addition, keep every step that is a multiple of this for good."""
        policies = [checkpoint_managers.LatestN(keep_newest)]
        if keep_every:
            policies.append(checkpoint_managers.EveryNSteps(keep_every))
        self._directory = _absolute(workdir) / "checkpoints"
        self._manager = ocp.CheckpointManager(
            self._directory,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=checkpoint_managers.AnyPreservationPolicy(policies), read_only=read_only
            ),
            item_names=("state", "model"),
        )

    def latest_step(self) -> int | None:
        """The newest complete step, or None."""
        return self._manager.latest_step()

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
        """
        if GENERATOR not in state:
            raise KeyError(f"the training state has no {GENERATOR!r} (its keys: {sorted(state)}).")
        description = {"model": describe(config, domains), "metadata": dict(metadata or {})}
        items = ocp.args.Composite(state=ocp.args.StandardSave(state), model=ocp.args.JsonSave(description))
        newest = self.latest_step()
        if newest is not None and step <= newest:
            raise ValueError(f"{self._directory} has step {newest} already: step {step} cannot follow it.")
        self._manager.save(step, args=items)

    def restore(self, abstract_state: Mapping[str, Any], step: int | None = None) -> Restored:
        """Reads a step (None: the newest) into the shapes, dtypes and shardings of `abstract_state`.

        Args:
          abstract_state: jax.ShapeDtypeStruct leaves with a sharding, or arrays; same structure as what was saved.

        Raises:
          FileNotFoundError: there is no such step.
          ValueError: names or shapes differ from what was saved.
        """
        step, description = self.describe_step(step)
        _check_fits(f"step {step} of {self._directory}", self.tree(step), abstract_state)
        items = ocp.args.Composite(state=ocp.args.StandardRestore(abstract_state))
        return Restored(step, self._manager.restore(step, args=items)["state"], description["metadata"])

    def describe_step(self, step: int | None = None) -> tuple[int, dict[str, Any]]:
        """A step's number (None: the newest) and its {"model": contents of model.json, "metadata": the caller's}."""
        steps = self._manager.all_steps()
        if not steps or (step is not None and step not in steps):
            raise FileNotFoundError(
                f"{self._directory} has no {'complete step' if step is None else f'step {step}'};"
                f" it has {sorted(steps)}."
            )
        step = max(steps) if step is None else step
        restored = self._manager.restore(step, args=ocp.args.Composite(model=ocp.args.JsonRestore()))
        return step, restored["model"]

    def tree(self, step: int) -> Mapping[str, Any]:
        """The stored state's nested names; leaves have `.shape` and `.dtype`."""
        return _stored_tree(self._directory / str(step) / "state")

    def wait(self) -> None:
        """Returns when everything started is written."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        self._manager.close()

    def __enter__(self) -> "TrainCheckpoints":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _absolute(path: epath.PathLike) -> epath.Path:
    return epath.Path(path).expanduser().resolve()  # Orbax refuses relative paths


def _stored_tree(directory: epath.Path) -> Mapping[str, Any]:
    with ocp.PyTreeCheckpointer() as checkpointer:
        return checkpointer.metadata(directory).item_metadata.tree


def _restore_model(
    path: epath.Path, description: Mapping[str, Any], params: epath.Path, key: str | None, how: Mapping[str, Any]
) -> ToonTalker:
    """Builds the described model and fills it from the Orbax folder `params`, from its top-level `key` if given."""
    config, domains = _read_description(path, description)
    config = dataclasses.replace(config, **{name: value for name, value in how.items() if value is not None})
    # Nothing is computed for the parameters: only their shapes are needed.
    graph, abstract = nnx.split(nnx.eval_shape(lambda: ToonTalker(config, domains, rngs=nnx.Rngs(0))))
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    wanted = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), nnx.to_pure_dict(abstract)
    )
    stored = _stored_tree(params)
    _check_fits(str(path), stored if key is None else stored[key], wanted)
    wanted = wanted if key is None else {key: wanted}
    with ocp.PyTreeCheckpointer() as checkpointer:
        restore_args = ocp.checkpoint_utils.construct_restore_args(wanted)
        restored = checkpointer.restore(
            params, args=ocp.args.PyTreeRestore(item=wanted, restore_args=restore_args, partial_restore=True)
        )
    nnx.replace_by_pure_dict(abstract, restored if key is None else restored[key])
    return nnx.merge(graph, abstract)


def _read_description(path: epath.Path, description: Mapping[str, Any]) -> tuple[ModelConfig, tuple[str, ...]]:
    if description["format"] != FORMAT:
        raise ValueError(f"{path} has checkpoint format {description['format']}; this version reads format {FORMAT}.")
    unknown = set(description["config"]) - {field.name for field in dataclasses.fields(ModelConfig)}
    if unknown:
        raise ValueError(
            f"{path} names settings that ModelConfig does not know: {', '.join(sorted(unknown))}."
            f" Load it with the version of toontalker-jax that wrote it."
        )
    return ModelConfig(**description["config"]), tuple(description["domains"])


def _check_fits(where: str, stored: Any, wanted: Any) -> None:
    """Raises one ValueError unless both trees have the same names and shapes (Orbax's own message fills pages)."""
    stored_shapes, wanted_shapes = (
        {name: tuple(leaf.shape) for name, leaf in ocp.tree.to_flat_dict(tree, sep="/").items()}
        for tree in (stored, wanted)
    )
    problems = [f"{name} is missing" for name in sorted(wanted_shapes.keys() - stored_shapes.keys())]
    problems += [f"{name} is not part of the network" for name in sorted(stored_shapes.keys() - wanted_shapes.keys())]
    problems += [
        f"{name} is {stored_shapes[name]}, wanted {wanted_shapes[name]}"
        for name in sorted(stored_shapes.keys() & wanted_shapes.keys())
        if stored_shapes[name] != wanted_shapes[name]
    ]
    if problems:
        more = f", and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise ValueError(f"{where} does not fit this configuration: {'; '.join(problems[:3])}{more}.")
