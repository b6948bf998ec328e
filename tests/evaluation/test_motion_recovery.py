import numpy as np
import pytest

from toontalker_jax.evaluation.motion_recovery import motion_recovery


@pytest.fixture
def case():
    """A source, and two true frames in each of which a quarter of the picture has changed: uint8."""
    random = np.random.default_rng(0)
    source = random.integers(60, 120, (8, 8, 3)).astype(np.uint8)
    truth = np.stack([source, source])
    truth[0, :4, :4] += 60
    truth[1, 4:, 4:] -= 40
    return source, truth


def test_the_truth_recovers_everything_and_the_source_nothing(case):
    source, truth = case
    assert motion_recovery(truth, truth, source) == 1
    assert motion_recovery(np.stack([source, source]), truth, source) == pytest.approx(0, abs=1e-12)


def test_frames_are_weighted_by_how_much_moves(case):
    source, truth = case
    first_only = np.stack([truth[0], source])
    # Sums run over all frames: 60 · 16 pixels of (60 + 40) · 16 are recovered.
    assert motion_recovery(first_only, truth, source) == pytest.approx(0.6)
    halfway = np.stack([source, source])
    halfway[0, :4, :4] += 30
    assert motion_recovery(halfway, truth, source) == pytest.approx(0.3)


def test_moving_away_is_negative(case):
    source, truth = case
    wrong_way = (2 * source.astype(int) - truth).astype(np.uint8)
    assert motion_recovery(wrong_way, truth, source) == pytest.approx(-1)


def test_pixels_that_hardly_change_do_not_count(case):
    source, truth = case
    expected = motion_recovery(np.stack([source, truth[1]]), truth, source)
    truth[:, 6, 0] = source[6, 0] + 12  # 12 / 255 < 0.05 on average over the channels
    output = np.stack([source, truth[1]])
    output[:, 0, 7] = 255  # wrong, but where nothing moves
    output[:, 6, 0] = 255
    assert motion_recovery(output, truth, source) == pytest.approx(expected)
    truth[:, 6, 0] = source[6, 0] + 14  # 14 / 255 > 0.05
    assert motion_recovery(output, truth, source) < expected - 0.01


def test_the_threshold_is_on_the_mean_over_channels(case):
    source, truth = case
    truth[:, 6, 0, 0] = source[6, 0, 0] + 30  # one channel: 10 / 255 on average
    assert motion_recovery(np.stack([truth[0], truth[1]]), truth, source) == 1
    output = truth.copy()
    output[:, 6, 0] = source[6, 0]
    assert motion_recovery(output, truth, source) == 1


def test_floats_in_the_unit_range_are_the_same_as_8_bit(case):
    source, truth = case
    output = np.stack([truth[0], source])
    assert motion_recovery(output / 255, truth / 255, source / 255) == pytest.approx(
        motion_recovery(output, truth, source)
    )


def test_a_case_in_which_nothing_moves_is_not_defined(case):
    source, _ = case
    still = np.stack([source, source])
    assert np.isnan(motion_recovery(still, still, source))


def test_what_does_not_fit_is_refused(case):
    source, truth = case
    with pytest.raises(ValueError, match="output ranges from -1.0"):
        motion_recovery(np.full(truth.shape, -1.0), truth, source)
    with pytest.raises(ValueError, match="output ranges from nan"):
        motion_recovery(np.full(truth.shape, np.nan), truth, source)
    with pytest.raises(ValueError, match="must be"):
        motion_recovery(truth[0], truth[0], source)
    with pytest.raises(ValueError, match="must be"):
        motion_recovery(truth[:1], truth, source)
