"""The shards of a plan written by an Apache Beam pipeline, on whatever runner (pip install '.[beam]').

TFDS has its own Beam writer; it writes ArrayRecord without TensorFlow too, but it chooses the shards by itself and
cannot go on where it was. Here Beam only hands out the shards of the plan, so it writes the same bytes as processes do.
"""

from collections.abc import Callable, Sequence

from data_pipelines.preparation.plan import Shard


def write_shards(todo: Sequence[Shard], write: Callable[[Shard], None], beam_options: Sequence[str]) -> None:
    """Writes the shards `todo`; the workers have to reach what `write` reads and writes.

    Args:
      todo: the shards.
      write: writes one; it is sent to the workers.
      beam_options: Beam's own flags: ["--runner=DirectRunner", "--direct_num_workers=2"] …

    Raises:
      ValueError: apache-beam is not installed.
    """
    try:
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError:
        raise ValueError("apache-beam is not installed: pip install 'toontalker-jax[beam]', or use --workers") from None
    with beam.Pipeline(options=PipelineOptions(list(beam_options))) as pipeline:
        _ = pipeline | beam.Create(todo) | beam.Reshuffle() | beam.Map(write)
