"""The shards of a plan written by an Apache Beam pipeline, on whatever runner (pip install '.[beam]').

TFDS has its own Beam writer; it writes ArrayRecord without TensorFlow too, but it chooses the shards by itself and
cannot go on where it was. Here Beam only hands out the shards of the plan, so it writes the same bytes as processes do.
"""

import functools
from collections.abc import Sequence
from pathlib import Path

from data_pipelines.preparation.plan import Plan, Shard
from data_pipelines.preparation.shards import write_shard


def write_shards(plan: Plan, todo: Sequence[Shard], source: Path, work: Path, options: Sequence[str]) -> None:
    """Writes the shards `todo`; the workers read `source` and write `work`, which all of them have to reach.

    Args:
      plan, todo, source, work: as for `write_shard`.
      options: Beam's own flags: ["--runner=DirectRunner", "--direct_num_workers=2"] …

    Raises:
      ValueError: apache-beam is not installed.
    """
    try:
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError:
        raise ValueError("apache-beam is not installed: pip install 'toontalker-jax[beam]', or use --workers") from None
    with beam.Pipeline(options=PipelineOptions(list(options))) as pipeline:
        write = functools.partial(_write, plan, source, work)
        _ = pipeline | beam.Create([shard.index for shard in todo]) | beam.Reshuffle() | beam.Map(write)


def _write(plan: Plan, source: Path, work: Path, index: int) -> int:
    write_shard(plan, plan.shards[index], source, work)
    return index
