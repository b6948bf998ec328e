"""What clips of an input shall be like."""

import dataclasses
import math

from data_pipelines import detectors, faces

CROPS = ("auto", "face", "none")


@dataclasses.dataclass(frozen=True)
class CutOptions:
    """How items become clips.

    Attributes:
      image_size: side of the written frames in pixels.
      crop: "auto" takes square frames as they are and cuts others by the face; "face" cuts all by the face; "none"
        takes the central square, "x,y,width,height" that of this box in pixels of the input.
      detector: a file for `detectors.open_detector`, a cascade (.xml) or a network (.onnx); "" is OpenCV's own cascade.
      crop_scale: side of the crop over that of the face, 1 or more.
      min_side: crops with a smaller side, in pixels of the input, are dropped rather than enlarged; 0 is half of
        image_size, rounded down.
      min_frames: shorter clips are dropped, except for those of single images.
      max_frames: longer scenes of raw items are divided into clips of about equal length; at least
        2 * min_frames - 1, so that no part is too short.
      min_face_share: of the looks at a scene, and at a clip, the share that has to find the face, 0 to 1.
      jpeg_quality: 1 to 100; 0 is PNG.

    Raises:
      ValueError: a value out of range, or a detector that cannot be opened.
    """

    image_size: int = 256
    crop: str = "auto"
    detector: str = ""
    crop_scale: float = faces.CROP_SCALE
    min_side: int = 0
    min_frames: int = 2
    max_frames: int = 1024
    min_face_share: float = 0.5
    jpeg_quality: int = 95

    @property
    def by_face(self) -> bool:
        """Whether a detector may be needed."""
        return self.crop in ("auto", "face")

    def __post_init__(self) -> None:
        if self.crop not in CROPS:
            try:
                faces.parse_box(self.crop)
            except faces.FaceError as error:
                raise ValueError(f"crop is {self.crop!r}: choose {', '.join(CROPS)} or a box ({error})") from None
        ends = {"image_size": (1, None), "min_side": (0, None), "min_frames": (1, None), "jpeg_quality": (0, 100)}
        for name, (low, high) in ends.items():
            value = getattr(self, name)
            if not (isinstance(value, int) and low <= value <= (value if high is None else high)):
                raise ValueError(f"{name} is {value}: use a whole number from {low}{f' to {high}' if high else ' on'}")
        if not (isinstance(self.max_frames, int) and self.max_frames >= 2 * self.min_frames - 1):
            least = 2 * self.min_frames - 1
            raise ValueError(
                f"max_frames is {self.max_frames}: use {least} or more with min_frames = {self.min_frames}, "
                "or the parts of a longer scene would be too short"
            )
        if not 1 <= self.crop_scale < math.inf:
            raise ValueError(f"crop_scale is {self.crop_scale}: use a number from 1 on")
        if not 0 <= self.min_face_share <= 1:
            raise ValueError(f"min_face_share is {self.min_face_share}: use 0 to 1")
        if self.detector:
            try:
                detectors.open_detector(self.detector)
            except faces.FaceError as error:
                raise ValueError(f"detector is {error}") from None
