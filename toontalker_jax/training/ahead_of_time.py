"""Compiling the training step for a TPU slice that is not there, and finding the batch that fits it."""

import importlib.metadata
import math
import re
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from flax import nnx
from jax.experimental import topologies
from ml_collections import ConfigDict

from toontalker_jax.models.config import ModelConfig
from toontalker_jax.models.discriminator import STD_GROUP
from toontalker_jax.models.perceptual import VGG19
from toontalker_jax.models.toontalker import ToonTalker
from toontalker_jax.training import footprint, loop, setup
from toontalker_jax.training.chips import EXAMPLES, Chip, read_topology
from toontalker_jax.training.sharding import Layout, abstract, make_mesh


def libtpu_version() -> str:
    """Raises RuntimeError if libtpu, which holds the compiler, is not installed."""
    try:
        return importlib.metadata.version("libtpu")
    except importlib.metadata.PackageNotFoundError:
        raise RuntimeError("the TPU compiler, libtpu, is not installed: pip install -e '.[tpu]'.") from None


def tpu_devices(topology: str) -> list[Any]:
    """The chips of a slice, "v5e:16x16", as devices that can be compiled for but not used.

    Raises:
      ValueError: no such slice.
      RuntimeError: libtpu, which holds the compiler, is not installed.
    """
    chip, _ = read_topology(topology)
    libtpu_version()
    try:
        return list(topologies.get_topology_desc(topology, platform="tpu", **chip.options).devices)
    except jax.errors.JaxRuntimeError as error:
        raise ValueError(f"topology = {topology!r}: {str(error).splitlines()[0]}; try {EXAMPLES}.") from None


class Step(NamedTuple):
    """The training step of a recipe on a mesh, and what it is called with: shapes, types and where they lie."""

    function: Callable  # jitted
    arguments: tuple[Any, ...]  # state, batch, perceptual network

    @property
    def argument_bytes(self) -> int:
        """Of all arguments, on one device."""
        leaves = jax.tree.leaves(self.arguments)
        return sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in leaves)


def abstract_step(config: ConfigDict, layout: Layout) -> Step:
    """The step that `loop.train` compiles for the recipe, without a number computed.

    Raises:
      ValueError: settings that do not fit each other or the devices.
    """
    model = ModelConfig(**config.model)
    domains = setup.domains(config)
    made = setup.abstract_setup(config, lambda: ToonTalker(model, domains, rngs=nnx.Rngs(config.seed)), layout)
    vgg = None
    if config.weights.perceptual:
        vgg = nnx.eval_shape(lambda: VGG19(dtype=model.dtype, rngs=nnx.Rngs(0)))
    arguments = (
        abstract(made.state, layout.slices(made.state)),
        abstract(setup.abstract_batch(config, model.image_size), layout.rows),
        abstract(vgg, layout.whole),
    )
    return Step(loop.jitted(made.train_step, made.state, layout), arguments)


def step_on(config: ConfigDict, topology: str) -> Step:
    """`abstract_step` on the chips of a slice. Raises what `tpu_devices`, `make_mesh` and it raise."""
    return abstract_step(config, Layout(make_mesh(config.mesh.fsdp, tpu_devices(topology))))


def compile_report(lowered: jax.stages.Lowered, chip: Chip) -> dict[str, Any]:
    """Compile, and say what came out, JSON-ready: "fits", bytes "needed" and "available", if it compiled the rest."""
    clock = time.perf_counter()
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        needed, available = out_of_memory(str(error))
        report = {"fits": False, "needed": needed, "available": available}
        return report | {"compile_seconds": round(time.perf_counter() - clock, 1)}
    seconds = time.perf_counter() - clock
    memory, text, cost = footprint.memory(compiled), compiled.as_text(), compiled.cost_analysis()
    return {
        "fits": memory.total <= chip.available,
        "needed": memory.total,
        "available": chip.available,
        "memory": memory._asdict(),
        "xla_peak": compiled.memory_analysis().peak_memory_in_bytes,
        "collective_bytes": footprint.collective_bytes(text),
        "sent_bytes": sum(found.sent for found in footprint.collectives(text)),
        "least_traffic": footprint.least_traffic(compiled),
        "xla_flops": cost.get("flops", 0.0),
        "xla_bytes": cost.get("bytes accessed", 0.0),
        "compile_seconds": round(seconds, 1),
    }


_OUT_OF_MEMORY = (
    r"\((?P<needed>[\d.]+)(?P<unit>[KMGT]?)\) exceeds available HBM \((?P<available>[\d.]+)(?P<of>[KMGT]?)\)",
    r"Used (?P<needed>[\d.]+)(?P<unit>[KMGT]?) of (?P<available>[\d.]+)(?P<of>[KMGT]?) hbm",
)


def out_of_memory(message: str) -> tuple[int, int]:
    """Bytes needed and available out of XLA's complaint.

    Raises:
      RuntimeError: it complains about something else.
    """
    match = next(filter(None, (re.search(pattern, message) for pattern in _OUT_OF_MEMORY)), None)
    if "RESOURCE_EXHAUSTED" not in message or not match:
        raise RuntimeError(f"XLA did not compile the step: {message[:1000]}")
    unit = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
    return int(float(match["needed"]) * unit[match["unit"]]), int(float(match["available"]) * unit[match["of"]])


def batches_a_chip(accumulate: int, below: int) -> list[int]:
    """Batches a chip that are worth a try, ascending: whole groups of the discriminator's statistic in every part."""
    groups = range(STD_GROUP * accumulate, below, STD_GROUP * accumulate)
    return [rows for rows in (accumulate, 2 * accumulate) if rows < below] + list(groups)


def largest_that_fits(
    compile_for: Callable[[int], tuple[bool, int]], tries: list[int], too_much: tuple[int, int], fixed: int, room: int
) -> int | None:
    """The largest of `tries` (rows a chip, ascending) that fits, or None. What it returns has been compiled.

    Memory is taken to be linear in the rows, to choose what to compile next and, once one fits, whether to go on.

    Args:
      compile_for: rows a chip → does it fit, and the bytes that it needs.
      too_much: rows a chip that do not fit, and the bytes that they need.
      fixed: bytes that are needed without any rows, about: the arguments.
      room: bytes of a chip.
    """
    low, high, found = (0, fixed), too_much, None
    while between := [rows for rows in tries if low[0] < rows < high[0]]:
        slope = (high[1] - low[1]) / (high[0] - low[0])
        likely = [rows for rows in between if low[1] + slope * (rows - low[0]) <= room]
        if not likely and found:
            break
        rows = likely[-1] if likely else between[0]
        fits, needed = compile_for(rows)
        if fits:
            low, found = (rows, needed), rows
        else:
            high = (rows, needed)
    return found
