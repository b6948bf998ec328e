"""What both kinds of checkpoints share: their description, and the comparison of what is stored with what is wanted."""

import dataclasses
import importlib.metadata
import os
from collections.abc import Mapping, Sequence
from typing import Any

import orbax.checkpoint as ocp
from etils import epath

from toontalker_jax.models.config import ModelConfig

FORMAT = 1
# Top-level keys of a training state that inference.py reads.
GENERATOR, GENERATOR_EMA, DISCRIMINATOR = "generator", "generator_ema", "discriminator"


class Mismatch(ValueError):
    """A checkpoint is sound, but not one for this version, network or run."""


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


def absolute(path: epath.PathLike) -> epath.Path:
    """A local path from the root, as Orbax demands; one in a bucket as it is (etils would take it for a local one).

    Raises:
      ValueError: the path has a scheme that etils does not know.
    """
    try:
        path = epath.Path(path)
    except KeyError as scheme:
        raise ValueError(f"{path}: of the scheme {scheme} nothing is known; give a local path, or gs://…") from None
    return path if in_bucket(path) else path.expanduser().resolve()


def in_bucket(path: epath.PathLike) -> bool:
    return "://" in os.fspath(path)


def put_aside(path: epath.Path, folder: epath.Path) -> epath.Path:
    """Moves a folder into another, under its name or, where that is taken, NAME.1, NAME.2 … (in a bucket by a copy)."""
    folder.mkdir(parents=True, exist_ok=True)
    # In a bucket a folder is there when something lies in it.
    (folder / "README").write_text("Checkpoints that could not be read, put aside by a run that went on.\n")
    times = sum(other.name.split(".")[0] == path.name for other in folder.iterdir())
    return path.rename(folder / (f"{path.name}.{times}" if times else path.name))


def stored_tree(directory: epath.Path) -> Mapping[str, Any]:
    """The nested names of what Orbax stored there; leaves have `.shape` and `.dtype`.

    Raises:
      OSError: its list of contents is missing or cannot be read.
    """
    with ocp.PyTreeCheckpointer() as checkpointer:
        stored = checkpointer.metadata(directory).item_metadata
    if stored is None:  # Orbax only logs why.
        raise OSError(f"the list of contents of {directory} is missing or cannot be read.")
    return stored.tree


def check_fits(where: str, stored: Any, wanted: Any) -> None:
    """Raises one Mismatch unless both trees have the same names and shapes (Orbax's own message fills pages)."""
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
        raise Mismatch(f"{where} does not fit this configuration: {'; '.join(problems[:3])}{more}.")


def one_line(error: Exception) -> str:
    """An error's text without line breaks, and no page of it."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else text[:300] + " …"
