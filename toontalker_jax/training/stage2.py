"""Stage 2 (paper, training): both domains together, under the analogy constraint on unpaired clips."""

import jax
from flax import nnx

from toontalker_jax import losses
from toontalker_jax.models.batches import deinterleave, interleave
from toontalker_jax.models.motion import MotionCodes, absolute, relative
from toontalker_jax.models.toontalker import ToonTalker
from toontalker_jax.training.step import Batch, Objective, StageOutput

DIRECTIONS = {"r2c": ("real", "cartoon"), "c2r": ("cartoon", "real")}  # name: (driver's domain, source's domain)


def stage2(model: ToonTalker, batch: Batch, objective: Objective, rngs: nnx.Rngs | None) -> StageOutput:
    """`batch` is {"r2c": AnalogyBatch, "c2r": AnalogyBatch}; both directions are trained in every step.

    In each direction b is reconstructed from a inside the driver's domain, and s, of the other domain, moves as a → b.
    Each part of a domain's network runs once on all the pictures that it has, of both directions.
    """
    drivers = {d: (batch[name]["reference"], batch[name]["driving"]) for name, (d, _) in DIRECTIONS.items()}
    sources = {d: batch[name]["source"] for name, (_, d) in DIRECTIONS.items()}
    codes = {d: model.joint_motion_codes(d, (*drivers[d], sources[d]), rngs) for d in drivers}
    reconstructions, results = {}, {}
    for driver, target in DIRECTIONS.values():
        a = drivers[target][0]
        images = _decode(model, target, (a, sources[target]), codes[target], codes[driver], rngs)
        reconstructions[target], results[target] = images

    reals = {d: b for d, (_, b) in drivers.items()}
    output = StageOutput(objective.reconstruction(reconstructions, reals), results, reals, {}, {})
    for name, (driver, target) in DIRECTIONS.items():
        (a, b), s, g = drivers[driver], sources[target], results[target]
        if objective.wants("analogy"):
            w_ra, w_rb, _ = (image.reference_to_driving for image in codes[driver])
            w_rs, w_rg = (c.reference_to_driving for c in (codes[target][2], model.motion_codes(target, g, rngs)))
            output.terms[f"analogy/{name}"] = losses.analogy(w_rs, w_rg, w_ra, w_rb)
        output.still[driver] = losses.l1(a, b)
        columns = (a, b, reconstructions[driver], s, g)
        output.pictures[f"{name}_reference_driving_reconstruction_source_result"] = columns
    return output


def _decode(
    model: ToonTalker,
    domain: str,
    pictures: tuple[jax.Array, jax.Array],
    own: list[MotionCodes],
    driver: list[MotionCodes],
    rngs: nnx.Rngs | None,
) -> tuple[jax.Array, ...]:
    """`pictures` a and s of one domain: a with the motion of b, and s with that of the other domain's a → b.

    `own` and `driver` are the codes of a, b and s in this domain and in the other.
    """
    codes_a, codes_b, codes_s = own
    reconstruction = absolute(codes_a.source_to_reference, codes_b.reference_to_driving)
    transfer = relative(codes_s, driver[0].reference_to_driving, driver[1].reference_to_driving)
    source = model.encode_source(domain, interleave(pictures))
    images = model.decode(domain, source, interleave((reconstruction, transfer)), rngs).image
    return deinterleave(images, [len(rows) for rows in pictures])
