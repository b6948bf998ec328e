"""Lets videos move pictures.

    python scripts/reenact.py --checkpoint DIR --source_path IMAGE --driving_path VIDEO --save_path OUT.mp4 --type r2c

The driver is a video, a GIF, a folder of frames, an image, or a motion template of --save_motion (.npz); OUT ends in
.mp4 or .gif, or in nothing for a folder of PNG files. Frame rate, timestamps and sound are the driver's. A folder of
pictures as source, a folder of videos as driver, or a quoted pattern ('clips/*.mp4') means every source with every
driver; OUT is then a folder of <source>--<driver>.mp4 files.
"""

import functools
import glob
import itertools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import tqdm
from absl import app, flags, logging

from data_pipelines import faces, video, video_writer
from toontalker_jax.media import Driver, Options, Source, open_driver, open_source
from toontalker_jax.reenactment.templates import TEMPLATE_SUFFIX, save_template
from toontalker_jax.reenactment.transfer import KINDS, MOTIONS
from toontalker_jax.video_reenactor import VideoReenactor

_CHECKPOINT = flags.DEFINE_string("checkpoint", None, "Checkpoint folder, or the workdir of a training.", required=True)
_SOURCE = flags.DEFINE_string("source_path", None, "Picture to move; or a folder or pattern of them.", required=True)
_DRIVING = flags.DEFINE_string("driving_path", None, "What to follow; or a folder or pattern.", required=True)
_SAVE = flags.DEFINE_string("save_path", None, "Where to write: .mp4, .gif, or no suffix for a folder.")
_OUTPUT_DIR = flags.DEFINE_string("output_dir", None, "In place of --save_path: the folder of <source>--<driver>.mp4.")
_SIZE = flags.DEFINE_integer("size", None, "The network's size in pixels, if it shall be checked.")
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
_SAVE_MOTION = flags.DEFINE_string("save_motion", None, "Keep the driver's motion in this .npz file.")
_NO_TAG = flags.DEFINE_bool("no_tag", False, "Do not say in the file that it is synthetic, and by which network.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 8, "Frames computed at once.")
_DTYPE = flags.DEFINE_enum("dtype", None, ["float32", "bfloat16", "float16"], "Compute in this instead.")
_CACHE = flags.DEFINE_string("cache", "~/.cache/toontalker-jax", "Keeps compiled programs; '' = compile each time.")

Pair = tuple[Path, Path]  # paths of a source and a driver


def options() -> Options:
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


def find(pattern: str, suffixes: Sequence[str]) -> tuple[list[Path], bool]:
    """The inputs that a path, a folder or a glob names, in natural order, and whether it may name several.

    A folder stands for its files with these suffixes; without any it is one input (a folder of frames).
    """
    path, found = Path(pattern), []
    if path.is_dir():
        found = [file for file in path.iterdir() if file.suffix.lower() in suffixes and not file.name.startswith(".")]
        if found and suffixes != video.IMAGE_SUFFIXES and video.frame_files(path):
            raise ValueError(f"{path}: holds videos and pictures: one driver or several? Name a pattern.")
    elif not path.exists() and glob.has_magic(pattern):
        found = list(map(Path, glob.glob(pattern, recursive=True)))
        if not found:
            raise FileNotFoundError(f"{pattern}: no file fits the pattern")
    return (sorted(found, key=lambda path: video.natural_key(str(path))), True) if found else ([path], False)


def plan() -> tuple[list[Path], list[Path], dict[Pair, Path]]:
    """Sources, drivers and where each pair is written."""
    sources, several_sources = find(_SOURCE.value, video.IMAGE_SUFFIXES)
    drivers, several_drivers = find(_DRIVING.value, (*video.VIDEO_SUFFIXES, TEMPLATE_SUFFIX))
    if (_SAVE.value is None) == (_OUTPUT_DIR.value is None):
        raise ValueError("say where to write: one of --save_path and --output_dir.")
    pairs, save = list(itertools.product(sources, drivers)), Path(_SAVE.value or _OUTPUT_DIR.value)
    outputs = {pairs[0]: save}
    if several_sources or several_drivers or _OUTPUT_DIR.value:
        if save.suffix and not save.is_dir():
            raise ValueError(f"{save}: several results go into a folder: name one without a suffix.")
        outputs = {(source, driver): save / f"{source.stem}--{driver.stem}.mp4" for source, driver in pairs}
        names = list(outputs.values())
        if twice := sorted({str(name) for name in names if names.count(name) > 1}):
            raise ValueError(f"{twice[0]}: would be written twice: two inputs have the same name but for the suffix.")
    inputs = {path.resolve() for path in (*sources, *drivers)}
    for output in (*outputs.values(), *([Path(_SAVE_MOTION.value)] if _SAVE_MOTION.value else [])):
        if output.resolve() in inputs:
            raise ValueError(f"{output}: would overwrite an input: choose another --save_path or --save_motion.")
    return sources, drivers, outputs


def check_save_motion(drivers: Sequence[Path]) -> None:
    """Raises ValueError if the motion cannot be kept where --save_motion says."""
    path = Path(_SAVE_MOTION.value)
    if path.suffix != TEMPLATE_SUFFIX or path.is_dir() or not path.absolute().parent.is_dir():
        raise ValueError(f"--save_motion={path}: must end in {TEMPLATE_SUFFIX}, in a folder that exists.")
    if len(drivers) > 1 or drivers[0].suffix == TEMPLATE_SUFFIX:
        raise ValueError(f"--save_motion keeps the motion of one video, not of {_DRIVING.value}.")


def run() -> list[str]:
    """Reenacts every pair. What fails for one of several is told, and the others go on. Returns what failed."""
    asked, (source_paths, driver_paths, outputs) = options(), plan()
    failures: list[str] = []

    def attempt(function: Callable, *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except (ValueError, OSError) as error:
            if len(outputs) == 1:
                raise
            failures.append(str(error))
            print(f"error: {error}", file=sys.stderr)
            return None

    def output_fits(source: Source, driver: Driver) -> bool:
        sound = driver.sound if asked.sound else None
        video_writer.check(outputs[source.path, driver.path], driver.frame_rate, driver.times, sound)
        return True

    if _SAVE_MOTION.value:
        check_save_motion(driver_paths)
    sources = [source for path in source_paths if (source := attempt(open_source, path, asked))]
    drivers = [driver for path in driver_paths if (driver := attempt(open_driver, path, asked))]
    pairs = [pair for pair in itertools.product(drivers, sources) if attempt(output_fits, *reversed(pair))]
    if not pairs:
        return failures
    progress = functools.partial(tqdm.tqdm, unit="frame")
    reenactor = VideoReenactor(_CHECKPOINT.value, asked, dtype=_DTYPE.value, progress=progress)
    if _SIZE.value not in (None, reenactor.config.image_size):
        raise ValueError(f"--size={_SIZE.value}, but the network's is {reenactor.config.image_size}.")
    for driver, group in itertools.groupby(pairs, key=lambda pair: pair[0]):
        motion = None
        if len(sources) > 1 or _SAVE_MOTION.value or driver.template:
            motion = attempt(reenactor.motion, driver)
            if motion is None:
                continue
        if _SAVE_MOTION.value:
            save_template(_SAVE_MOTION.value, motion)
        for _, source in group:
            if written := attempt(reenactor.write, source, driver, outputs[source.path, driver.path], motion):
                print(written)
    return failures


def main(argv: list[str]) -> None:
    logging.set_verbosity(logging.ERROR)  # Orbax tells of its every step
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {' '.join(argv[1:])}; quote a pattern: 'clips/*.mp4'")
    if _CACHE.value and not jax.config.jax_compilation_cache_dir:  # set already by JAX_COMPILATION_CACHE_DIR
        jax.config.update("jax_compilation_cache_dir", str(Path(_CACHE.value).expanduser()))
    try:
        failures = run()
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from None
    if failures:
        raise SystemExit(f"{len(failures)} failed: see above")


if __name__ == "__main__":
    app.run(main)
