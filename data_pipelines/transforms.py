"""Image transforms: numpy in, numpy out, 8-bit RGB."""

import cv2
import numpy as np


def decode(data: bytes, on_white: bool = False) -> np.ndarray:
    """Decodes a JPEG, PNG or other still image to uint8 [H, W, 3] RGB.

    `on_white` lays it on white where it is transparent; otherwise whatever colours are hidden there show.

    Raises:
      ValueError: the bytes are no image that OpenCV can read.
    """
    array = np.frombuffer(data, np.uint8)
    try:
        image = cv2.imdecode(array, cv2.IMREAD_COLOR_RGB) if array.size else None
    except cv2.error:  # as of a picture with more pixels than OpenCV takes
        image = None
    if image is None:
        raise ValueError(f"not an image that can be decoded ({len(data)} bytes)")
    return _on_white(image, array) if on_white and _has_alpha(data) else image


def is_animated(data: bytes) -> bool:
    """Whether a PNG's or WebP's header announces more than one picture."""
    if data.startswith(b"\x89PNG"):
        return b"acTL" in data[: data.find(b"IDAT")]
    return data[8:16] == b"WEBPVP8X" and bool(data[20] & 2)


def _has_alpha(data: bytes) -> bool:
    """Whether a PNG's or WebP's header speaks of transparency; nobody else here has it. A second decoding is slow."""
    if data.startswith(b"\x89PNG"):
        return data[25] in (4, 6) or b"tRNS" in data[: data.find(b"IDAT")]  # colour types with alpha; a palette's
    return data[8:16] == b"WEBPVP8L" or (data[8:16] == b"WEBPVP8X" and bool(data[20] & 16))


def _on_white(image: np.ndarray, data: np.ndarray) -> np.ndarray:
    stored = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    if stored is None or stored.ndim != 3 or stored.shape != (*image.shape[:2], 4):
        return image
    # A picture that is turned by its EXIF data stays as it is: its transparency would have to be turned, too.
    if not np.array_equal(image, cv2.imdecode(data, cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)):
        return image
    opaque = stored[..., 3:].astype(np.float32) / np.iinfo(stored.dtype).max
    return np.rint(255 + (image - np.float32(255)) * opaque).astype(np.uint8)


def encode_png(image: np.ndarray) -> bytes:
    """Encodes uint8 [H, W, 3] RGB as PNG, without loss."""
    return _encode(image, ".png", [])


def encode_jpeg(image: np.ndarray, quality: int) -> bytes:
    """Encodes uint8 [H, W, 3] RGB as JPEG; `quality` 1 to 100. Colour keeps its full resolution (4:4:4)."""
    full_colour = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    return _encode(image, ".jpg", [cv2.IMWRITE_JPEG_QUALITY, quality, *full_colour])


def _encode(image: np.ndarray, suffix: str, options: list[int]) -> bytes:
    done, data = cv2.imencode(suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
    if not done:
        raise ValueError(f"an image of shape {image.shape} cannot be written as {suffix}")
    return data.tobytes()


def center_crop_square(image: np.ndarray) -> np.ndarray:
    """Crops [H, W, C] to the central square of side min(H, W); of an odd rest the larger half is cut below/right."""
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return image[top : top + side, left : left + side]


def pad_square(image: np.ndarray) -> np.ndarray:
    """Pads [H, W, C] to a square of side max(H, W) by repeating the edges; an odd rest goes below/right."""
    height, width = image.shape[:2]
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    edges = (top, side - height - top), (left, side - width - left), (0, 0)
    return np.pad(image, edges, mode="edge")


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resizes uint8 [H, W, 3]: by area averaging when both sides shrink or stay (no aliasing), else bicubic."""
    if image.shape[:2] == (height, width):
        return image
    shrinks = height <= image.shape[0] and width <= image.shape[1]
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)


def to_square(image: np.ndarray, size: int) -> np.ndarray:
    """The central square of uint8 [H, W, 3], resized to [size, size, 3]."""
    return resize(center_crop_square(image), size, size)


def to_uint8(image: np.ndarray) -> np.ndarray:
    """Maps [-1, 1] to uint8: round(clip((x + 1) * 127.5, 0, 255)). Any shape."""
    scaled = (np.asarray(image, np.float32) + np.float32(1)) * np.float32(127.5)
    return np.round(np.clip(scaled, 0, 255)).astype(np.uint8)
