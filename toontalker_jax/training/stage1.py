"""Stage 1 (paper, training): reconstruct one frame of a real video from another."""

from flax import nnx

from toontalker_jax import losses
from toontalker_jax.models.toontalker import ToonTalker
from toontalker_jax.training.step import Batch, Objective, StageOutput


def stage1(model: ToonTalker, batch: Batch, objective: Objective, rngs: nnx.Rngs | None) -> StageOutput:
    """`batch` is a PairBatch {source, driving [N, S, S, 3]}: two frames of one clip."""
    image = model(batch["source"], batch["driving"], "real", rngs).image
    terms = objective.reconstruction({"real": image}, {"real": batch["source"]}, {"real": batch["driving"]})
    return StageOutput(
        terms,
        fakes={"real": image},
        reals={"real": batch["driving"]},
        still={"real": losses.l1(batch["source"], batch["driving"])},
        pictures={"source_driving_result": (batch["source"], batch["driving"], image)},
    )
