"""The flags that say what clips shall be like: each is a field of `PuppetsConfig`, of `CutOptions` or of both."""

from absl import flags

from data_pipelines.builders import puppets
from data_pipelines.preparation.cut_options import CutOptions

_PUPPETS, _CUT = puppets.PuppetsConfig(), CutOptions()

flags.DEFINE_integer(
    "image_size", None, f"Side of the frames in pixels; {_PUPPETS.image_size} for puppets, else {_CUT.image_size}."
)
flags.DEFINE_integer(
    "jpeg_quality", _CUT.jpeg_quality, f"1 to 100, 0 is PNG. Puppets up to {puppets.PNG_UP_TO} px are always PNG."
)

flags.DEFINE_integer("seed", _PUPPETS.seed, "Puppets: seed of identities and motions.")
flags.DEFINE_integer("real_clips", _PUPPETS.real_clips, "Puppets: real training clips, an identity each.")
flags.DEFINE_integer("cartoon_clips", _PUPPETS.cartoon_clips, "Puppets: cartoon training clips.")
flags.DEFINE_integer("test_clips", _PUPPETS.test_clips, "Puppets: test clips of each domain.")
flags.DEFINE_integer("frames", _PUPPETS.frames, "Puppets: frames of a clip.")

flags.DEFINE_string(
    "crop",
    _CUT.crop,
    "auto: square frames as they are, others by the face; or face, none or x,y,w,h in pixels, whose middle is cut out.",
)
flags.DEFINE_string("detector", _CUT.detector, "Cascade .xml or .onnx network; OpenCV's cascade without it.")
flags.DEFINE_float("crop_scale", _CUT.crop_scale, "Side of the crop over that of the face.")
flags.DEFINE_integer("min_side", _CUT.min_side, "Drop smaller crops (pixels); 0: half of --image_size.")
flags.DEFINE_integer("min_frames", _CUT.min_frames, "Drop shorter clips.")
flags.DEFINE_integer("max_frames", _CUT.max_frames, "Divide longer scenes.")
flags.DEFINE_float(
    "min_face_share", _CUT.min_face_share, "Drop scenes in which fewer of the looks than this share find a face."
)
