"""What stage 2 computes, by a network that can be done in the head: against each direction by itself."""

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from toontalker_jax import losses
from toontalker_jax.models.motion import MotionCodes
from toontalker_jax.models.toontalker import ToonTalker
from toontalker_jax.training.stage2 import stage2
from toontalker_jax.training.step import Objective

WEIGHTS = {"l1": 1.0, "image_gradient": 0.0, "change": 0.0, "perceptual": 0.0, "adversarial": 0.0, "analogy": 1.0}


class Toy:
    """A picture's motion is its mean, decoding adds it; each domain by numbers of its own."""

    NUMBERS = {"real": (2.0, 3.0, 0.5), "cartoon": (5.0, 7.0, 0.25)}
    joint_motion_codes = ToonTalker.joint_motion_codes

    def motion_codes(self, domain, image, rngs=None):
        sr, rd, _ = self.NUMBERS[domain]
        mean = image.mean(axis=(1, 2, 3))[:, None, None]
        return MotionCodes(sr * mean, rd * mean)

    def encode_source(self, domain, image):
        return self.NUMBERS[domain][2] * image

    def decode(self, domain, source, w, rngs=None):
        return SimpleNamespace(image=source + w[..., None] / self.NUMBERS[domain][1])


def alone(a, b, s, driver, target):
    """One direction as the paper has it (eq. 3, 5 and 9): reconstruction of b, result g, and how far g is off."""
    toy = Toy()
    w = {key: toy.motion_codes(domain, x) for key, domain, x in (("a", driver, a), ("b", driver, b), ("s", target, s))}
    moved = w["b"].reference_to_driving - w["a"].reference_to_driving
    within = w["a"].source_to_reference + w["b"].reference_to_driving
    across = w["s"].source_to_reference + w["s"].reference_to_driving + moved
    g = toy.decode(target, toy.encode_source(target, s), across).image
    off = toy.motion_codes(target, g).reference_to_driving - w["s"].reference_to_driving - moved
    return toy.decode(driver, toy.encode_source(driver, a), within).image, g, jnp.abs(off).mean()


@pytest.mark.parametrize("rows", [{"r2c": 2, "c2r": 2}, {"r2c": 3, "c2r": 1}], ids=["equal", "three to one"])
def test_both_directions_at_once_are_each_by_itself(rows):
    random = np.random.default_rng(0)
    keys = ("reference", "driving", "source")
    batch = {name: {key: jnp.asarray(random.uniform(-1, 1, (n, 4, 4, 3))) for key in keys} for name, n in rows.items()}
    output = stage2(Toy(), batch, Objective(WEIGHTS), None)
    assert len(output.terms) == 4
    for name, driver, target in (("r2c", "real", "cartoon"), ("c2r", "cartoon", "real")):
        a, b, s = (batch[name][key] for key in keys)
        reconstruction, g, off = alone(a, b, s, driver, target)
        np.testing.assert_allclose(output.fakes[target], g, rtol=1e-5)
        np.testing.assert_array_equal(output.reals[driver], b)
        assert output.terms[f"l1/{driver}"] == pytest.approx(float(losses.l1(reconstruction, b)), rel=1e-5)
        assert output.terms[f"analogy/{name}"] == pytest.approx(float(off), rel=1e-4)
        assert output.still[driver] == pytest.approx(float(losses.l1(a, b)))
        columns = output.pictures[f"{name}_reference_driving_reconstruction_source_result"]
        for found, wanted in zip(columns, (a, b, reconstruction, s, g), strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_a_result_that_no_loss_looks_at_is_not_computed():
    images = {key: jnp.ones((2, 4, 4, 3)) for key in ("reference", "driving", "source")}
    blind = images | {"source": None}  # never touched
    output = stage2(Toy(), {"r2c": blind, "c2r": blind}, Objective(WEIGHTS | {"analogy": 0.0}), None)
    full = stage2(Toy(), {"r2c": images, "c2r": images}, Objective(WEIGHTS), None)
    assert set(output.terms) == {"l1/real", "l1/cartoon"} and not output.fakes and not output.pictures
    for name, term in output.terms.items():
        assert term == pytest.approx(float(full.terms[name]), rel=1e-6)
