"""The batches that a recipe names."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from data_pipelines import loaders
from data_pipelines.clips import open_clips
from data_pipelines.sampling import Sampling
from toontalker_jax.training.step import Batch

_PICTURE_ROWS = 8


def open_batches(config: ConfigDict, image_size: int) -> functools.partial:
    """`batches(start_step=…, reading=…)` of the stage, this process's rows."""
    if config.batch_size < 1 or config.steps < 1:
        raise ValueError(f"steps = {config.steps} and batch_size = {config.batch_size} must be at least 1.")
    data = config.data
    for domain in ("real", "cartoon")[: config.stage]:
        if not data[domain]:
            raise ValueError(f"no {domain} clips: name a data set, a folder or a video by --config.data.{domain}=PATH.")
    real = open_clips(data.real, data.real_split, image_size=image_size, first=data.first, last=data.last or None)
    options = {name: data[name] for name in ("min_distance", "identity_balanced", "flip", "colour_jitter")}
    shared = {
        "batch_size": config.batch_size,
        "image_size": image_size,
        "seed": config.seed,
        "sampling": Sampling(max_distance=data.max_distance or None, **options),
    }
    if config.stage == 1:
        return functools.partial(loaders.pair_batches, real, **shared)
    cartoon = open_clips(data.cartoon, data.cartoon_split, image_size=image_size)
    weights = data.driver_weights.real, data.driver_weights.cartoon
    return functools.partial(loaders.stage2_batches, real, cartoon, **shared, driver_weights=weights)


def reading_options(data: ConfigDict) -> loaders.Reading:
    return loaders.Reading(
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        num_workers=data.workers,
        num_threads=data.threads,
        max_bad_records=data.max_bad_records,
    )


def first_rows(batches: functools.partial, reading: loaders.Reading) -> Batch:
    """The rows of the first batch that are shown as pictures, the same in each process; read without threads."""
    alone = dataclasses.replace(reading, process_index=0, process_count=1, num_workers=0, num_threads=0)
    same = {"driver_weights": (1.0, 1.0)} if "driver_weights" in batches.keywords else {}
    return next(batches(reading=alone, batch_size=min(_PICTURE_ROWS, batches.keywords["batch_size"]), **same))


def batch_shapes(rows: Batch, state: Mapping[str, Any]) -> Batch:
    """Shapes and types of a global batch of the loader with this state; `rows` are some of its rows."""

    def shapes(pictures: Mapping[str, np.ndarray], count: int) -> dict[str, jax.ShapeDtypeStruct]:
        return {key: jax.ShapeDtypeStruct((count, *x.shape[1:]), x.dtype) for key, x in pictures.items()}

    if "source" in rows:
        return shapes(rows, state["batch_size"])
    return {direction: shapes(pictures, state[f"rows of {direction}"]) for direction, pictures in rows.items()}
