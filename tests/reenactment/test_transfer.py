"""Reenactor: the paper's formulas with the right domains, in batches, from 8-bit pictures to 8-bit pictures.

Most tests use a stand-in for the network whose every term is a known multiple of a picture's mean, so that a wrong
domain, term or frame shows in the numbers.
"""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from toontalker_jax.models.motion import MotionCodes
from toontalker_jax.reenactment.transfer import Reenactor

SIZE = 4
W_SR = {"real": 0.3, "cartoon": -0.5}
W_RD = {"real": 0.7, "cartoon": 0.2}
GAIN = {"real": 0.6, "cartoon": -0.4}


class StandIn(nnx.Module):
    """Motion codes [N, 1, 1] = a domain's factor · mean of the picture; image = a domain's gain · source + w."""

    def __init__(self, domains=("real", "cartoon")):
        self.config = SimpleNamespace(image_size=SIZE, dtype="float16")
        self.domains = nnx.Dict({name: nnx.Dict(gain=nnx.Param(jnp.float32(GAIN[name]))) for name in domains})

    def motion_codes(self, domain, image):
        mean = image.mean((1, 2, 3))[:, None, None]
        return MotionCodes(W_SR[domain] * mean, W_RD[domain] * mean)

    def encode_source(self, domain, image):
        return self.domains[domain]["gain"][...] * image

    def decode(self, domain, source, w):
        return SimpleNamespace(image=self.domains[domain]["gain"][...] * source + w[..., None])


@pytest.fixture(scope="module")
def model():
    return StandIn()


@pytest.fixture(scope="module")
def pictures():
    """uint8 [7, S, S, 3], each of another mean."""
    random = np.random.default_rng(0)
    return (random.integers(0, 100, (7, SIZE, SIZE, 3)) + 20 * np.arange(7)[:, None, None, None]).astype(np.uint8)


@pytest.mark.parametrize(
    ("kind", "driver", "source"),
    [
        ("r2r", "real", "real"),
        ("c2c", "cartoon", "cartoon"),
        ("r2c", "real", "cartoon"),
        ("c2r", "cartoon", "real"),
    ],
)
@pytest.mark.parametrize("motion", ["relative", "absolute"])
def test_each_frame_follows_the_equations(model, pictures, kind, driver, source, motion):
    picture, reference, *driving = pictures.astype(np.float64) / 127.5 - 1
    output = Reenactor(model, kind, motion, batch_size=2).transfer(pictures[0], pictures[1], pictures[2:])
    assert output.dtype == np.uint8
    assert output.shape == (5, SIZE, SIZE, 3)  # what fills the last batch is cut off again
    w = W_SR[source] * picture.mean()
    if motion == "relative":
        w += W_RD[source] * picture.mean() - W_RD[driver] * reference.mean()
    for frame, result in zip(driving, output, strict=True):
        image = GAIN[source] ** 2 * picture + w + W_RD[driver] * frame.mean()
        np.testing.assert_array_equal(result, np.round(np.clip((image + 1) * 127.5, 0, 255)))


def test_the_network_itself_in_batches_equals_one_frame_at_a_time(tiny_model):
    coarse = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3))
    pictures = coarse.repeat(8, axis=1).repeat(8, axis=2).astype(np.uint8)
    model = tiny_model()
    output = Reenactor(model, "r2c", "relative", batch_size=2).transfer(pictures[0], pictures[1], pictures[2:])

    @jax.jit
    def one(frame):
        source, reference, frame = (x[None].astype(jnp.float32) / 127.5 - 1 for x in (*pictures[:2], frame))
        w_sr, w_rs = model.motion_codes("cartoon", source)
        (_, w_r1), (_, w_rd) = model.motion_codes("real", reference), model.motion_codes("real", frame)
        return model.decode("cartoon", model.encode_source("cartoon", source), w_sr + w_rs + w_rd - w_r1).image[0]

    expected = np.stack([(np.clip(one(frame), -1, 1) + 1) * 127.5 for frame in pictures[2:]])
    # Half a level of rounding, and float32 sums in another order.
    assert np.abs(output - expected).max() < 0.51
    assert np.abs(expected[0] - expected[1]).mean() > 1  # the frames differ enough for that to mean something


def test_the_first_frame_is_the_reference_unless_one_is_set(model, pictures):
    source, reference, *driving = pictures
    reenactor = Reenactor(model, "r2c", batch_size=2)
    reenactor.prepare(source)
    by_default = np.stack(list(reenactor.frames(driving)))
    np.testing.assert_array_equal(by_default, reenactor.transfer(source, driving[0], np.stack(driving)))
    assert (by_default != reenactor.transfer(source, reference, np.stack(driving))).any()
    reenactor.prepare(source)  # forgets the reference that was set
    np.testing.assert_array_equal(by_default, np.stack(list(reenactor.frames(driving))))


@pytest.mark.parametrize("scale", [0.0, 0.5, 2.0])
def test_motion_scale_multiplies_the_drivers_part(model, pictures, scale):
    picture, reference, *driving = pictures.astype(np.float64) / 127.5 - 1
    reenactor = Reenactor(model, "r2c", batch_size=2, motion_scale=scale)
    output = reenactor.transfer(pictures[0], pictures[1], pictures[2:])
    own = (W_SR["cartoon"] + W_RD["cartoon"]) * picture.mean()
    for frame, result in zip(driving, output, strict=True):
        moved = scale * W_RD["real"] * (frame.mean() - reference.mean())
        image = GAIN["cartoon"] ** 2 * picture + own + moved
        np.testing.assert_array_equal(result, np.round(np.clip((image + 1) * 127.5, 0, 255)))


def test_codes_of_one_driver_move_any_source(model, pictures):
    reenactor = Reenactor(model, "r2c", batch_size=2)
    codes = list(reenactor.codes(pictures[2:]))  # needs no source
    assert len(codes) == 5 and codes[0].shape == (1, 1) and codes[0].dtype == np.float32
    for source in pictures[:2]:
        reenactor.prepare(source)
        direct = np.stack(list(reenactor.frames(pictures[2:])))
        np.testing.assert_array_equal(np.stack(list(reenactor.render(codes))), direct)
        reenactor.set_reference_code(codes[3])
        by_code = np.stack(list(reenactor.render(codes)))
        np.testing.assert_array_equal(by_code, reenactor.transfer(source, pictures[5], pictures[2:]))
        assert (by_code != direct).any()


def test_the_nearest_code_is_that_of_the_same_motion(model, pictures):
    reenactor = Reenactor(model, "r2c", batch_size=2)
    codes = list(reenactor.codes(pictures))
    # The stand-in's codes are multiples of a picture's mean, another in each domain.
    own = W_RD["cartoon"] * (pictures[4].mean() / 127.5 - 1)
    wanted = int(np.argmin([abs(W_RD["real"] * (p.mean() / 127.5 - 1) - own) for p in pictures]))
    with pytest.raises(RuntimeError, match="call prepare"):
        reenactor.nearest(codes)
    reenactor.prepare(pictures[4])
    assert reenactor.nearest(iter(codes)) == wanted
    same_domain = Reenactor(model, "r2r", batch_size=2)
    same_domain.prepare(pictures[4])
    assert same_domain.nearest(same_domain.codes(pictures)) == 4
    with pytest.raises(ValueError, match="no frames"):
        reenactor.nearest([])


def test_frames_are_read_as_they_are_needed_and_compiled_once(model, pictures):
    read = 0

    def endless():
        nonlocal read
        while True:
            read += 1
            yield pictures[read % len(pictures)]

    reenactor = Reenactor(model, "r2c", batch_size=2)
    reenactor.prepare(pictures[0])
    frames = reenactor.frames(endless())
    for _ in range(6):
        next(frames)
    assert read <= 6 + 2 * 2  # at most the batch under way and the one being handed out
    list(reenactor.frames(pictures[:3]))
    reenactor.set_reference(pictures[1])
    assert reenactor._driving_codes._cache_size() == reenactor._decode._cache_size() == 1


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_named_and_not_shown_as_black(model, pictures, value):
    reenactor = Reenactor(model, "r2c", batch_size=2)
    reenactor.prepare(pictures[0])
    codes = list(reenactor.codes(pictures))
    codes[3] = codes[3] + np.float32(value)
    frames = reenactor.render(codes)
    for _ in range(3):
        next(frames)
    with pytest.raises(
        ValueError, match=r"picture of frame 3 \(from 0\) is not finite in float16: use --dtype=float32"
    ):
        next(frames)

    diverged = StandIn()
    diverged.motion_codes = lambda domain, image: MotionCodes(
        *[jnp.where(image.mean((1, 2, 3)) > 0, value, 0.0)[:, None, None]] * 2
    )
    bright = np.full((SIZE, SIZE, 3), 255, np.uint8)
    with pytest.raises(ValueError, match="motion code of frame 2 .* is not finite"):
        list(Reenactor(diverged, "r2c", batch_size=2).codes([0 * bright, 0 * bright, bright]))


def test_an_empty_driver_gives_no_frames(model, pictures):
    reenactor = Reenactor(model)
    reenactor.prepare(pictures[0])
    assert list(reenactor.frames([])) == []


def test_what_does_not_fit_is_refused_at_once(model, pictures):
    with pytest.raises(ValueError, match="needs the domain 'cartoon', but this model has only real"):
        Reenactor(StandIn(("real",)), "r2c")
    with pytest.raises(ValueError, match="type = 'x2y'"):
        Reenactor(model, "x2y")
    with pytest.raises(ValueError, match="motion = 'fast'"):
        Reenactor(model, motion="fast")
    with pytest.raises(ValueError, match=r"motion_scale = 2.0 scales relative motion"):
        Reenactor(model, motion="absolute", motion_scale=2.0)
    with pytest.raises(ValueError, match="batch_size = 0"):
        Reenactor(model, batch_size=0)
    reenactor = Reenactor(model)
    with pytest.raises(RuntimeError, match="call prepare"):
        next(reenactor.frames(pictures))
    with pytest.raises(ValueError, match="source is float64"):
        reenactor.prepare(pictures[0] / 255)
    reenactor.prepare(pictures[0])
    with pytest.raises(ValueError, match=r"driving frame is uint8 \(2, 4, 3\)"):
        next(reenactor.frames([pictures[0][:2]]))
