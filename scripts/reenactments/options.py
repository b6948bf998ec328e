"""The flags that say how to reenact: each is a field of `Options`."""

from absl import flags

from data_pipelines import faces
from toontalker_jax.media import Options
from toontalker_jax.reenactment.transfer import KINDS, MOTIONS

_TYPE = flags.DEFINE_enum("type", "r2c", list(KINDS), "Driver 2 source: r2c lets a real video drive a cartoon.")
_MOTION = flags.DEFINE_enum("motion", "relative", MOTIONS, "Relative to the driver's reference frame, or absolute.")
_REFERENCE = flags.DEFINE_string(
    "reference_frame", "0", "Relative motion: the driver's frame that has the source's pose; 'best' = the nearest one."
)
_SCALE = flags.DEFINE_float("motion_scale", 1.0, "Factor on relative motion.")
_SMOOTH = flags.DEFINE_float("smooth", 0.0, "Standard deviation, in frames, of a Gaussian over the motion codes.")
_SOURCE_CROP = flags.DEFINE_string("source_crop", "none", "none, auto (the face) or x,y,w,h in pixels.")
_DRIVING_CROP = flags.DEFINE_string("driving_crop", "none", "The same for the driver: one box for all of its frames.")
_FIT = flags.DEFINE_enum("fit", "crop", ["crop", "pad"], "What makes a picture or a box that is not square square.")
_DETECTOR = flags.DEFINE_string("detector", "", "Face detector for auto: a cascade .xml or a YuNet .onnx file.")
_CROP_SCALE = flags.DEFINE_float("crop_scale", faces.CROP_SCALE, "Side of the automatic box over that of the face.")
_PASTE_BACK = flags.DEFINE_bool("paste_back", False, "Put the result back into the whole source picture.")
_SIDE_BY_SIDE = flags.DEFINE_bool("side_by_side", False, "Show source | driver | result.")
_START = flags.DEFINE_float("start", 0.0, "Where in the driver to start, in seconds.")
_END = flags.DEFINE_float("end", None, "Where in the driver to end, in seconds.")
_MAX_FRAMES = flags.DEFINE_integer("max_frames", None, "At most so many frames of the driver.")
_SOUND = flags.DEFINE_bool("sound", True, "Copy the driver's sound into an .mp4.")
_NO_TAG = flags.DEFINE_bool("no_tag", False, "Do not say in the file that it is synthetic, and by which network.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 8, "Frames computed at once.")


def from_flags() -> Options:
    """What the flags ask for. Raises what `Options` raises."""
    number = _REFERENCE.value
    return Options(
        kind=_TYPE.value,
        motion=_MOTION.value,
        reference_frame=int(number) if number.isdecimal() else number,
        motion_scale=_SCALE.value,
        smooth=_SMOOTH.value,
        source_crop=_SOURCE_CROP.value,
        driving_crop=_DRIVING_CROP.value,
        fit=_FIT.value,
        detector=_DETECTOR.value,
        crop_scale=_CROP_SCALE.value,
        paste_back=_PASTE_BACK.value,
        side_by_side=_SIDE_BY_SIDE.value,
        start=_START.value,
        end=_END.value,
        max_frames=_MAX_FRAMES.value,
        sound=_SOUND.value,
        tag=not _NO_TAG.value,
        batch_size=_BATCH_SIZE.value,
    )
