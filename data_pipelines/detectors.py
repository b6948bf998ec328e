"""Face detectors: OpenCV's cascades and ONNX networks. Pictures and boxes are those of `faces`."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from data_pipelines import transforms
from data_pipelines.faces import Box, Detector, FaceError
from data_pipelines.onnx_input import with_fixed_input

# Takes fewer textures for faces than frontalface_default (1 to 5 in ten). Finds heads rolled by 10°, few by 20°.
_CASCADE = "haarcascade_frontalface_alt2.xml"
_HAAR_SIDE, _HAAR_SMALLEST = 640, 16  # Longest side searched, and that side over the smallest face's.
_YUNET_SIDE = 320  # YuNet is trained for faces of about 10 to 300 pixels, so this finds a close-up and a small face.
_YUNET_SCORE = 0.8
# Width and height of other networks' input: the first that the network takes. Those of an open size get the first.
_SIZES = (640, 640), (320, 320), (416, 416), (320, 240), (640, 480), (160, 160)
_SCORE, _OVERLAP = 0.5, 0.45
_FEW = 1000  # A YOLO network's grids at most sizes have more rows than this, its own choice of them has fewer.
_STRIDES = 8, 16, 32  # of SCRFD's and RetinaFace's grids
_RETINA_SIDES = (16, 32), (64, 128), (256, 512)  # of RetinaFace's priors, two a step of each grid
_RETINA_VARIANCES = 0.1, 0.2
_KINDS = "a cascade (.xml) or a network (.onnx: YuNet, YOLO, SCRFD, RetinaFace or SSD)"


def open_detector(path: str | os.PathLike = "") -> Detector:
    """Opens a face detector: uint8 [H, W, 3] RGB -> the boxes of the faces, largest first; none: an empty list.

    "" is OpenCV's bundled cascade for frontal faces, *.xml another cascade, *.onnx a network, told by its outputs:

    - YuNet's twelve;
    - one, as YOLO networks have it: [1, 4 + C, N] (v8 and after) or [1, N, 5 + C] (v5), a row being the box's middle
      and size in pixels of the input and then a score, which is that of the first class or of any object; or
      [1, N, 6 or more], N at most 1000, of those that choose among boxes themselves (v10, or exported with NMS), a row
      being corners, score, class;
    - six or nine: SCRFD's scores [N, 1] and distances [N, 4], in steps of 8, 16 and 32 pixels from two anchors a step,
      perhaps with landmarks [N, 10];
    - three: RetinaFace's boxes [1, N, 4], offsets from two square priors a step of the same grids, scores [1, N, 2]
      and landmarks [1, N, 10], as its PyTorch version exports them;
    - two: scores [1, N, 2], the second the face's, and boxes [1, N, 4], the corners as shares of the input (SSD, as
      UltraFace has it).

    A network sees RGB scaled as its kind is trained with (RetinaFace BGR). If its file leaves the input's size open, it
    gets 640 × 640.

    The search shrinks the picture, so that its cost is bounded: to 640 pixels of the longer side for a cascade, whose
    faces have at least 1/16 of it, to 320 for YuNet, with faces from about 1/32, and to other networks' input.

    Raises:
      FaceError: at once if the file is missing, of another kind or cannot be read.
    """
    path = Path(path or Path(cv2.data.haarcascades, _CASCADE)).expanduser()
    openers = {".xml": _open_cascade, ".onnx": _open_network}
    opener = openers.get(path.suffix.lower())
    if opener is None:
        raise FaceError(f"{path}: not a face detector: pass {_KINDS}")
    if not path.is_file():
        raise FaceError(f"{path}: no such file: pass {_KINDS}, or no path (bundled)")
    return opener(path)


def _open_cascade(path: Path) -> Detector:
    cascade = cv2.CascadeClassifier()
    try:
        loaded = cascade.load(str(path))
    except cv2.error:
        loaded = False
    if not loaded:
        raise FaceError(f"{path}: not a cascade that OpenCV can read: pass another or no path (bundled)")
    # Equalized by parts, pale and dark faces are found alike; as a whole, a bright wall costs the face its contrast.
    equalizer = cv2.createCLAHE(clipLimit=2, tileGridSize=(8, 8))

    def detect(image: np.ndarray) -> list[Box]:
        small = _shrunk(image, _HAAR_SIDE, _HAAR_SIDE)
        smallest = max(small.shape[:2]) // _HAAR_SMALLEST
        grey = equalizer.apply(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY))
        found = cascade.detectMultiScale(grey, scaleFactor=1.1, minNeighbors=3, minSize=(smallest, smallest))
        return _boxes(found, image, small)

    return detect


def _open_network(path: Path) -> Detector:
    with _quiet():
        with contextlib.suppress(cv2.error):  # Another network than YuNet opens as well and fails when it looks.
            return _open_yunet(path)
        for size in _SIZES:
            with contextlib.suppress(cv2.error, ValueError):  # Read anew: what a size did not fit stays broken.
                return _open_boxes(path, *size)
    raise FaceError(f"{path}: not a face detector that OpenCV can read: pass {_KINDS}, or no path (bundled)")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """OpenCV prints what it cannot read, beside raising it."""
    level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(level)


def _open_yunet(path: Path) -> Detector:
    # One size for all pictures, the rest black: some exports of the network take no other.
    canvas = np.zeros((_YUNET_SIDE, _YUNET_SIDE, 3), np.uint8)
    network = cv2.FaceDetectorYN.create(str(path), "", (_YUNET_SIDE, _YUNET_SIDE), _YUNET_SCORE)
    network.detect(canvas)

    def detect(image: np.ndarray) -> list[Box]:
        small = _shrunk(image, _YUNET_SIDE, _YUNET_SIDE)
        canvas[:] = 0
        canvas[: small.shape[0], : small.shape[1]] = small[..., ::-1]  # RGB -> BGR
        _, found = network.detect(canvas)
        return _boxes([] if found is None else found[:, :4], image, small)

    return detect


def _open_boxes(path: Path, width: int, height: int) -> Detector:
    network = cv2.dnn.readNetFromONNX(np.frombuffer(with_fixed_input(path.read_bytes(), height, width), np.uint8))
    names = network.getUnconnectedOutLayersNames()
    canvas = np.zeros((height, width, 3), np.uint8)
    if len(names) == 3:  # RetinaFace: BGR less the means of its training pictures
        scaling = {"scalefactor": 1, "mean": (104, 117, 123), "swapRB": True}
    else:  # YOLO: 0 … 1; the others: -1 … 1
        scaling = {"scalefactor": 1 / 255} if len(names) == 1 else {"scalefactor": 1 / 128, "mean": (127, 127, 127)}

    def look() -> tuple[np.ndarray, np.ndarray]:
        network.setInput(cv2.dnn.blobFromImage(canvas, **scaling))
        return _read_outputs(network.forward(names), width, height)

    look()

    def detect(image: np.ndarray) -> list[Box]:
        small = _shrunk(image, width, height)
        canvas[:] = 0
        canvas[: small.shape[0], : small.shape[1]] = small
        boxes, scores = look()
        chosen = cv2.dnn.NMSBoxes(boxes.tolist(), scores.tolist(), _SCORE, _OVERLAP)
        return _boxes([boxes[i] for i in chosen], image, small)

    return detect


def _read_outputs(outputs: Sequence[np.ndarray], width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Boxes [N, 4], upper left corner and size in pixels, and scores [N]. Raises ValueError for other outputs."""
    ranks = {output.ndim for output in outputs}
    tables = [output[0] if output.ndim == 3 and len(output) == 1 else output for output in outputs]
    if any(table.ndim != 2 for table in tables) or (2 in ranks and len(outputs) < 6):  # only SCRFD's may lack the batch
        raise ValueError(f"outputs of shapes {[output.shape for output in outputs]}")
    widths = sorted(table.shape[1] for table in tables)
    if len(tables) == 1:
        return _read_yolo(tables[0])
    if widths == [2, 4]:
        by_width = {table.shape[1]: table for table in tables}
        return _from_corners(by_width[4] * np.array([width, height, width, height], np.float32)), by_width[2][:, 1]
    if widths == [2, 4, 10]:
        return _read_retinaface({table.shape[1]: table for table in tables}, width, height)
    if widths in ([1, 1, 1, 4, 4, 4], [1, 1, 1, 4, 4, 4, 10, 10, 10]):
        return _read_scrfd(tables, width, height)
    raise ValueError(f"outputs of shapes {[output.shape for output in outputs]}")


def _read_yolo(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    rows = table if len(table) > table.shape[1] else table.T
    few = rows is table and len(rows) <= _FEW
    if rows.shape[1] < (6 if few else 5):
        raise ValueError(f"an output of shape {table.shape}")
    if few:
        return _from_corners(rows[:, :4]), rows[:, 4]
    size = rows[:, 2:4]
    return np.concatenate([rows[:, :2] - size / 2, size], axis=1), rows[:, 4]


def _read_scrfd(tables: Sequence[np.ndarray], width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    boxes, scores = [], []
    for stride in _STRIDES:
        anchors = _anchors(stride, width, height)
        found = {table.shape[1]: table for table in tables if len(table) == len(anchors)}
        if not {1, 4} <= set(found):
            raise ValueError(f"no scores and boxes of {len(anchors)} anchors")
        before, after = stride * found[4][:, :2], stride * found[4][:, 2:]
        boxes.append(np.concatenate([anchors - before, before + after], axis=1))
        scores.append(found[1][:, 0])
    return np.concatenate(boxes), np.concatenate(scores)


def _read_retinaface(tables: dict[int, np.ndarray], width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Of tables by their widths."""
    middles, sides = [], []
    for stride, two in zip(_STRIDES, _RETINA_SIDES, strict=True):
        middles.append(_anchors(stride, width, height) + stride / 2)
        sides.append(np.resize(np.float32(two), (len(middles[-1]), 1)))
    middle, side = np.concatenate(middles), np.concatenate(sides)
    if {len(table) for table in tables.values()} != {len(middle)}:
        raise ValueError(f"outputs of {len(tables[4])} rows, {len(middle)} priors")
    by_place, by_size = _RETINA_VARIANCES
    size = side * np.exp(by_size * tables[4][:, 2:])
    corner = middle + by_place * side * tables[4][:, :2] - size / 2
    return np.concatenate([corner, size], axis=1), tables[2][:, 1]


def _anchors(stride: int, width: int, height: int) -> np.ndarray:
    """Upper left corners (x, y) of a grid's steps, row by row, each twice: [N, 2]."""
    corners = np.stack(np.meshgrid(np.arange(0, width, stride), np.arange(0, height, stride)), axis=-1)
    return np.repeat(corners.reshape(-1, 2), 2, axis=0)


def _from_corners(corners: np.ndarray) -> np.ndarray:
    return np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)


def _shrunk(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """The picture, made so small that it fits within width × height."""
    factor = min(1, width / image.shape[1], height / image.shape[0])
    return transforms.resize(image, *(max(1, round(factor * length)) for length in image.shape[:2]))


def _boxes(found: Sequence[Sequence[float]], image: np.ndarray, small: np.ndarray) -> list[Box]:
    """What was found in the shrunk picture, in the pixels of the full one, largest first."""
    down, across = image.shape[0] / small.shape[0], image.shape[1] / small.shape[1]
    boxes = [Box(round(x * across), round(y * down), round(w * across), round(h * down)) for x, y, w, h in found]
    # Equal ones by place: a cascade's threads find them in any order.
    return sorted((box for box in boxes if min(box[2:]) > 0), key=lambda box: (-box.width * box.height, box))
