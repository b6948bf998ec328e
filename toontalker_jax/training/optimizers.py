"""Optimizers from a config, and how the average of the parameters follows them."""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

Params = Any  # a pure dict of float32 arrays

_KEYS = {"learning_rate", "warmup_steps", "decay", "beta1", "beta2", "multipliers"}
_KEYS |= {"reference_batch", "batch_exponent", "clip_norm"}


def learning_rate(config: Mapping[str, Any], steps: int, batch_size: int) -> optax.Schedule:
    """`learning_rate` for a batch of `reference_batch`, times (batch_size / reference_batch)^`batch_exponent`.

    It is reached linearly over `warmup_steps`; `decay` is "none" or "cosine" (to 0 at `steps`). An exponent of 0 leaves
    the rate alone; 0.5 and 1 are the usual ones. Raises ValueError for a number out of its range.
    """
    warmup, reference = config["warmup_steps"], config["reference_batch"]
    if not 0 <= warmup < steps:
        raise ValueError(f"warmup_steps = {warmup} must be at least 0 and below the number of steps = {steps}.")
    if reference < 1:
        raise ValueError(f"reference_batch = {reference}: must be at least 1.")
    if not math.isfinite(config["batch_exponent"]):
        raise ValueError(f"batch_exponent = {config['batch_exponent']}: must be a finite number.")
    peak = config["learning_rate"] * (batch_size / reference) ** config["batch_exponent"]
    if config["decay"] == "none":
        rest = optax.constant_schedule(peak)
    elif config["decay"] == "cosine":
        rest = optax.cosine_decay_schedule(peak, steps - warmup)
    else:
        raise ValueError(f"decay = {config['decay']!r}: must be 'none' or 'cosine'.")
    return optax.join_schedules([optax.linear_schedule(peak / (warmup + 1), peak, warmup), rest], [warmup])


def make_optimizer(config: Mapping[str, Any], steps: int, batch_size: int) -> optax.GradientTransformation:
    """Adam from the config keys of `learning_rate` and beta1, beta2, clip_norm, multipliers.

    `clip_norm` bounds the norm of the whole gradient; 0: no bound. `multipliers` maps names of a model's parts
    ("motion_encoder": in every domain) to factors on their learning rate; a name with a factor of 1 counts for nothing.

    Raises:
      ValueError: missing or unknown keys, a bad schedule, or (at `init`) a multiplier whose part the model lacks.
    """
    if set(config) != _KEYS:
        raise ValueError(f"optimizer config has keys {sorted(config)}, expected {sorted(_KEYS)}.")
    if not 0 <= config["clip_norm"] < math.inf:
        raise ValueError(f"clip_norm = {config['clip_norm']}: must be above 0, or 0 for none.")
    for name in ("beta1", "beta2"):
        if not 0 <= config[name] < 1:
            raise ValueError(f"{name} = {config[name]}: must be at least 0 and below 1.")
    rate = learning_rate(config, steps, batch_size)
    transforms = [optax.clip_by_global_norm(config["clip_norm"])] if config["clip_norm"] else []
    transforms.append(_adam(rate, config["beta1"], config["beta2"]))
    factors = {name: factor for name, factor in config["multipliers"].items() if factor != 1}
    for name, factor in factors.items():
        if not 0 <= factor < math.inf:
            raise ValueError(f"multipliers.{name} = {factor}: must be at least 0, which keeps that part as it is.")
    transforms += [scale_parts(factors)] if factors else []
    return optax.chain(*transforms)


def _adam(rate: optax.Schedule, beta1: float, beta2: float) -> optax.GradientTransformation:
    if beta1:
        return optax.adam(rate, b1=beta1, b2=beta2)
    # The same without a first moment, which would be a copy of the gradient: 4 bytes a parameter.
    moment = optax.scale_by_rms(decay=beta2, eps=1e-8, eps_in_sqrt=False, bias_correction=True)
    return optax.chain(moment, optax.scale_by_learning_rate(rate))


def scale_parts(multipliers: Mapping[str, float]) -> optax.GradientTransformation:
    """Multiplies the updates of every parameter whose path holds one of the names."""

    def init(params: Params) -> optax.EmptyState:
        paths = [_names(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
        parts = set().union(*paths)
        if paths and (lost := sorted(set(multipliers) - parts)):
            known = ", ".join(sorted(parts))
            raise ValueError(f"optimizer.multipliers: {', '.join(lost)} is none of {known}; 1 says that it has none.")
        return optax.EmptyState()

    def update(updates: Params, state: optax.EmptyState, params: Params | None = None):
        del params
        factor = jax.tree_util.tree_map_with_path(
            lambda path, _: math.prod(multipliers.get(name, 1.0) for name in _names(path)), updates
        )
        return jax.tree.map(lambda leaf, by: leaf * by, updates, factor), state

    return optax.GradientTransformation(init, update)


def _names(path: tuple) -> set[str]:
    return {str(key.key) for key in path}


def follow(average: Params, params: Params, done: jax.Array, decay: float) -> Params:
    """The exponential moving average after one more step; `done` [] steps lie behind the average.

    The decay grows from 0.1 towards `decay`, so that the random start does not linger in the average.
    """
    decay = jnp.minimum(decay, (1 + done) / (10 + done))
    return jax.tree.map(lambda old, new: new + decay * (old - new), average, params)
