"""Compiles a recipe's training step for a TPU slice, with no TPU, and says what it needs of each chip.

    python scripts/compile_check.py --config=configs/stage1.py --topology=v5e:16x16 --batch_per_chip=8
    python scripts/compile_check.py --config=configs/stage2.py --topology=v6e:4x4 --config.model.remat=true

Any --config.key=value of training works. Needs the extra "tpu" (libtpu holds the compiler) and, at the paper's size,
10 GB of memory and tens of minutes; --effort=-1 is several times faster and its memory is that of a program that is
less optimized. The exit status is 1 if the step does not fit. Results are kept in --cache. See docs/tpu.md.
"""

import datetime
import hashlib
import json
import os
import shlex
import sys
from pathlib import Path
from typing import Any

# Before the first import of JAX: it computes nothing here, and the compiler looks for no TPU.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")

import jax
from absl import app, flags, logging
from ml_collections import ConfigDict

from scripts.compile_report import table
from scripts.recipe import CONFIG
from toontalker_jax.checkpoints import package_versions
from toontalker_jax.evaluation.flops import count_flops
from toontalker_jax.training import ahead_of_time, footprint
from toontalker_jax.training.chips import read_topology

_TOPOLOGY = flags.DEFINE_string("topology", None, "The slice: v5e:16x16, v4:2x2x1, ….", required=True)
_BATCH = flags.DEFINE_integer("batch", 0, "Rows of a batch, on all chips; default: the recipe's batch_size.")
_BATCH_PER_CHIP = flags.DEFINE_integer("batch_per_chip", 0, "The same, for each chip.")
_EFFORT = flags.DEFINE_float("effort", 0.0, "-1 … 1: how hard XLA tries; training compiles with 0.")
_SEARCH = flags.DEFINE_bool("search", True, "If it does not fit, look for the batch that does.")
_OUTPUT = flags.DEFINE_string("output", None, "Also write the report there, as JSON.")
_CACHE = flags.DEFINE_string("cache", "~/.cache/toontalker-jax/compile_check", "Results by what was compiled.")
flags.mark_flag_as_required("config")


def batch_size(config: ConfigDict, chips: int) -> int:
    """The batch that the flags ask for. Raises ValueError if it does not divide."""
    if _BATCH.value < 0 or _BATCH_PER_CHIP.value < 0 or (_BATCH.value and _BATCH_PER_CHIP.value):
        raise ValueError("give --batch or --batch_per_chip, one of them and at least 1.")
    batch = _BATCH_PER_CHIP.value * chips or _BATCH.value or config.batch_size
    if batch % (chips * config.accumulate):
        parts = f"{chips} chips × accumulate = {config.accumulate}"
        raise ValueError(f"a batch of {batch} does not divide among {parts}: pass --batch_per_chip=N.")
    return batch


def changed(config: ConfigDict, **keys: Any) -> ConfigDict:
    config = config.copy_and_resolve_references()
    config.update(keys)
    return config


def flops_a_step(config: ConfigDict, step: ahead_of_time.Step) -> float:
    """Of the whole batch, everything computed again for remat included; the R1 penalty at its share of the steps."""
    counted = count_flops(step.function, *step.arguments)
    if not config.r1.gamma:
        return counted
    step = ahead_of_time.step_on(changed(config, r1={"gamma": 0.0}), _TOPOLOGY.value)
    without = count_flops(step.function, *step.arguments)
    return without + (counted - without) / config.r1.every


def check(config: ConfigDict) -> dict[str, Any]:
    """The report for the recipe's batch, from the cache if the same program was compiled the same way before."""
    chip, chips = read_topology(_TOPOLOGY.value)
    step = ahead_of_time.step_on(config, _TOPOLOGY.value)
    lowered = step.function.lower(*step.arguments)
    how = {
        "topology": _TOPOLOGY.value,
        "batch": config.batch_size,
        "effort": _EFFORT.value,
        "flags": {name: os.environ.get(name, "") for name in ("XLA_FLAGS", "LIBTPU_INIT_ARGS")},
        "versions": package_versions() | {"libtpu": ahead_of_time.libtpu_version()},
        "config": config.to_dict(),
    }
    # The program's text as well: it changes with the code.
    key = hashlib.sha256(json.dumps([how, lowered.as_text()], sort_keys=True).encode()).hexdigest()[:24]
    cached = Path(_CACHE.value).expanduser() / f"{key}.json"
    if cached.exists():
        return json.loads(cached.read_text())
    flops = flops_a_step(config, step)
    report = {
        **how,
        "date": datetime.date.today().isoformat(),
        "chip": chip._asdict(),
        "chips": chips,
        "batch_per_chip": config.batch_size // chips,
        "argument_bytes": step.argument_bytes,
        "flops": {"step": flops, "chip": flops / chips},
        **ahead_of_time.compile_report(lowered, chip),
    }
    if "memory" in report:
        seconds = footprint.times(flops / chips, report["least_traffic"], report["sent_bytes"], chip)
        report["seconds"] = {**seconds._asdict(), "roofline": seconds.roofline, "at_40_percent": seconds.compute / 0.4}
    cached.parent.mkdir(parents=True, exist_ok=True)
    cached.write_text(json.dumps(report, indent=2) + "\n")
    return report


def batch_that_fits(config: ConfigDict, report: dict[str, Any]) -> int | None:
    """Rows a chip, less than those of the report, which do not fit."""
    chips, rows = report["chips"], report["batch_per_chip"]

    def compile_for(rows: int) -> tuple[bool, int]:
        print(f"compiling for a batch of {rows} a chip …", file=sys.stderr)
        tried = check(changed(config, batch_size=rows * chips))
        return tried["fits"], tried["needed"]

    tries = ahead_of_time.batches_a_chip(config.accumulate, rows)
    too_much = rows, report["needed"]
    return ahead_of_time.largest_that_fits(compile_for, tries, too_much, report["argument_bytes"], report["available"])


def main(_: list[str]) -> None:
    logging.set_verbosity(logging.WARNING)  # Optax tells of every constant schedule.
    jax.config.update("jax_exec_time_optimization_effort", _EFFORT.value)
    config = CONFIG.value
    try:
        _, chips = read_topology(_TOPOLOGY.value)
        config = changed(config, batch_size=batch_size(config, chips))
        report = check(config)
        if not report["fits"] and _SEARCH.value:
            report["batch_that_fits"] = batch_that_fits(config, report)
    except (ValueError, TypeError, RuntimeError, OSError) as error:
        raise SystemExit(f"error: {error}") from None
    report["command"] = shlex.join(["python", *sys.argv])
    print(table(report))
    if _OUTPUT.value:
        Path(_OUTPUT.value).write_text(json.dumps(report, indent=2) + "\n")
    sys.exit(not report["fits"])


if __name__ == "__main__":
    app.run(main)
