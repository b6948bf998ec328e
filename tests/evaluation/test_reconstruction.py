import numpy as np
import pytest

from toontalker_jax.evaluation.reconstruction import average_l1, frame_l1


def test_l1_of_each_frame_is_in_the_unit_range():
    truth = np.zeros((3, 4, 4, 3), np.uint8)
    output = truth.copy()
    output[1] = 51
    output[2, :2, :, 0] = 255
    np.testing.assert_allclose(frame_l1(output, truth), [0, 0.2, 1 / 6])


def test_one_picture_is_compared_with_every_frame():
    truth = np.stack([np.full((4, 4, 3), value, np.uint8) for value in (0, 51, 102)])
    np.testing.assert_allclose(frame_l1(truth[0], truth), [0, 0.2, 0.4])


def test_the_two_averages_weigh_long_videos_differently():
    averages = average_l1([np.array([0.1, 0.1, 0.1]), np.array([0.5])])
    assert averages == {"over_frames": pytest.approx(0.2), "over_videos": pytest.approx(0.3)}


@pytest.mark.parametrize("videos", [[], [np.array([0.1]), np.array([])]])
def test_nothing_has_no_average(videos):
    with pytest.raises(ValueError, match="at least one of each"):
        average_l1(videos)
