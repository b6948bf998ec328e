"""The batches that a recipe names."""

import dataclasses
import functools

import jax
from ml_collections import ConfigDict

from data_pipelines import loaders
from data_pipelines.batches import PairBatch, Stage2Batch
from data_pipelines.clips import open_clips
from data_pipelines.sampling import Sampling


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


def whole_batch(batches: functools.partial, reading: loaders.Reading) -> PairBatch | Stage2Batch:
    """The first batch with the rows of all processes, the same in each; no threads or workers for a single one."""
    at_once = dataclasses.replace(reading, process_index=0, process_count=1, num_workers=0, num_threads=0)
    return next(batches(reading=at_once))
