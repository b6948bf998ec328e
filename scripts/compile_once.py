"""What a recipe's training step needs on a TPU slice. Each program is compiled once: the results are kept."""

import datetime
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict

from toontalker_jax.checkpoints import package_versions
from toontalker_jax.evaluation.flops import count_flops
from toontalker_jax.training import ahead_of_time, footprint
from toontalker_jax.training.chips import read_topology

TOPOLOGY = flags.DEFINE_string("topology", None, "The slice: v5e:16x16, v4:2x2x1, ….", required=True)
EFFORT = flags.DEFINE_float("effort", 0.0, "-1 … 1: how hard XLA tries; training compiles with 0.")
_CACHE = flags.DEFINE_string("cache", "~/.cache/toontalker-jax/compile_check", "Results by what was compiled.")


def changed(config: ConfigDict, **keys: Any) -> ConfigDict:
    config = config.copy_and_resolve_references()
    config.update(keys)
    return config


def flops_a_step(config: ConfigDict, step: ahead_of_time.Step) -> float:
    """Of the whole batch, everything computed again for remat included; the R1 penalty at its share of the steps."""
    counted = count_flops(step.function, *step.arguments)
    if not config.r1.gamma:
        return counted
    step = ahead_of_time.step_on(changed(config, r1={"gamma": 0.0}), TOPOLOGY.value)
    without = count_flops(step.function, *step.arguments)
    return without + (counted - without) / config.r1.every


def check(config: ConfigDict) -> dict[str, Any]:
    """The report for the recipe's batch, from the cache if the same program was compiled the same way before."""
    chip, chips = read_topology(TOPOLOGY.value)
    step = ahead_of_time.step_on(config, TOPOLOGY.value)
    lowered = step.function.lower(*step.arguments)
    how = {
        "topology": TOPOLOGY.value,
        "batch": config.batch_size,
        "effort": EFFORT.value,
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
    partial = cached.with_suffix(f".{os.getpid()}")  # several may compile at once, and each may be stopped
    partial.write_text(json.dumps(report, indent=2) + "\n")
    partial.replace(cached)
    return report
