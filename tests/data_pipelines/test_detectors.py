import itertools
import types

import cv2
import numpy as np
import pytest

from data_pipelines import detectors, faces, puppets
from data_pipelines.faces import Box
from data_pipelines.onnx_input import with_fixed_input
from tests.data_pipelines.onnx_files import node, onnx_file


def puppet(index, size):
    motion = puppets.sample_motion("real", "train", 0, index, 1)[0]
    return puppets.render(puppets.sample_identity("real", "train", 0, index), motion, size)


def canvas(height, width, *placed, level=90):
    """A flat picture with others on it, each given as (picture, x, y)."""
    image = np.full((height, width, 3), level, np.uint8)
    for picture, x, y in placed:
        image[y : y + picture.shape[0], x : x + picture.shape[1]] = picture
    return image


def middle(box):
    return np.array([box.x + box.width / 2, box.y + box.height / 2])


@pytest.fixture(scope="module")
def detector():
    return detectors.open_detector()


def test_the_bundled_detector_finds_faces_in_full_resolution_pixels(detector):
    for index in range(4):
        image = canvas(720, 1280, (puppet(index, 320), 700, 300))
        found = detector(image)
        assert len(found) == 1
        # Measured: 0.68 to 0.82 of the puppet's picture, up to 23 pixels off its middle.
        assert 0.6 * 320 < found[0].width < 0.9 * 320
        np.testing.assert_allclose(middle(found[0]), [860, 460], atol=32)


def test_the_largest_face_comes_first(detector):
    for x_small, x_large in ((20, 300), (420, 20)):
        image = canvas(360, 640, (puppet(0, 120), x_small, 20), (puppet(0, 300), x_large, 30))
        small, large = [x_small + 60, 80], [x_large + 150, 180]
        found = detector(image)
        assert len(found) == 2
        np.testing.assert_allclose(middle(found[0]), large, atol=30)
        np.testing.assert_allclose(middle(found[1]), small, atol=12)


@pytest.mark.parametrize("level", [0, 90, 255])
def test_the_light_of_face_and_wall_does_not_matter(detector, level):
    # A dark and a pale one, each of a quarter of the contrast.
    for offset in (0, 170):
        image = canvas(360, 640, (puppet(0, 160) // 4 + np.uint8(offset), 350, 150), level=level)
        assert len(detector(image)) == 1


@pytest.mark.parametrize("size", [(240, 320), (1, 1), (3, 2000)])
def test_a_picture_without_a_face_gives_none(detector, size):
    assert detector(canvas(*size)) == []


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("face.xml", None, "no such file"),
        ("face.onnx", None, "no such file"),
        ("face.pt", b"", "not a face detector: pass a cascade .*YuNet"),
        ("face.XML", b"hello", "not a cascade"),
        ("face.xml", b"", "not a cascade"),
        ("face.xml", b"<?xml version='1.0'?><opencv_storage></opencv_storage>", "not a cascade"),
        ("face.onnx", b"hello", "not a face detector"),
        ("face.onnx", b"", "not a face detector"),
    ],
)
def test_a_detector_that_cannot_be_opened_is_named(tmp_path, name, content, message):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(faces.FaceError, match=f"^{path}: {message}") as caught:
        detectors.open_detector(path)
    assert "\n" not in str(caught.value)


def test_a_detector_lies_in_the_users_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(faces.FaceError, match=f"^{tmp_path}/face.xml: no such file"):
        detectors.open_detector("~/face.xml")


def fake_yunet(monkeypatch, tmp_path, detect):
    (tmp_path / "net.onnx").touch()
    created = types.SimpleNamespace(create=lambda *arguments: types.SimpleNamespace(detect=detect))
    monkeypatch.setattr(cv2, "FaceDetectorYN", created)
    return detectors.open_detector(tmp_path / "net.onnx")


def test_yunet_sees_the_shrunk_picture_in_bgr_and_its_boxes_are_enlarged(monkeypatch, tmp_path):
    seen, rows = [], np.zeros((3, 15), np.float32)
    rows[:, :4] = [10, 20, 30, 40], [100, 50, 40.4, 60], [0, 0, 0.2, 9]
    yunet = fake_yunet(monkeypatch, tmp_path, lambda image: seen.append(image.copy()) or (1, rows))
    assert yunet(canvas(400, 640)) == [Box(200, 100, 81, 120), Box(20, 40, 60, 80)]  # Largest first, none of 0 pixels.
    image = np.zeros((90, 160, 3), np.uint8)
    image[...] = 250, 120, 10
    assert yunet(image)[0] == Box(100, 50, 40, 60)  # Nothing is enlarged.
    assert [picture.shape for picture in seen] == [(320, 320, 3)] * 3  # The first one is the check at opening.
    np.testing.assert_array_equal(seen[2][:90, :160], np.broadcast_to([10, 120, 250], (90, 160, 3)))
    assert seen[1][:200].all() and not seen[1][200:].any() and not seen[2][90:].any() and not seen[2][:, 160:].any()


def test_yunet_without_a_face(monkeypatch, tmp_path):
    assert fake_yunet(monkeypatch, tmp_path, lambda image: (1, None))(canvas(90, 160)) == []


def test_what_fails_as_yunet_and_cannot_be_read_otherwise_is_named(monkeypatch, tmp_path):
    def detect(image):
        raise cv2.error("two\nlines")

    with pytest.raises(faces.FaceError, match="net.onnx: not a face detector"):
        fake_yunet(monkeypatch, tmp_path, detect)


def test_faces_of_one_size_come_in_one_order_whatever_threads_find_first():
    image = np.zeros((40, 60, 3), np.uint8)
    rows = [(30, 5, 8, 8), (2, 9, 8, 8), (12, 1, 16, 4), (0, 0, 9, 9)]
    orders = {tuple(detectors._boxes(order, image, image)) for order in itertools.permutations(rows)}
    assert len(orders) == 1 and orders.pop()[0] == Box(0, 0, 9, 9)


SIDE = 80  # a toy network's fields, four in a row: each has a box, and its redness for a score


def toy_network(kind, box_side=SIDE, opened=None):
    """The bytes of an ONNX network with the outputs of `kind`, which finds red fields in 320×320, or 320×240 (SSD).

    `opened`: what the file says of the input's shape, if not these numbers.
    """
    height = 240 if kind == "SSD" else 320
    shape = opened or (1, 3, height, 320)
    grid = [((c + 0.5) * SIDE, (r + 0.5) * SIDE) for r in range(height // SIDE) for c in range(4)]
    middles, count = np.array(grid, np.float32), len(grid)
    boxes = np.concatenate([middles, np.full((count, 2), box_side, np.float32)], axis=1)
    corners = np.concatenate([middles - box_side / 2, middles + box_side / 2], axis=1)
    red = np.array([1, 0, 0], np.float32).reshape(1, 3, 1, 1)
    constants = {"red": red, "none": np.zeros((1, 1, 1), np.float32), "shape": np.array([1, count, 1])}
    nodes = [
        node("AveragePool", ["picture"], "pooled", kernel_shape=[SIDE, SIDE], strides=[SIDE, SIDE]),
        node("Conv", ["pooled", "red"], "redness", kernel_shape=[1, 1]),
        node("Reshape", ["redness", "shape"], "score"),
    ]
    if kind == "v8":  # [1, 5, N]
        constants |= {"boxes": boxes.T[None].copy(), "shape": np.array([1, 1, count])}
        nodes.append(node("Concat", ["boxes", "score"], "out", axis=1))
        return onnx_file(shape, nodes, constants, {"out": (1, 5, count)})
    if kind in ("v5", "v10", "pose"):  # [1, N, 5 + 1], with many more rows; [1, N, 6]; [1, N, 6 + 5]
        rest = np.ones((1, count, 6 if kind == "pose" else 1), np.float32)
        more = np.zeros((1, 1000 if kind == "v5" else 1, 5 + rest.shape[2]), np.float32)
        constants |= {"boxes": (boxes if kind == "v5" else corners)[None], "rest": rest, "more": more}
        nodes.append(node("Concat", ["boxes", "score", "rest"], "some", axis=2))
        nodes.append(node("Concat", ["some", "more"], "out", axis=1))
        return onnx_file(shape, nodes, constants, {"out": (1, count + more.shape[1], more.shape[2])})
    constants |= {"corners": corners[None] / np.float32([320, height] * 2)}  # scores [1, N, 2] and corners [1, N, 4]
    nodes += [
        node("Mul", ["score", "none"], "nothing"),
        node("Concat", ["nothing", "score"], "scores", axis=2),
        node("Add", ["nothing", "corners"], "boxes"),
    ]
    return onnx_file(shape, nodes, constants, {"scores": (1, count, 2), "boxes": (1, count, 4)})


def toy_scrfd(ranks, landmarks=True):
    """A network of 320×320 which finds red steps: their boxes reach 5, 4, 3 and 2 steps from the anchor."""
    constants, nodes, outputs = {"red": np.array([1, 0, 0], np.float32).reshape(1, 3, 1, 1)}, [], {}
    for stride in (8, 16, 32):
        count, anchors = (320 // stride) ** 2, 2 * (320 // stride) ** 2
        lead = [1] * (ranks - 2)
        rows = {"boxes": np.tile(np.float32([5, 4, 3, 2]), (anchors, 1))}
        rows |= {"points": np.zeros((anchors, 10), np.float32)} if landmarks else {}
        constants |= {f"one{stride}": np.array([count, 1]), f"all{stride}": np.array([*lead, anchors, 1])}
        constants |= {f"{name}{stride}in": table.reshape(*lead, *table.shape) for name, table in rows.items()}
        constants[f"none{stride}"] = np.zeros((1,) * ranks, np.float32)
        pool = {"kernel_shape": [stride] * 2, "strides": [stride] * 2}
        nodes += [
            node("AveragePool", ["picture"], f"pooled{stride}", **pool),
            node("Conv", [f"pooled{stride}", "red"], f"redness{stride}", kernel_shape=[1, 1]),
            node("Reshape", [f"redness{stride}", f"one{stride}"], f"column{stride}"),
            node("Concat", [f"column{stride}"] * 2, f"pairs{stride}", axis=1),  # both anchors of a step
            node("Reshape", [f"pairs{stride}", f"all{stride}"], f"score{stride}"),
            node("Mul", [f"score{stride}", f"none{stride}"], f"nothing{stride}"),
        ]
        nodes += [node("Add", [f"nothing{stride}", f"{name}{stride}in"], f"{name}{stride}") for name in rows]
        outputs |= {f"score{stride}": (*lead, anchors, 1)}
        outputs |= {f"{name}{stride}": (*lead, *table.shape) for name, table in rows.items()}
    return onnx_file((1, 3, 320, 320), nodes, constants, outputs)


def toy_retinaface(prior):
    """A network of 320×320 which finds red steps by one of the two priors of each: boxes twice as wide, moved.

    It sees BGR less the means, and wants a red of at least 189.
    """
    constants = {
        "red": np.array([0, 0, 1 / 132], np.float32).reshape(1, 3, 1, 1),
        "zero": np.zeros((1, 1, 1), np.float32),
    }
    nodes, rows = [], sum(2 * (320 // stride) ** 2 for stride in (8, 16, 32))
    for stride in (8, 16, 32):
        count, pool = (320 // stride) ** 2, {"kernel_shape": [stride] * 2, "strides": [stride] * 2}
        constants |= {f"one{stride}": np.array([1, count, 1]), f"all{stride}": np.array([1, 2 * count, 1])}
        both = [f"column{stride}", f"nothing{stride}"]
        nodes += [
            node("AveragePool", ["picture"], f"pooled{stride}", **pool),
            node("Conv", [f"pooled{stride}", "red"], f"redness{stride}", kernel_shape=[1, 1]),
            node("Reshape", [f"redness{stride}", f"one{stride}"], f"column{stride}"),
            node("Mul", [f"column{stride}", "zero"], f"nothing{stride}"),
            node("Concat", both[::-1] if prior else both, f"pairs{stride}", axis=2),
            node("Reshape", [f"pairs{stride}", f"all{stride}"], f"score{stride}"),
        ]
    offsets = np.tile(np.float32([1, -2, np.log(2) / 0.2, 0]), (1, rows, 1))
    constants |= {"offsets": offsets, "points": np.zeros((1, rows, 10), np.float32)}
    nodes += [
        node("Concat", [f"score{stride}" for stride in (8, 16, 32)], "score", axis=1),
        node("Mul", ["score", "zero"], "nothing"),
        node("Add", ["nothing", "offsets"], "boxes"),
        node("Concat", ["nothing", "score"], "scores", axis=2),
        node("Add", ["nothing", "points"], "landmarks"),
    ]
    outputs = {"boxes": (1, rows, 4), "scores": (1, rows, 2), "landmarks": (1, rows, 10)}
    return onnx_file((1, 3, 320, 320), nodes, constants, outputs)


def toy_detector(folder, kind, **options):
    (folder / "toy.onnx").write_bytes(toy_network(kind, **options))
    return detectors.open_detector(folder / "toy.onnx")


@pytest.mark.parametrize("kind", ["v8", "v5", "v10", "pose", "SSD"])
def test_boxes_of_onnx_networks_are_in_full_resolution_pixels(tmp_path, capfd, kind):
    detect = toy_detector(tmp_path, kind)
    assert not capfd.readouterr().err  # OpenCV's complaints of sizes that the network does not take
    image = np.zeros((300, 640, 3), np.uint8)  # Shrunk to 150×320: a field is 160×160 of its pixels.
    assert detect(image) == []
    image[:160, 320:480] = 255, 0, 0
    assert detect(image) == [Box(320, 0, 160, 160)]
    image[:160, :160] = 0, 0, 255  # blue: channels are not swapped
    assert detect(image) == [Box(320, 0, 160, 160)]
    image[:160, 480:] = 255, 100, 100
    assert detect(image) == [Box(320, 0, 160, 160), Box(480, 0, 160, 160)]


@pytest.mark.parametrize("kind", ["v8", "v5", "v10", "SSD"])
def test_of_boxes_that_overlap_the_surest_stays(tmp_path, kind):
    image = np.zeros((240, 320, 3), np.uint8)
    image[80:160, 80:160, 0], image[80:160, 160:240, 0] = 210, 240
    assert toy_detector(tmp_path, kind, box_side=240)(image) == [Box(80, 0, 240, 240)]


@pytest.mark.parametrize(("kind", "found"), [("v8", 1), ("v5", 1), ("v10", 1), ("SSD", 0)])
def test_networks_see_what_they_are_trained_with(tmp_path, kind, found):
    image = np.zeros((240, 320, 3), np.uint8)
    image[80:160, 80:160, 0] = 180  # 0.71 in 0 … 1, 0.41 in -1 … 1: a score has to be 0.5
    assert len(toy_detector(tmp_path, kind)(image)) == found


@pytest.mark.parametrize(("ranks", "landmarks"), [(2, True), (3, False)])
def test_scrfds_distances_are_counted_in_steps_from_its_anchors(tmp_path, ranks, landmarks):
    (tmp_path / "scrfd.onnx").write_bytes(toy_scrfd(ranks, landmarks))
    detect = detectors.open_detector(tmp_path / "scrfd.onnx")
    image = np.zeros((640, 640, 3), np.uint8)  # shrunk by 2
    assert detect(image) == []
    image[2 * 168 : 2 * 176, 2 * 184 : 2 * 192, 0] = 255  # one step of 8, a quarter of one of 16
    assert detect(image) == [Box(2 * (184 - 40), 2 * (168 - 32), 2 * 64, 2 * 48)]
    image[2 * 160 : 2 * 176, 2 * 176 : 2 * 192, 0] = 255  # one step of 16 and all of 8 in it
    assert detect(image)[0] == Box(2 * (176 - 80), 2 * (160 - 64), 2 * 128, 2 * 96)
    image[2 * 160 : 2 * 192, 2 * 160 : 2 * 192, 0] = 255  # one step of 32 and all smaller ones in it
    assert detect(image)[0] == Box(0, 2 * (160 - 128), 2 * 256, 2 * 192)


@pytest.mark.parametrize(("prior", "sides"), [(0, (16, 64, 256)), (1, (32, 128, 512))])
def test_retinafaces_boxes_are_offsets_from_its_priors(tmp_path, prior, sides):
    (tmp_path / "retina.onnx").write_bytes(toy_retinaface(prior))
    detect = detectors.open_detector(tmp_path / "retina.onnx")
    image = np.zeros((640, 640, 3), np.uint8)  # shrunk by 2
    assert detect(image) == []
    for stride, side in zip((8, 16, 32), sides, strict=True):  # each holds all smaller steps
        image[2 * 160 : 2 * (160 + stride), 2 * 128 : 2 * (128 + stride)] = 200, 255, 255
        x, y = 128 + stride / 2 + 0.1 * side, 160 + stride / 2 - 0.2 * side
        assert detect(image)[0] == Box(round(2 * (x - side)), round(2 * (y - side / 2)), 4 * side, 2 * side)
    image[..., 0] = 180  # too little red
    assert detect(image) == []


@pytest.mark.parametrize("kind", ["v8", "SSD"])
@pytest.mark.parametrize("sides", [("n", 3, "height", "width"), (-1, -1, -1, -1), (1, 3, 0, 320)], ids=str)
def test_an_input_of_an_open_size_is_fixed(tmp_path, kind, sides):
    detect = toy_detector(tmp_path, kind, opened=sides)
    image = np.zeros((240, 320, 3), np.uint8)
    image[80:160, 80:160, 0] = 255
    assert detect(image) == [Box(80, 80, 80, 80)]


@pytest.mark.parametrize(
    ("sides", "fixed"),
    [
        (("n", 3, "h", "w"), (1, 3, 300, 200)),
        ((-1, -1, 0, 0), (1, 3, 300, 200)),
        ((2, 3, 64, 96), (2, 3, 64, 96)),
        ((2, "h", 96), (2, "h", 96)),
    ],
)
def test_only_open_sides_of_pictures_are_fixed(sides, fixed):
    network, wanted = (
        onnx_file(shape, [], {"a": np.zeros(300, np.float32)}, {"out": (1, "n")}) for shape in (sides, fixed)
    )
    assert with_fixed_input(network, 300, 200) == wanted


@pytest.mark.parametrize("content", [b"\x0b", b"\x3a\x7fhello", b"\xff" * 12, b"\x08"])
def test_what_is_no_protobuf_message_is_told(content):
    with pytest.raises(ValueError, match="not an ONNX file"):
        with_fixed_input(content, 1, 1)


def test_a_file_cut_short_is_told_and_numbers_of_any_width_stay():
    with pytest.raises(ValueError, match="the field at byte 3 goes beyond the end"):
        with_fixed_input(b"\x0a\x01a" + b"\x12\x05abc", 1, 1)
    numbers = b"\x09" + b"\xff" * 8 + b"\x15" + b"\xff" * 4 + b"\x08\x96\x01"  # 64 bits, 32 bits, as many as needed
    assert with_fixed_input(numbers, 1, 1) == numbers


@pytest.mark.parametrize(
    "shapes", [[(1, 6)], [(100, 7)], [(1, 300, 5)], [(1, 4, 900)], [(1, 2), (1, 4)], [(1, 9, 1)] * 6]
)
def test_outputs_of_no_known_kind_are_refused(shapes):
    with pytest.raises(ValueError, match="shape"):
        detectors._read_outputs([np.zeros(shape, np.float32) for shape in shapes], 320, 320)


def test_retinafaces_outputs_of_another_size_are_refused():
    with pytest.raises(ValueError, match="outputs of 9 rows, 4200 priors"):
        detectors._read_outputs([np.zeros((1, 9, width), np.float32) for width in (4, 2, 10)], 320, 320)


def test_an_onnx_network_that_is_no_detector_is_named(tmp_path):
    nodes = [node("AveragePool", ["picture"], "out", kernel_shape=[80, 80], strides=[80, 80])]
    (tmp_path / "net.onnx").write_bytes(onnx_file((1, 3, 320, 320), nodes, {}, {"out": (1, 3, 4, 4)}))
    with pytest.raises(faces.FaceError, match=r"net.onnx: not a face detector .*YuNet, YOLO, SCRFD, RetinaFace or SSD"):
        detectors.open_detector(tmp_path / "net.onnx")
