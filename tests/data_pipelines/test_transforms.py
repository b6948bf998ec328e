import numpy as np
import pytest

from data_pipelines import transforms


def test_to_uint8_rounds_and_clips():
    values = np.array([-3, -1, 2 * 9.6 / 255 - 1, 2 * 9.4 / 255 - 1, 1, 7], np.float32)
    np.testing.assert_array_equal(transforms.to_uint8(values), [0, 0, 10, 9, 255, 255])


def test_png_keeps_every_value_and_the_order_of_the_colours():
    image = np.random.default_rng(0).integers(0, 256, (7, 5, 3), dtype=np.uint8)
    np.testing.assert_array_equal(transforms.decode(transforms.encode_png(image)), image)


def test_jpeg_keeps_colour_edges():
    image = np.zeros((16, 16, 3), np.uint8)
    image[:, :7] = 255, 0, 0
    image[:, 7:] = 0, 0, 255
    decoded = transforms.decode(transforms.encode_jpeg(image, 95)).astype(int)
    # Off by up to 6 levels; with colour at half resolution by more than 100 at the edge.
    assert np.abs(decoded - image).max() <= 12


@pytest.mark.parametrize("data", [b"", b"no image"])
def test_bytes_that_are_no_image_are_named(data):
    with pytest.raises(ValueError, match=f"not an image.*{len(data)} bytes"):
        transforms.decode(data)


def test_center_crop_and_pad_square():
    image = np.arange(3 * 6).reshape(3, 6, 1).repeat(3, 2).astype(np.uint8)
    cropped = transforms.center_crop_square(image)
    np.testing.assert_array_equal(cropped, image[:, 1:4])
    np.testing.assert_array_equal(transforms.center_crop_square(image.transpose(1, 0, 2)), cropped.transpose(1, 0, 2))
    padded = transforms.pad_square(image)
    assert padded.shape == (6, 6, 3)
    np.testing.assert_array_equal(padded[1:4], image)
    np.testing.assert_array_equal(padded[[0, 4, 5]], image[[0, 2, 2]])


def test_resize_averages_when_it_shrinks_and_keeps_flat_colours_when_it_grows():
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    means = image.reshape(2, 4, 4, 2, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(transforms.resize(image, 2, 4), means, atol=0.5)
    flat = np.full((4, 4, 3), (10, 120, 250), np.uint8)
    np.testing.assert_array_equal(transforms.resize(flat, 9, 7), np.full((9, 7, 3), (10, 120, 250)))


def test_to_square_crops_before_it_resizes():
    image = np.zeros((4, 12, 3), np.uint8)
    image[:, 4:8] = 200
    np.testing.assert_array_equal(transforms.to_square(image, 2), np.full((2, 2, 3), 200))
