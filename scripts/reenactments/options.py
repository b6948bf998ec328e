"""The flags that say how to reenact, named as the fields of `Options` but for --type, a kind, and --no_tag."""

from absl import flags

from scripts.option_flags import from_flags
from toontalker_jax.media import Options
from toontalker_jax.reenactment.transfer import KINDS, MOTIONS

_DEFAULT = Options()

_TYPE = flags.DEFINE_enum("type", _DEFAULT.kind, list(KINDS), "Driver 2 source: r2c lets a real video drive a cartoon.")
flags.DEFINE_enum("motion", _DEFAULT.motion, MOTIONS, "Relative to the driver's reference frame, or absolute.")
_REFERENCE = flags.DEFINE_string(
    "reference_frame",
    str(_DEFAULT.reference_frame),
    "Relative motion: the driver's frame that has the source's pose; 'best' = the nearest one.",
)
flags.DEFINE_float("motion_scale", _DEFAULT.motion_scale, "Factor on relative motion.")
flags.DEFINE_float("smooth", _DEFAULT.smooth, "Standard deviation, in frames, of a Gaussian over the motion codes.")
flags.DEFINE_string("source_crop", _DEFAULT.source_crop, "none, auto (the face) or x,y,w,h in pixels.")
flags.DEFINE_string("driving_crop", _DEFAULT.driving_crop, "The same for the driver: one box for all of its frames.")
flags.DEFINE_enum("fit", _DEFAULT.fit, ["crop", "pad"], "What makes a picture or a box that is not square square.")
flags.DEFINE_string("detector", _DEFAULT.detector, "Face detector for auto: a cascade .xml or an .onnx network.")
flags.DEFINE_float("crop_scale", _DEFAULT.crop_scale, "Side of the automatic box over that of the face.")
flags.DEFINE_bool("paste_back", _DEFAULT.paste_back, "Put the result back into the whole source picture.")
flags.DEFINE_bool("side_by_side", _DEFAULT.side_by_side, "Show source | driver | result.")
flags.DEFINE_float("start", _DEFAULT.start, "Where in the driver to start, in seconds.")
flags.DEFINE_float("end", _DEFAULT.end, "Where in the driver to end, in seconds.")
flags.DEFINE_integer("max_frames", _DEFAULT.max_frames, "At most so many frames of the driver.")
flags.DEFINE_bool("sound", _DEFAULT.sound, "Copy the driver's sound into an .mp4.")
_NO_TAG = flags.DEFINE_bool("no_tag", False, "Do not say in the file that it is synthetic, and by which network.")
flags.DEFINE_integer("batch_size", _DEFAULT.batch_size, "Frames computed at once.")


def asked() -> Options:
    """What the flags ask for. Raises what `Options` raises."""
    number = _REFERENCE.value
    reference = int(number) if number.isdecimal() else number
    return from_flags(Options, kind=_TYPE.value, reference_frame=reference, tag=not _NO_TAG.value)
