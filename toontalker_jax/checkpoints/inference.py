"""Inference checkpoints: write one, and load a model from one or from a training workdir."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp
from etils import epath
from flax import nnx

from toontalker_jax.checkpoints.digests import check_digests, digests
from toontalker_jax.checkpoints.format import (
    DISCRIMINATOR,
    FORMAT,
    GENERATOR,
    GENERATOR_EMA,
    Mismatch,
    absolute,
    check_fits,
    describe,
    one_line,
    stored_tree,
)
from toontalker_jax.checkpoints.training import TrainCheckpoints
from toontalker_jax.models.config import ModelConfig
from toontalker_jax.models.discriminator import Discriminator
from toontalker_jax.models.toontalker import ToonTalker, abstract_network

_DIGESTS = "digests.json"
_DATA_FILE_BYTES = 64 << 20  # Orbax holds a data file in memory until it is this large; by itself it would hold 2 GB


def check_free(path: epath.PathLike) -> epath.Path:
    """The absolute path. Raises FileExistsError if something is there."""
    path = absolute(path)
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
    path = absolute(path) if overwrite else check_free(path)
    partial = path.parent / (path.name + ".partial")
    try:
        if jax.process_index() == 0:
            partial.rmtree(missing_ok=True)  # A killed run may have left one.
        ocp.multihost.sync_global_processes("save_model:start")
        _write_model(partial, model, notes or {})
        if jax.process_index() == 0:
            older = path.parent / (path.name + ".older")
            if path.exists():
                older.rmtree(missing_ok=True)
                path.rename(older)
            partial.rename(path)
            older.rmtree(missing_ok=True)
    except BaseException as error:
        if jax.process_index() == 0:
            partial.rmtree(missing_ok=True)
        if isinstance(error, (OSError, ValueError)):  # TensorStore's are ValueErrors, with a page of its settings
            raise OSError(f"{path} could not be written, nothing of it is kept: {one_line(error)}") from error
        raise
    ocp.multihost.sync_global_processes("save_model")


def _write_model(folder: epath.Path, model: ToonTalker, notes: Mapping[str, Any]) -> None:
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    sums = digests(params)  # in every process
    save = ocp.args.PyTreeSave(params, ocdbt_target_data_file_size=_DATA_FILE_BYTES)
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        checkpointer.save(folder / "params", save)
    if jax.process_index() == 0:
        files = {"model.json": describe(model.config, tuple(model.domains)), _DIGESTS: sums} | dict(notes)
        for name, contents in files.items():
            (folder / name).write_text(json.dumps(contents, indent=2) + "\n")


def read_config(path: epath.PathLike) -> tuple[ModelConfig, tuple[str, ...]]:
    """Network and domains of what `load_model` would load: a look that reads no parameters.

    Raises:
      FileNotFoundError: `path` is neither a checkpoint nor a training workdir.
      Mismatch: not of this version's format.
      OSError: the description of every step of the workdir is damaged.
    """
    path = absolute(path)
    if (path / "model.json").exists():
        return _read_description(path, _read_json(path / "model.json"))
    _check_workdir(path)
    with TrainCheckpoints(path, read_only=True) as checkpoints:

        def described(step: int) -> tuple[ModelConfig, tuple[str, ...]]:
            return _read_description(path, checkpoints.describe_step(step)[1]["model"])

        return checkpoints.newest_sound(described).found


def load_model(path: epath.PathLike, **how: Any) -> ToonTalker:
    """The model of an inference checkpoint, or of the newest step of a training workdir (its EMA if it keeps one).

    Of a workdir, damaged steps are skipped with a warning. Parameters lie on the first local device.
    `how`: dtype, dropout or remat; without, or None: the configuration's own.

    Raises:
      FileNotFoundError: `path` is neither.
      Mismatch: what is stored does not fit this version of the network.
      OSError: the checkpoint, or every step of the workdir, is damaged.
    """
    return load_networks(path, discriminators=False, **how)[0]


def load_networks(path: epath.PathLike, *, discriminators: bool, **how: Any) -> tuple[ToonTalker, dict[str, Any]]:
    """As `load_model`, and the discriminators of the same step if wanted, {domain: parameters as nested dicts}.

    An inference checkpoint has none, nor has a training without adversarial loss.
    """
    path = absolute(path)
    if (path / "model.json").exists():
        description, sums = _read_json(path / "model.json"), path / _DIGESTS
        wanted = _read_json(sums) if sums.exists() else {}  # Former versions wrote none.
        return _restore_model(_Stored(path, path / "params", None, description, wanted), how), {}
    _check_workdir(path)
    with TrainCheckpoints(path, read_only=True) as checkpoints:

        def networks_of(step: int) -> tuple[ToonTalker, dict[str, Any]]:
            tree, about = checkpoints.tree(step), checkpoints.describe_step(step)[1]
            key = GENERATOR_EMA if tree.get(GENERATOR_EMA) else GENERATOR
            state = checkpoints.state_folder(step)
            stored = _Stored(path, state, key, about["model"], about.get("digests", {}))
            domains = tuple(tree.get(DISCRIMINATOR) or ()) if discriminators else ()
            return _restore_model(stored, how), _restore_discriminators(stored._replace(key=DISCRIMINATOR), domains)

        return checkpoints.newest_sound(networks_of).found


def _check_workdir(path: epath.Path) -> None:
    if (path / "checkpoints").exists():
        return
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist.")
    if not path.is_dir():
        raise FileNotFoundError(f"{path} is a file: convert it first, by scripts/convert_checkpoint.py --input={path}.")
    kinds = "neither model.json (a checkpoint) nor checkpoints/ (a training workdir)"
    raise FileNotFoundError(f"{path} holds {kinds}.")


def _read_json(file: epath.Path) -> dict[str, Any]:
    try:
        contents = json.loads(file.read_text())
    except ValueError as error:
        raise OSError(f"{file} is damaged, copy the checkpoint again: {one_line(error)}") from None
    if not isinstance(contents, dict):
        raise OSError(f"{file} is damaged, copy the checkpoint again: it holds no names.")
    return contents


class _Stored(NamedTuple):
    """Where a model lies: in the Orbax folder `params`, under the top-level `key` if there is one."""

    path: epath.Path  # as given to load_model
    params: epath.Path
    key: str | None
    description: Mapping[str, Any]
    digests: Mapping[str, int]


def _restore_model(stored: _Stored, how: Mapping[str, Any]) -> ToonTalker:
    """Builds the described model and fills it."""
    config, domains = _read_description(stored.path, stored.description)
    config = dataclasses.replace(config, **{name: value for name, value in how.items() if value is not None})
    # Nothing is computed for the parameters: only their shapes are needed.
    graph, abstract = abstract_network(config, domains)
    nnx.replace_by_pure_dict(abstract, _restore(stored, nnx.to_pure_dict(abstract)))
    return nnx.merge(graph, abstract)


def _restore_discriminators(stored: _Stored, domains: Sequence[str]) -> dict[str, Any]:
    if not domains:
        return {}
    config, _ = _read_description(stored.path, stored.description)
    shapes = nnx.eval_shape(lambda: nnx.Dict({d: Discriminator(config, rngs=nnx.Rngs(0)) for d in domains}))
    return _restore(stored, nnx.to_pure_dict(nnx.state(shapes)))


def _restore(stored: _Stored, shapes: Any) -> Any:
    """Nested dicts of arrays, of the shapes and types that `shapes` has."""
    path, params, key = stored.path, stored.params, stored.key
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    wanted = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), shapes)
    tree = stored_tree(params)
    check_fits(str(path), tree if key is None else tree[key], wanted)
    wanted = wanted if key is None else {key: wanted}
    restore_args = ocp.checkpoint_utils.construct_restore_args(wanted)
    try:
        restored = ocp.PyTreeCheckpointHandler().restore(
            params, args=ocp.args.PyTreeRestore(item=wanted, restore_args=restore_args, partial_restore=True)
        )
    except (MemoryError, jax.errors.JaxRuntimeError):
        raise
    except Exception as error:  # Orbax raises just that for files that are lost or cut short.
        raise OSError(f"{params} is damaged, copy the checkpoint again: {one_line(error)}") from error
    check_digests(str(params), restored, stored.digests)
    return restored if key is None else restored[key]


def _read_description(path: epath.Path, description: Mapping[str, Any]) -> tuple[ModelConfig, tuple[str, ...]]:
    if missing := {"format", "config", "domains"} - set(description):
        raise OSError(f"the description in {path} is damaged: it lacks {', '.join(sorted(missing))}.")
    if description["format"] != FORMAT:
        raise Mismatch(f"{path} has checkpoint format {description['format']}; this version reads format {FORMAT}.")
    unknown = set(description["config"]) - {field.name for field in dataclasses.fields(ModelConfig)}
    if unknown:
        raise Mismatch(
            f"{path} names settings that ModelConfig does not know: {', '.join(sorted(unknown))}."
            f" Load it with the version of toontalker-jax that wrote it."
        )
    return ModelConfig(**description["config"]), tuple(description["domains"])
