"""Where scenes end: by differences made up of levels, and in pictures of puppets."""

import itertools
import tracemalloc

import cv2
import numpy as np
import pytest

from data_pipelines import puppets
from data_pipelines.preparation import scenes


def cuts(levels):
    """The cuts of a video of flat frames of these levels."""
    levels = np.asarray(levels, np.float32)
    table = np.full((len(levels), scenes.GAP), np.nan, np.float32)
    for gap in range(1, scenes.GAP + 1):
        table[gap:, gap - 1] = np.abs(levels[gap:] - levels[:-gap])
    return scenes.find_cuts(table)


def cuts_of(frames):
    differences = scenes.Differences()
    for frame in frames:
        differences.add(frame)
    return scenes.find_cuts(differences.array())


def still(*lengths_and_levels):
    return [level for length, level in lengths_and_levels for _ in range(length)]


def test_differences_are_those_of_thumbnails_up_to_three_frames_apart():
    frames = np.random.default_rng(0).integers(0, 256, (6, 48, 64, 3), dtype=np.uint8)
    differences = scenes.Differences()
    for frame in frames:
        differences.add(frame)
    table = differences.array()
    assert table.shape == (6, 3) and table.dtype == np.float32
    small = [cv2.resize(frame, (8, 8), interpolation=cv2.INTER_AREA).astype(float) for frame in frames]
    for n, gap in itertools.product(range(6), (1, 2, 3)):
        expected = np.abs(small[n] - small[n - gap]).mean() if n >= gap else np.nan
        np.testing.assert_allclose(table[n, gap - 1], expected, rtol=1e-5)


def test_of_each_frame_only_a_few_numbers_are_kept():
    frame = np.zeros((16, 16, 3), np.uint8)
    differences = scenes.Differences()
    for _ in range(10):
        differences.add(frame)
    tracemalloc.start()
    for _ in range(5000):
        differences.add(frame)
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert grown < 5000 * 24  # 12 bytes and what the array holds in reserve; a thumbnail has 192.


def test_scenes_of_eight_frames_and_more_are_told_apart():
    assert cuts(still((20, 50), (20, 90))) == [20]
    assert cuts(still((8, 50), (8, 90), (8, 40), (30, 60), (8, 55))) == [8, 16, 24, 54]
    assert cuts(still((20, 50), (20, 54.5))) == [20]
    assert cuts(still((20, 50), (20, 53.5))) == []  # Less than any cut.


@pytest.mark.parametrize("length", [0, 1, 2, 3, 4])
def test_a_short_video_has_no_cut_by_itself(length):
    assert cuts([60] * length) == []


@pytest.mark.parametrize("others", [[200], [200, 200], [200, 0]])
def test_one_or_two_other_frames_are_no_cut(others):
    for lead in (1, 2, 3, 12):
        assert cuts([60] * lead + others + [62] * 20) == [], lead
    # They do not hide a cut nearby: two of them from six frames on, one at any distance.
    near = 20 - len(others) - (1 if len(others) == 1 else 6)
    assert 20 in cuts([60] * near + others + [60] * (20 - near - len(others)) + [110] * 20)
    assert 20 in cuts([110] * 20 + [60] * (20 - near - len(others)) + others + [60] * 15)


def test_what_other_frames_are_between_two_scenes_belongs_to_neither():
    assert cuts(still((20, 60), (1, 250), (20, 110))) == [20, 21]


@pytest.mark.parametrize("times", [1, 2, 3])
@pytest.mark.parametrize("speed", [5, 15, 40])
def test_fast_motion_is_no_cut_even_if_frames_are_shown_again(times, speed):
    way = np.concatenate([np.zeros(12), speed * np.arange(12), np.full(12, speed * 11.0)])
    assert cuts(np.repeat(way, times)) == []


def test_a_cut_in_slow_motion_is_found_and_one_below_the_speed_is_not():
    motion = 2.0 * np.arange(40)
    assert cuts(motion + np.where(np.arange(40) < 20, 0, 60)) == [20]
    assert cuts(10 * motion + np.where(np.arange(40) < 20, 0, 30)) == []


@pytest.mark.parametrize("length", [5, 8, 25])
def test_a_fade_is_no_cut(length):
    assert cuts([100] * 20 + np.linspace(100, 0, length + 2)[1:-1].tolist() + [0] * 20) == []


@pytest.fixture(scope="module")
def shots():
    """Puppets of both domains that speak and move: name -> uint8 [24, 64, 64, 3]."""
    found = {}
    for domain, index in itertools.product(puppets.DOMAINS, range(3)):
        identity = puppets.sample_identity(domain, "train", 0, index)
        motions = puppets.sample_motion(domain, "train", 0, index, 24)
        found[f"{domain}{index}"] = np.stack([puppets.render(identity, motion, 64) for motion in motions])
    return found


def test_moving_puppets_have_no_cut_at_twice_their_speed_nor_on_threes(shots):
    for name, frames in shots.items():
        assert cuts_of(frames) == [], name
        assert cuts_of(frames[::2]) == [], name
        assert cuts_of(np.repeat(frames, 3, axis=0)) == [], name


def test_all_cuts_between_puppets_are_found_and_no_others(shots):
    pairs = list(itertools.permutations(shots, 2))
    assert len(pairs) == 30
    for one, other in pairs:
        joined = np.concatenate([shots[one], shots[other]])
        assert cuts_of(joined) == [24], (one, other)


def test_a_flash_and_a_whip_pan_in_pictures_are_no_cut(shots):
    flash = np.concatenate(list(shots.values())[:2])[:24].copy()
    flash[10:12] = 255
    assert cuts_of(flash) == []
    wide = np.concatenate([frames[0] for frames in shots.values()], axis=1)
    starts = [0] * 10 + [32 * n for n in range(10)] + [320] * 10
    assert cuts_of([wide[:, start : start + 64] for start in starts]) == []
