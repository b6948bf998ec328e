import numpy as np
import pytest

from data_pipelines import faces, transforms
from data_pipelines.faces import Box


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_parse_box():
    assert faces.parse_box("40,0,256,128") == Box(40, 0, 256, 128)
    assert faces.parse_box(" -3, -12 ,1,1 ") == Box(-3, -12, 1, 1)


@pytest.mark.parametrize("text", ["", "1,2,3", "1,2,3,4,5", "1,2,3,4.5", "1,2,3,x", "1,2,3,4,", "none", "1_0,2,3,4"])
def test_what_is_no_box_is_named(text):
    with pytest.raises(faces.FaceError, match=f"^'{text}': not a box: write x,y,width,height"):
        faces.parse_box(text)


@pytest.mark.parametrize("text", ["1,2,0,4", "1,2,3,-4"])
def test_a_box_has_sides_of_at_least_1(text):
    with pytest.raises(faces.FaceError, match=f"'{text}'.*at least 1"):
        faces.parse_box(text)


def test_check_inside():
    faces.check_inside(Box(0, 0, 640, 360), 360, 640)
    faces.check_inside(Box(600, 350, 40, 10), 360, 640)
    for box in (Box(-1, 0, 9, 9), Box(0, -1, 9, 9), Box(600, 0, 41, 9), Box(0, 350, 9, 11)):
        with pytest.raises(faces.FaceError, match=f"{box.x},{box.y},{box.width},{box.height} .*640×360.*0,0,640,360"):
            faces.check_inside(box, 360, 640)


@pytest.mark.parametrize("size", [(4, 9), (9, 4), (4, 8), (7, 7), (3, 8), (8, 3)])
def test_squared_cuts_and_pads_as_the_transforms_do(size):
    image, whole = noise(*size), Box(0, 0, size[1], size[0])
    np.testing.assert_array_equal(
        faces.crop(image, faces.squared(whole, "crop")), transforms.center_crop_square(image)
    )
    np.testing.assert_array_equal(faces.crop(image, faces.squared(whole, "pad")), transforms.pad_square(image))


def test_squared_keeps_the_place_of_the_box():
    assert faces.squared(Box(100, 50, 20, 10), "crop") == Box(105, 50, 10, 10)
    assert faces.squared(Box(100, 50, 20, 10), "pad") == Box(100, 45, 20, 20)
    with pytest.raises(faces.FaceError, match="'squash'.*crop or pad"):
        faces.squared(Box(0, 0, 2, 1), "squash")


def test_crop_repeats_the_edges_beyond_the_picture():
    image = noise(6, 8)
    np.testing.assert_array_equal(faces.crop(image, Box(2, 1, 5, 3)), image[1:4, 2:7])
    padded = np.pad(image, ((3, 3), (3, 3), (0, 0)), mode="edge")
    np.testing.assert_array_equal(faces.crop(image, Box(-3, -2, 9, 11)), padded[1:12, 0:9])


BOX = Box(20, 10, 40, 30)


def test_pasting_back_what_was_cut_changes_nothing():
    picture = noise(60, 90)
    for box in (BOX, Box(0, 0, 90, 60), Box(-7, 20, 50, 50), Box(60, 5, 1, 1)):
        np.testing.assert_array_equal(faces.paste_back(picture, box, faces.crop(picture, box)), picture)


def test_a_result_of_another_size_is_fitted_without_a_shift_of_colour_or_place():
    ramp = np.linspace(0, 250, 90)[None, :, None] * np.ones((60, 1, 3))
    picture = ramp.astype(np.uint8)
    result = transforms.resize(faces.crop(picture, Box(20, 10, 40, 40)), 20, 20)
    pasted = faces.paste_back(picture, Box(20, 10, 40, 40), result).astype(int)
    # Halved and doubled again, a slope of 2.8 levels a pixel keeps its value within 1.
    assert np.abs(pasted - picture).max() <= 1


def test_the_feather_is_smooth_and_outside_nothing_changes():
    picture = np.zeros((60, 90, 3), np.uint8)
    before = picture.copy()
    pasted = faces.paste_back(picture, BOX, np.full((5, 5, 3), 200, np.uint8), feather=0.2)
    np.testing.assert_array_equal(picture, before)
    outside = np.ones((60, 90), bool)
    outside[11:39, 21:59] = False  # The outermost pixels of the box have weight 0.
    assert not pasted[outside].any()
    assert (pasted[16:34, 26:54] == 200).all()  # 0.2 of the 30 pixels: full from 6 on.
    edge = pasted[25, 20:27, 0].astype(int)
    np.testing.assert_array_equal(edge, np.round(200 * np.array([0, 2, 7, 13.5, 20, 25, 27]) / 27))  # 3t² - 2t³
    np.testing.assert_array_equal(pasted[10:40, 20:60], pasted[10:40, 20:60][::-1, ::-1])
    hard = faces.paste_back(picture, BOX, np.full((5, 5, 3), 200, np.uint8), feather=0)
    assert (hard[11:39, 21:59] == 200).all() and not hard[outside].any()


@pytest.mark.parametrize("box", [Box(0, 0, 40, 30), Box(-5, -9, 45, 39)])
def test_no_feather_along_the_pictures_border(box):
    white = np.full((8, 8, 3), 255, np.uint8)
    shares = faces.paste_back(np.zeros((60, 90, 3), np.uint8), box, white)[..., 0]
    assert shares[0, 0] == 255 and (shares[0, :36] == 255).all() and (shares[:26, 0] == 255).all()
    assert not shares[:, 39:].any() and not shares[29:].any()
    turned = Box(90 - box.x - box.width, 60 - box.y - box.height, box.width, box.height)
    other = faces.paste_back(np.zeros((60, 90, 3), np.uint8), turned, white)[..., 0]
    np.testing.assert_array_equal(other, shares[::-1, ::-1])


@pytest.mark.parametrize("box", [Box(-50, 0, 20, 20), Box(0, -50, 20, 20), Box(95, 0, 20, 20), Box(0, 60, 20, 20)])
def test_a_box_outside_the_picture_pastes_nothing(box):
    picture = noise(60, 90)
    np.testing.assert_array_equal(faces.paste_back(picture, box, noise(4, 4)), picture)


def test_the_weights_are_made_once_for_a_video():
    faces._weights.cache_clear()
    for seed in range(5):
        faces.paste_back(noise(60, 90, seed), BOX, noise(8, 8, seed))
    assert faces._weights.cache_info().misses == 1


def test_what_cannot_be_pasted_is_named():
    with pytest.raises(faces.FaceError, match="float32.*to_uint8"):
        faces.paste_back(noise(60, 90), BOX, np.zeros((4, 4, 3), np.float32))
    for feather in (-0.1, 0.6, float("nan")):
        with pytest.raises(faces.FaceError, match=f"feather is {feather}"):
            faces.paste_back(noise(60, 90), BOX, noise(4, 4), feather)
