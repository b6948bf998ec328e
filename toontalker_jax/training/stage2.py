"""Stage 2 (paper, training): both domains together, under the analogy constraint on unpaired clips."""

from flax import nnx

from toontalker_jax import losses
from toontalker_jax.models.motion import absolute, relative
from toontalker_jax.models.toontalker import ToonTalker
from toontalker_jax.training.step import Batch, Objective, StageOutput

DIRECTIONS = {"r2c": ("real", "cartoon"), "c2r": ("cartoon", "real")}  # name: (driver's domain, source's domain)


def stage2(model: ToonTalker, batch: Batch, objective: Objective, rngs: nnx.Rngs | None) -> StageOutput:
    """`batch` is {"r2c": AnalogyBatch, "c2r": AnalogyBatch}; both directions are trained in every step."""
    output = StageOutput({}, {}, {}, {}, {})
    for name, (driver, target) in DIRECTIONS.items():
        _direction(model, batch[name], name, driver, target, objective, rngs, output)
    return output


def _direction(
    model: ToonTalker,
    batch: Batch,
    name: str,
    driver: str,
    target: str,
    objective: Objective,
    rngs: nnx.Rngs | None,
    output: StageOutput,
) -> None:
    """Reconstruct b from a inside the driver's domain; then move s, of the target domain, as a → b does."""
    a, b, s = batch["reference"], batch["driving"], batch["source"]
    codes_a, codes_b = model.pair_motion_codes(driver, a, b, rngs)
    w = absolute(codes_a.source_to_reference, codes_b.reference_to_driving)
    reconstruction = model.decode(driver, model.encode_source(driver, a), w, rngs).image
    output.terms.update(objective.reconstruction(reconstruction, b, driver))

    codes_s = model.motion_codes(target, s, rngs)
    w_ra, w_rb = codes_a.reference_to_driving, codes_b.reference_to_driving
    g = model.decode(target, model.encode_source(target, s), relative(codes_s, w_ra, w_rb), rngs).image
    if objective.wants("analogy"):
        w_rg = model.motion_codes(target, g, rngs).reference_to_driving
        output.terms[f"analogy/{name}"] = losses.analogy(codes_s.reference_to_driving, w_rg, w_ra, w_rb)
    output.fakes[target], output.reals[driver], output.still[driver] = g, b, losses.l1(a, b)
    output.pictures[f"{name}_reference_driving_reconstruction_source_result"] = (a, b, reconstruction, s, g)
