"""Motion recovery of relative transfer on held-out puppets: whole motions, or each part of the face alone."""

import itertools
from collections.abc import Iterator

import numpy as np
from absl import flags

from data_pipelines import puppets
from toontalker_jax.evaluation.protocols import transfer_recovery
from toontalker_jax.models.toontalker import ToonTalker
from toontalker_jax.reenactment.transfer import KINDS, Reenactor, check_kind

_TYPES = flags.DEFINE_list("types", list(KINDS), "recovery, parts: the types to measure.")
_CASES = flags.DEFINE_integer("cases", 64, "recovery, parts: cases of each type.", lower_bound=1)
_FRAMES = flags.DEFINE_integer("frames", 4, "recovery, parts: frames of each case.", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "recovery, parts: seed of identities and motions.", lower_bound=0)

GRID_CASES = 2  # of each type shown

Rows = list[list[np.ndarray]]


def check_types(model: ToonTalker) -> None:
    """Raises ValueError for no type, or one that the network cannot serve."""
    if not _TYPES.value:
        raise ValueError("--types names none")
    for kind in _TYPES.value:
        check_kind(kind, model.domains)


def shown(reenactor: Reenactor, cases: Iterator[dict[str, np.ndarray]]) -> Rows:
    """A row of the grid, source | driver | result | truth, for the last frame of each of the first cases."""
    rows = []
    for case in itertools.islice(cases, GRID_CASES):
        output = reenactor.transfer(case["source"], case["reference"], case["driving"])
        rows.append([case["source"], case["driving"][-1], output[-1], case["truth"][-1]])
    return rows


def recovery(model: ToonTalker, batch_size: int) -> tuple[dict, Rows]:
    """The report and the grid. Raises what `check_types` raises."""
    check_types(model)
    rows, results = [], {}
    for kind in _TYPES.value:
        reenactor = Reenactor(model, kind, "relative", batch_size)
        settings = (kind, "test", _SEED.value, _CASES.value, _FRAMES.value, model.config.image_size)
        results[kind] = transfer_recovery(reenactor.transfer, puppets.transfer_cases(*settings))
        print(f"{kind}: recovery {results[kind]['mean']:.4f} over {results[kind]['count']} cases")
        rows += shown(reenactor, puppets.transfer_cases(*settings))
    report = {
        "recovery": {kind: result["mean"] for kind, result in results.items()},
        "cases": _CASES.value,
        "frames": _FRAMES.value,
        "seed": _SEED.value,
        "split": "test",
        "results": results,
    }
    return report, rows


def parts(model: ToonTalker, batch_size: int) -> tuple[dict, Rows]:
    """As `recovery`, where one part after the other moves alone, from neutral to a stated place."""
    check_types(model)
    rows, means = [], {}
    for kind in _TYPES.value:
        reenactor, means[kind] = Reenactor(model, kind, "relative", batch_size), {}
        for part in puppets.PARTS:
            settings = (kind, part, "test", _SEED.value, _CASES.value, _FRAMES.value, model.config.image_size)
            means[kind][part] = transfer_recovery(reenactor.transfer, puppets.part_cases(*settings))["mean"]
            rows.append(sum(shown(reenactor, puppets.part_cases(*settings)), []))
        print(f"{kind}: {', '.join(f'{part} {mean:.3f}' for part, mean in means[kind].items())}")
    return {"recovery": means, "cases": _CASES.value, "frames": _FRAMES.value, "seed": _SEED.value}, rows
