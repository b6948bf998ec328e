"""Stage 2 (paper, training): both domains together, under the analogy constraint on unpaired clips."""

import jax
from flax import nnx

from toontalker_jax import losses
from toontalker_jax.models.batches import deinterleave, interleave
from toontalker_jax.models.motion import absolute, relative
from toontalker_jax.models.toontalker import ToonTalker
from toontalker_jax.training.step import Batch, Objective, StageOutput

DIRECTIONS = {"r2c": ("real", "cartoon"), "c2r": ("cartoon", "real")}  # name: (driver's domain, source's domain)


def stage2(model: ToonTalker, batch: Batch, objective: Objective, rngs: nnx.Rngs | None) -> StageOutput:
    """`batch` is {"r2c": AnalogyBatch, "c2r": AnalogyBatch}; both directions are trained in every step.

    In each direction b is reconstructed from a inside the driver's domain, and s, of the other domain, moves as a → b;
    the latter only if a loss looks at it. Each part of a domain's network runs once on all the pictures that it has.
    """
    drivers = {d: (batch[name]["reference"], batch[name]["driving"]) for name, (d, _) in DIRECTIONS.items()}
    sources = {d: batch[name]["source"] for name, (_, d) in DIRECTIONS.items()}
    transfers = objective.wants("analogy") or objective.wants("adversarial")
    seen = {d: (*drivers[d], sources[d]) if transfers else drivers[d] for d in drivers}
    codes = {d: model.joint_motion_codes(d, seen[d], rngs) for d in drivers}
    moves = {d: [code.reference_to_driving for code in codes[d][:2]] for d in drivers}  # {driver: w_ra, w_rb}
    reconstructions, fakes = {}, {}
    for driver, target in DIRECTIONS.values():
        reconstruction = (drivers[target][0], absolute(codes[target][0].source_to_reference, moves[target][1]))
        if transfers:
            transfer = (sources[target], relative(codes[target][2], *moves[driver]))
            reconstructions[target], fakes[target] = _decode(model, target, [reconstruction, transfer], rngs)
        else:
            (reconstructions[target],) = _decode(model, target, [reconstruction], rngs)

    starts, reals = {d: a for d, (a, _) in drivers.items()}, {d: b for d, (_, b) in drivers.items()}
    output = StageOutput(objective.reconstruction(reconstructions, starts, reals), fakes, reals, {}, {})
    for name, (driver, target) in DIRECTIONS.items():
        (a, b), s = drivers[driver], sources[target]
        output.still[driver] = losses.l1(a, b)
        if objective.wants("analogy"):
            w_rs = codes[target][2].reference_to_driving
            w_rg = model.motion_codes(target, fakes[target], rngs).reference_to_driving
            output.terms[f"analogy/{name}"] = losses.analogy(w_rs, w_rg, *moves[driver])
        if transfers:
            columns = (a, b, reconstructions[driver], s, fakes[target])
            output.pictures[f"{name}_reference_driving_reconstruction_source_result"] = columns
    return output


def _decode(
    model: ToonTalker, domain: str, jobs: list[tuple[jax.Array, jax.Array]], rngs: nnx.Rngs | None
) -> tuple[jax.Array, ...]:
    """The results of (source picture, motion) pairs of one domain, computed at once."""
    pictures, motions = zip(*jobs, strict=True)
    source = model.encode_source(domain, interleave(pictures))
    images = model.decode(domain, source, interleave(motions), rngs).image
    return deinterleave(images, [len(rows) for rows in pictures])
