import av
import numpy as np
import pytest

from data_pipelines import colour


@pytest.mark.parametrize(
    ("pixel_format", "planes", "color_range", "level"),
    [
        ("yuv420p", (235, 128, 128), 1, 255),
        ("yuv420p", (235, 128, 128), 0, 255),  # not named: limited, as players take it
        ("yuv420p", (255, 128, 128), 2, 255),
        ("yuv420p", (100, 128, 128), 2, 100),
        ("yuvj420p", (100, 128, 128), 0, 100),  # the format itself says full
    ],
)
def test_the_range_that_a_frame_names_is_kept(pixel_format, planes, color_range, level):
    sizes = (16 * 16, 8 * 8, 8 * 8)
    image = np.concatenate([np.full(n, v, np.uint8) for n, v in zip(sizes, planes, strict=True)]).reshape(24, 16)
    frame = av.VideoFrame.from_ndarray(image, format=pixel_format)
    frame.color_range = color_range
    rgb = colour.to_rgb(frame)
    assert rgb.shape == (16, 16, 3) and rgb.dtype == np.uint8
    assert np.abs(rgb.astype(int) - level).max() <= 1


def test_grey_and_transparent_pictures_become_rgb():
    grey = av.VideoFrame.from_ndarray(np.full((8, 8), 77, np.uint8), format="gray")
    grey.color_range = 2
    assert np.abs(colour.to_rgb(grey).astype(int) - 77).max() <= 1
    clear = av.VideoFrame.from_ndarray(np.full((8, 8, 4), (10, 20, 30, 0), np.uint8), format="rgba")
    np.testing.assert_array_equal(colour.to_rgb(clear)[3, 4], (10, 20, 30))
