"""What a TPU chip is said to do: the vendor's published figures, and how the names of slices are read."""

import math
import re
from typing import NamedTuple

GIB = 2**30


class Chip(NamedTuple):
    """One chip, bytes and seconds.

    Attributes:
      hbm: memory, bytes, as published.
      available: what a program may use of it, bytes, as the compiler says when it runs out (libtpu 0.0.42.1).
      flops: peak bfloat16 operations a second.
      hbm_rate: bytes a second between memory and chip.
      ici_rate: bytes a second that a chip can send to its neighbours, over all of its links together, one way.
      options: of `topologies.get_topology_desc`, so that one device is one chip.
    """

    name: str
    hbm: int
    available: int
    flops: float
    hbm_rate: float
    ici_rate: float
    dimensions: int
    options: dict[str, str]


# Source: Google Cloud TPU documentation, system architecture, "TPU v4", "TPU v5e", "TPU v5p", "TPU v6e"
# (docs.cloud.google.com/tpu/docs/v4, v5e, v5p, v6e), read in November 2026. The inter-chip interconnect is published as
# the sum of both directions (400, 1200, 800 GB/s): half of it is one way, which for v5e and v6e is also the published
# all-reduce bandwidth of a pod over its chips. For v4 only that is published: 1.1 PB/s over 4096 chips.
# v4 has two cores a chip; as a "megacore" they are one device with the whole chip's memory, as training uses them.
CHIPS = {
    chip.name: chip
    for chip in (
        Chip("v4", 32 * GIB, int(30.75 * GIB), 275e12, 1200e9, 1.1e15 / 4096, 3, {"chip_config_name": "megacore"}),
        Chip("v5e", 16 * GIB, int(15.75 * GIB), 197e12, 819e9, 200e9, 2, {}),
        Chip("v5p", 95 * GIB, int(95.74 * GIB), 459e12, 2765e9, 600e9, 3, {}),
        Chip("v6e", 32 * GIB, int(31.25 * GIB), 918e12, 1638e9, 400e9, 2, {}),
    )
}
EXAMPLES = "v5e:2x2, v5e:16x16, v6e:4x4, v4:2x2x1, v5p:2x2x2"


def read_topology(topology: str) -> tuple[Chip, int]:
    """ "v5e:16x16" → the chip and how many there are.

    Raises:
      ValueError: no such chip, or not that many dimensions.
    """
    match = re.fullmatch(r"(\w+):(\d+(?:x\d+)*)", topology)
    chip = match and CHIPS.get(match[1])
    if not chip:
        raise ValueError(f"topology = {topology!r}: know {', '.join(CHIPS)}, written as {EXAMPLES}.")
    sides = [int(side) for side in match[2].split("x")]
    if len(sides) != chip.dimensions or 0 in sides:
        raise ValueError(f"topology = {topology!r}: {chip.name} slices have {chip.dimensions} sides, as in {EXAMPLES}.")
    return chip, math.prod(sides)
