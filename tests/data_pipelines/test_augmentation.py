import collections

import numpy as np
import pytest

from data_pipelines.augmentation import Change, colour_map, draw_change

FRAMES = np.random.default_rng(0).integers(0, 256, (2, 6, 5, 3), dtype=np.uint8)


def rng(seed=0):
    return np.random.default_rng(seed)


def apply(colours, image):
    return np.clip(image @ colours[:, :3].T + colours[:, 3], 0, 255)


def changed(rng, **options):
    change = draw_change(rng, **options)
    return [change(frame) for frame in FRAMES]


def test_nothing_happens_unless_it_is_asked_for():
    assert draw_change(None) == Change(mirrored=False, colours=None)
    np.testing.assert_array_equal(changed(None), FRAMES)


def test_one_coin_mirrors_all_frames_of_a_clip_or_none():
    outcomes = collections.Counter()
    for seed in range(200):
        frames = changed(rng(seed), flip=True)
        mirrored = np.array_equal(frames, FRAMES[:, :, ::-1])
        assert mirrored or np.array_equal(frames, FRAMES)
        outcomes[mirrored] += 1
    assert 70 < outcomes[True] < 130  # 100 expected, standard deviation 7


def test_all_frames_of_a_clip_get_one_colour_map_within_the_range():
    factors = []
    for seed in range(300):
        drawn = rng(seed).uniform(0.6, 1.4, 3)
        for new, old in zip(changed(rng(seed), colour_jitter=0.4), FRAMES, strict=True):
            assert new.dtype == np.uint8 and new.shape == old.shape
            # Half a level of rounding, and OpenCV's fixed-point products.
            np.testing.assert_allclose(new, apply(colour_map(*drawn), old), atol=1)
        factors.append(drawn)
    assert np.min(factors) < 0.65 and np.max(factors) > 1.35


def test_the_generator_alone_decides():
    options = dict(flip=True, colour_jitter=0.5)
    np.testing.assert_array_equal(changed(rng(3), **options), changed(rng(3), **options))
    assert not np.array_equal(changed(rng(3), **options), changed(rng(4), **options))


@pytest.mark.parametrize(
    ("factors", "colour", "expected"),
    [
        ((1, 1, 1), (10, 120, 250), (10, 120, 250)),
        ((0.5, 1, 1), (10, 120, 250), (5, 60, 125)),
        ((1, 2, 1), (100, 127.5, 150), (72.5, 127.5, 172.5)),
        ((1, 1, 0), (100, 0, 0), (29.9, 29.9, 29.9)),
        ((1, 1, 2), (100, 100, 100), (100, 100, 100)),
        ((1, 1, 2), (100, 0, 0), (170.1, 0, 0)),  # and clipped: 0 − 29.9
    ],
)
def test_factors_of_brightness_contrast_and_saturation(factors, colour, expected):
    np.testing.assert_allclose(apply(colour_map(*factors), np.array(colour)), expected)
