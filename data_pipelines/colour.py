"""RGB from and to the pixel formats of video files, by named matrices and ranges, so that colours do not shift.

Transfer curves and primaries are left alone, as players do: the numbers of the picture are taken as sRGB.
"""

import functools
from pathlib import Path

import av
import numpy as np
from absl import logging
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, Interpolation

# What the frames of `to_bt709` are, as settings of a PyAV stream.
BT709_TAGS = dict(
    colorspace=1,  # AVCOL_SPC_BT709
    color_range=ColorRange.MPEG.value,
    color_primaries=ColorPrimaries.BT709.value,
    color_trc=ColorTrc.BT709.value,
)
# Bicubic chroma and exact rounding.
_CONVERSION = (
    Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP
)
_HIGH_DEFINITION = 720  # From this height on, a video that names no matrix is taken as BT.709, else as BT.601.
# The number that a frame names (AVColorSpace) → its matrix. All others follow the rule above.
_MATRICES = {
    1: Colorspace.ITU709,
    4: Colorspace.FCC,
    5: Colorspace.ITU601,
    6: Colorspace.ITU601,
    7: Colorspace.SMPTE240M,
    9: Colorspace.BT2020,
}


_HDR = (16, 18)  # AVColorTransferCharacteristic: PQ (SMPTE 2084) and HLG (ARIB B67)


def warn_of_hdr(path: Path, frame: av.VideoFrame) -> None:
    """Logs one warning a file whose frame names a transfer curve of HDR, since `to_rgb` makes it flat."""
    if frame.color_trc in _HDR:
        _warn_of_hdr(path)


@functools.cache
def _warn_of_hdr(path: Path) -> None:
    logging.warning("%s: HDR video is not tone-mapped and comes out flat: convert it to SDR first", path)


def to_rgb(frame: av.VideoFrame) -> np.ndarray:
    """Converts a frame of any pixel format to uint8 [H, W, 3] RGB, by the matrix and range that it names."""
    if frame.format.is_rgb or frame.format.name == "pal8":
        return frame.to_ndarray(format="rgb24")
    unnamed = Colorspace.ITU709 if frame.height >= _HIGH_DEFINITION else Colorspace.ITU601
    full = frame.color_range == ColorRange.JPEG
    converted = frame.reformat(
        format="rgb24",
        src_colorspace=_MATRICES.get(frame.colorspace, unnamed),
        src_color_range=ColorRange.JPEG if full else ColorRange.MPEG,
        dst_color_range=ColorRange.JPEG,
        interpolation=_CONVERSION,
    )
    return converted.to_ndarray()


def to_bt709(frame: av.VideoFrame) -> av.VideoFrame:
    """Converts an rgb24 frame to yuv420p by BT.709 in the limited range; the sides are even."""
    return frame.reformat(
        format="yuv420p",
        src_color_range=ColorRange.JPEG,
        dst_color_range=ColorRange.MPEG,
        dst_colorspace=Colorspace.ITU709,
        interpolation=_CONVERSION,
    )
