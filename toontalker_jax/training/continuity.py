"""May a run go on from a checkpoint? Only if it computes the same: the recipe and the data are compared with it."""

from collections.abc import Mapping
from typing import Any

from absl import logging

from toontalker_jax.checkpoints import Mismatch

# Of the recipe, what may change from start to start; everything else decides what is computed. The paths of the data
# and of the perceptual network are here because these themselves are compared, see `data` below. With another
# `accumulate` dropout draws other masks, of the same distribution.
_FREE = {"steps", "log_every", "pictures_every", "checkpoint_every", "keep_newest", "keep_every", "mesh", "accumulate"}
_FREE |= {"data", "vgg", "init", "model.remat"}
_WHOLE = {"optimizer.multipliers", "discriminator_optimizer.multipliers"}  # their keys are values; 1 is none


def check_continues(
    step: int, metadata: Mapping[str, Any], data: Mapping[str, Any], recipe: Mapping[str, Any]
) -> None:
    """Raises one Mismatch that names whatever differs from the checkpoint of `step`.

    Args:
      metadata: the checkpoint's: {"data": …, "recipe": …}; older versions kept neither, which is a warning.
      data, recipe: what this run was started with, as JSON would hold them; `data` is `Batches.state` and what tells
        one perceptual network from another.
    """
    for kind in ("data", "recipe"):
        if metadata.get(kind) is None:
            logging.warning("The checkpoint of step %d does not tell its %s: not compared.", step, kind)
    differences = {}
    if (before := metadata.get("recipe")) is not None:
        differences |= _recipe_differences(step, before, recipe)
        if before.get("init") != recipe.get("init"):
            logging.warning("init = %r is not looked at: the run goes on from step %d.", recipe.get("init"), step)
    if (before := metadata.get("data")) is not None:
        # The seed and the batch size are of both.
        differing = {name for name in {**before, **data} if before.get(name) != data.get(name)}
        names = sorted(differing - set(differences))
        differences |= {f"data: {name}": (before.get(name), data.get(name)) for name in names}
    if differences:
        if "steps" in differences:
            differences["steps, where the cosine decay ends,"] = differences.pop("steps")
        listed = "; ".join(f"{name} was {before!r}, is {now!r}" for name, (before, now) in differences.items())
        raise Mismatch(
            f"step {step} was trained differently: {listed}. Set it back, "
            f"or start a new workdir from this one's networks by --config.init=WORKDIR."
        )


def _recipe_differences(
    step: int, before: Mapping[str, Any], now: Mapping[str, Any]
) -> dict[str, tuple[Any, Any]]:
    before, now = _flat(before), _flat(now)
    unknown = sorted(set(before) ^ set(now))
    if unknown:  # Settings come and go with versions, with defaults that change nothing.
        logging.warning("The recipe of step %d and this one do not both have %s: not compared.", step, unknown)
    free = set(_FREE)
    if "cosine" in (now.get("optimizer.decay"), now.get("discriminator_optimizer.decay")):
        free.remove("steps")  # where that schedule ends
    compared = [name for name in now if name in before and not _covers(free, name)]
    return {name: (before[name], now[name]) for name in compared if before[name] != now[name]}


def _covers(names: set[str], name: str) -> bool:
    parts = name.split(".")
    return any(".".join(parts[:count]) in names for count in range(1, len(parts) + 1))


def _flat(recipe: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"model": {"width": 64}} → {"model.width": 64}."""
    flat = {}
    for key, value in recipe.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and name not in _WHOLE:
            flat |= _flat(value, f"{name}.")
        else:
            flat[name] = {k: v for k, v in value.items() if v != 1} if name in _WHOLE else value
    return flat
