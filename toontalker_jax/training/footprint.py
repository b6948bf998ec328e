"""What a compiled step takes of a device: memory, bytes sent to other devices, and time at the least.

Everything here reads the compiler's answers (`compiled.memory_analysis()`, `compiled.as_text()`); nothing is run.
"""

import math
import re
from collections import defaultdict
from typing import Any, NamedTuple

from toontalker_jax.training.chips import Chip

OPERATIONS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")


class Collective(NamedTuple):
    """One instruction that devices take part in together.

    Attributes:
      operation: one of OPERATIONS.
      size: bytes of the whole, on one device: what is reduced, what is gathered in the end, what is scattered at first,
        what is exchanged or passed on.
      group: devices that take part in one exchange; of a collective-permute the two of a pair.
      times: how often a step runs it.
    """

    operation: str
    size: int
    group: int
    times: int

    @property
    def sent(self) -> float:
        """Bytes that each device sends in a step if the group is a ring, which no algorithm undercuts on average."""
        share = (self.group - 1) / self.group
        rounds = {"all-reduce": 2 * share, "collective-permute": 1.0}.get(self.operation, share)
        return self.times * rounds * self.size


def collective_bytes(hlo_text: str) -> dict[str, int]:
    """{operation: bytes of the arrays that go through it on one device in a step} of a compiled program's text.

    For what an entry counts see `Collective.size`; operations that do not occur are left out.
    """
    total: dict[str, int] = defaultdict(int)
    for found in collectives(hlo_text):
        total[found.operation] += found.size * found.times
    return dict(total)


def collectives(hlo_text: str) -> list[Collective]:
    """Every collective of a compiled program, `compiled.as_text()`.

    A loop's body counts for each iteration that the text tells (XLA's known_trip_count, or a condition that compares a
    counter with one constant), else once. Branches of a conditional count as if all were taken. An all-reduce that TPU
    compilers fuse with the slicing of its result ("all-reduce-scatter") is a reduce-scatter.
    """
    bodies = _computations(hlo_text)
    times = _times(bodies, _entry(hlo_text))
    devices = _number(r"num_partitions=(\d+)", hlo_text[:100_000]) * _number(r"replica_count=(\d+)", hlo_text[:100_000])
    found = []
    for name, lines in bodies.items():
        for line in lines:
            match = _COLLECTIVE.match(line) if times[name] else None
            if match:
                group = _group(line, devices)
                size = _whole(match["operation"], bool(match["start"]), match["type"], group)
                fused = match["operation"] == "all-reduce" and name.startswith("all-reduce-scatter")
                operation = "reduce-scatter" if fused else match["operation"]
                found.append(Collective(operation, size, group, times[name]))
    return found


_COLLECTIVE = re.compile(
    rf"\s*(?:ROOT )?%?[\w.-]+ = (?P<type>.*?) (?P<operation>{'|'.join(OPERATIONS)})(?P<start>-start)?\("
)
_SHAPE = re.compile(r"\b(pred|[a-z]+(\d+)[a-z0-9]*)\[([\d,]*)\]")
_CALLED = re.compile(r"\b(calls|to_apply|body|true_computation|false_computation)=%?([\w.-]+)")
_BRANCHES = re.compile(r"\bbranch_computations=\{([^}]*)\}")


def _number(pattern: str, text: str) -> int:
    match = re.search(pattern, text)
    return int(match[1]) if match else 1


def _bytes(types: str) -> int:
    """Of every array in an HLO type, "(f32[2,3]{1,0}, bf16[8])"."""
    return sum(
        math.prod(int(side) for side in sides.split(",") if side) * (int(bits or 8) // 8)
        for _, bits, sides in _SHAPE.findall(types)
    )


def _whole(operation: str, start: bool, types: str, group: int) -> int:
    """`Collective.size` from the instruction's result, which for a "-start" lists the operand as well."""
    size = _bytes(types)
    if operation == "reduce-scatter":
        return size * group
    if start and operation == "all-gather":
        return size * group // (group + 1)
    if start and operation == "collective-permute":
        return _bytes(re.sub(r"u32\[\]", "", types)) // 2  # (operand, result, two words of context)
    return size


def _group(line: str, devices: int) -> int:
    """Devices in a replica group, in any of the four ways that HLO writes them; `devices` where it names none."""
    if "source_target_pairs" in line:
        return 2
    if match := re.search(r"replica_groups=\{\{([\d,]+)\}", line):
        return len(match[1].split(","))
    if match := re.search(r"replica_groups=\[(\d+),(\d+)\]", line):
        return int(match[2])
    if match := re.search(r"replica_groups=@?mesh\w*\[([^\]]*)\][^{]*\{([^}]*)\}", line):
        sizes = dict(re.findall(r"'([^']+)'=(\d+)", match[1]))
        axes = re.findall(r"'([^']+)'(?::\(\d+\)(\d+))?", match[2])
        return math.prod(int(part or sizes[axis]) for axis, part in axes)
    return devices


def _entry(hlo_text: str) -> str:
    match = re.search(r"^ENTRY %?([\w.-]+)", hlo_text, re.MULTILINE)
    if not match:
        raise ValueError("hlo_text has no ENTRY computation: hand over compiled.as_text().")
    return match[1]


def _computations(hlo_text: str) -> dict[str, list[str]]:
    """{name: lines of the body} of every computation."""
    bodies: dict[str, list[str]] = {}
    name = None
    for line in hlo_text.splitlines():
        head = re.match(r"(?:ENTRY )?%?([\w.-]+) (?:\(.*\) -> .*)?\{\s*$", line)
        if head:
            name = head[1]
            bodies[name] = []
        elif name is not None:
            bodies[name].append(line)
    return bodies


def _times(bodies: dict[str, list[str]], entry: str) -> dict[str, int]:
    """How often each computation runs when the entry runs once."""
    calls = defaultdict(list)  # {called: [(caller, times)]}
    for caller, lines in bodies.items():
        for line in lines:
            if re.search(r"-(?:done|update)\(", line):  # They name what their start has called.
                continue
            for how, called in _CALLED.findall(line):
                calls[called].append((caller, _iterations(line, bodies) if how == "body" else 1))
            for branches in _BRANCHES.findall(line):
                calls.update({b: calls[b] + [(caller, 1)] for b in re.findall(r"[\w.-]+", branches)})
    known = {entry: 1}

    def count(name: str) -> int:
        if name not in known:
            known[name] = sum(count(caller) * times for caller, times in calls[name])
        return known[name]

    return {name: count(name) for name in bodies}


def _iterations(line: str, bodies: dict[str, list[str]]) -> int:
    """Of the `while` in this line; 1 where the text does not tell."""
    if match := re.search(r'known_trip_count"?:\{"n":"(\d+)"', line):
        return int(match[1])
    condition = bodies.get(re.search(r"condition=%?([\w.-]+)", line)[1], [])
    bounds = [m[1] for m in (re.search(r"= [su]32\[\]\S* constant\((\d+)\)", text) for text in condition) if m]
    return int(bounds[0]) if len(bounds) == 1 and any("direction=LT" in text for text in condition) else 1


class Memory(NamedTuple):
    """Bytes on one device while a program runs."""

    arguments: int  # and what stays of them in place
    outputs: int  # besides those that take an argument's place
    temporaries: int
    code: int

    @property
    def total(self) -> int:
        """What has to be there if nothing of it shares its place."""
        return sum(self)


def memory(compiled: Any) -> Memory:
    """Of a `jax.stages.Compiled`."""
    stats = compiled.memory_analysis()
    return Memory(
        arguments=stats.argument_size_in_bytes,
        outputs=stats.output_size_in_bytes - stats.alias_size_in_bytes,
        temporaries=stats.temp_size_in_bytes,
        code=stats.generated_code_size_in_bytes,
    )


def least_traffic(compiled: Any) -> int:
    """Bytes between memory and chip that a run cannot do without: arguments read, outputs written, temporaries both.

    XLA's own count, cost_analysis()["bytes accessed"], is no such bound: for a step of this project's it was over 400
    times all the memory that the program has.
    """
    stats = compiled.memory_analysis()
    return stats.argument_size_in_bytes + stats.output_size_in_bytes + 2 * stats.temp_size_in_bytes


class Times(NamedTuple):
    """Seconds that a step takes if nothing but this limits it, at the chip's published rates."""

    compute: float
    hbm: float
    ici: float

    @property
    def roofline(self) -> float:
        """If all three go on at once, and each at its peak."""
        return max(self)


def times(flops: float, hbm_bytes: float, sent_bytes: float, chip: Chip) -> Times:
    """From what one chip has to compute in bfloat16, to move and to send."""
    return Times(flops / chip.flops, hbm_bytes / chip.hbm_rate, sent_bytes / chip.ici_rate)
