"""Lets videos move pictures.

    python scripts/reenact.py --checkpoint DIR --source_path IMAGE --driving_path VIDEO --save_path OUT.mp4 --type r2c

The driver is a video, a GIF, a folder of frames, an image, or a motion template of --save_motion (.npz); OUT ends in
.mp4 or .gif, or in nothing for a folder of PNG files. Frame rate, timestamps and sound are the driver's. A folder of
pictures as source, a folder of videos as driver, or a quoted pattern ('clips/*.mp4') means every source with every
driver; OUT is then a folder of <source>--<driver>.mp4 files.
"""

import contextlib
import itertools
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tqdm
from absl import app, flags, logging

from data_pipelines import faces, transforms, video, video_writer
from scripts import reenact_inputs
from scripts.reenact_inputs import Cropping, Driver, Source
from toontalker_jax.checkpoints import load_model
from toontalker_jax.reenactment.smoothing import smooth
from toontalker_jax.reenactment.templates import MotionTemplate, check_template, network_hash, save_template
from toontalker_jax.reenactment.transfer import KINDS, MOTIONS, Reenactor

_CHECKPOINT = flags.DEFINE_string("checkpoint", None, "Checkpoint folder, or the workdir of a training.", required=True)
_SOURCE = flags.DEFINE_string("source_path", None, "Picture to move; or a folder or pattern of them.", required=True)
_DRIVING = flags.DEFINE_string("driving_path", None, "What to follow; or a folder or pattern.", required=True)
_SAVE = flags.DEFINE_string("save_path", None, "Where to write: .mp4, .gif, or no suffix for a folder.", required=True)
_TYPE = flags.DEFINE_enum("type", "r2c", list(KINDS), "Driver 2 source: r2c lets a real video drive a cartoon.")
_MOTION = flags.DEFINE_enum("motion", "relative", MOTIONS, "Relative to the driver's reference frame, or absolute.")
_REFERENCE = flags.DEFINE_string(
    "reference_frame", "0", "Relative motion: the driver's frame that has the source's pose; 'best' = the nearest one."
)
_SCALE = flags.DEFINE_float("motion_scale", 1.0, "Factor on relative motion.", lower_bound=0)
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
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 8, "Frames computed at once.", lower_bound=1)
_DTYPE = flags.DEFINE_enum("dtype", None, ["float32", "bfloat16", "float16"], "Compute in this instead.")
_CACHE = flags.DEFINE_string("cache", "~/.cache/toontalker-jax", "Keeps compiled programs; '' = compile each time.")

COMMENT = "Synthetic: face reenactment by ToonTalker-JAX, network {}"


class Layout:
    """What a frame of the output shows: the result alone, in the whole source picture, or beside source and driver."""

    def __init__(self, source: Source, size: int, even: bool):
        self._source, self._size, self._even = source, size, even
        self._left = source.picture if _PASTE_BACK.value else source.view(size)
        self.shape = (0, 0)  # height, width of the last frame

    def __call__(self, result: np.ndarray, view: np.ndarray | None) -> np.ndarray:
        """result and the driver's view, uint8 [S, S, 3] → uint8 [H, W, 3], even sides if an mp4 needs them."""
        if _PASTE_BACK.value:
            result = faces.paste_back(self._source.picture, self._source.box, result)
        if _SIDE_BY_SIDE.value:
            height = result.shape[0]
            result = np.concatenate([self._left, transforms.resize(view, height, height), result], axis=1)
        if self._even:
            result = result[: result.shape[0] // 2 * 2, : result.shape[1] // 2 * 2]
        self.shape = result.shape[:2]
        return result


class Session:
    """One loaded network, and what the options ask of it."""

    def __init__(self) -> None:
        model = load_model(_CHECKPOINT.value, dtype=_DTYPE.value)
        self._config, self._hash = model.config, network_hash(model)
        self._reenactor = Reenactor(model, _TYPE.value, _MOTION.value, _BATCH_SIZE.value, _SCALE.value)

    def codes(self, driver: Driver) -> np.ndarray:
        """The motion of the whole driver, float32 [F, K, d]."""
        config, domain = self._config, KINDS[_TYPE.value][0]
        if driver.template:
            check_template(driver.template, domain, self._hash, (config.motion_slots, config.width))
            return driver.template.codes
        codes = self._reenactor.codes(driver.views(config.image_size))
        codes = np.stack(list(tqdm.tqdm(codes, "motion", driver.num_frames, unit="frame")))
        if _SAVE_MOTION.value:
            section = driver.section
            template = MotionTemplate(codes, domain, self._hash, section.frame_rate, section.times)
            save_template(_SAVE_MOTION.value, template)
        return codes

    def reenact(self, source: Source, driver: Driver, output: Path, codes: np.ndarray | None) -> str:
        """Writes one result; returns a line that says what was written. `codes`: the driver's, None = as they come."""
        size, count, start, first = self._config.image_size, 0, time.monotonic(), 0.0
        self._reenactor.prepare(source.view(size))
        views = driver.views(size) if driver.section else itertools.repeat(None)
        if codes is None:
            views, seen = itertools.tee(views) if _SIDE_BY_SIDE.value else (itertools.repeat(None), views)
            codes = self._reenactor.codes(seen)
        else:
            self._set_reference(codes, driver.path)
            views = views if _SIDE_BY_SIDE.value else itertools.repeat(None)
        layout = Layout(source, size, even=output.suffix.lower() == ".mp4")
        with open_output(output, driver, "" if _NO_TAG.value else COMMENT.format(self._hash[:16])) as writer:
            rendered = tqdm.tqdm(
                self._reenactor.render(smooth(codes, _SMOOTH.value)), output.name, driver.num_frames, unit="frame"
            )
            for result, view in zip(rendered, views, strict=False):
                first = first or time.monotonic()
                writer.write(layout(result, view))
                count += 1
        end = time.monotonic()
        what = "{1}×{0}".format(*layout.shape) + f" at {float(driver.timing.frame_rate):g} frames/s"
        speed = f", then {(count - 1) / (end - first):.1f} frames/s" if count > 1 else ""
        when = f"in {end - start:.1f} s (the first after {first - start:.1f} s{speed})"
        return f"{output}: {count} frames of {what} {when}"

    def _set_reference(self, codes: np.ndarray, path: Path) -> None:
        if _REFERENCE.value == "best":
            number = self._reenactor.nearest(codes)
            print(f"{path}: reference frame {number}")
        else:
            number = int(_REFERENCE.value)
            if number >= len(codes):
                raise ValueError(f"{path}: --reference_frame={number}, but there are {len(codes)} frames (from 0).")
        self._reenactor.set_reference_code(codes[number])


def open_output(output: Path, driver: Driver, comment: str = "") -> contextlib.AbstractContextManager:
    timing, section = driver.timing, driver.section
    sound = video.Sound(section.path, *section.interval) if _SOUND.value and section else None
    return video_writer.open_writer(output, timing.frame_rate, times=timing.times, sound=sound, comment=comment)


def check_options() -> None:
    """Raises ValueError for options that do not go together, before anything is opened."""
    if _REFERENCE.value != "best" and not _REFERENCE.value.isdecimal():
        raise ValueError(f"--reference_frame={_REFERENCE.value}: a number from 0, or best.")
    if _MOTION.value == "absolute" and _REFERENCE.value != "0":
        raise ValueError("--reference_frame belongs to relative motion: absolute motion has no reference.")
    if not math.isfinite(_SMOOTH.value) or _SMOOTH.value < 0:
        raise ValueError(f"--smooth={_SMOOTH.value}: a number of frames, 0 or more.")
    if _SAVE_MOTION.value and Path(_SAVE_MOTION.value).suffix != reenact_inputs.TEMPLATE_SUFFIX:
        raise ValueError(f"--save_motion={_SAVE_MOTION.value}: must end in {reenact_inputs.TEMPLATE_SUFFIX}.")


def plan() -> tuple[list[Path], list[Path], dict[tuple[Path, Path], Path]]:
    """Sources, drivers and where each pair is written. Raises ValueError or OSError."""
    sources, several_sources = reenact_inputs.find_sources(_SOURCE.value)
    drivers, several_drivers = reenact_inputs.find_drivers(_DRIVING.value)
    save, pairs = Path(_SAVE.value), list(itertools.product(sources, drivers))
    if _SAVE_MOTION.value and len(drivers) > 1:
        raise ValueError(f"--save_motion keeps the motion of one driver, {_DRIVING.value} names {len(drivers)}.")
    if several_sources or several_drivers:
        if save.suffix:
            raise ValueError(f"{save}: several results go into a folder: name one without a suffix.")
        outputs = {(s, d): save / f"{s.stem}--{d.stem}.mp4" for s, d in pairs}
        if len(set(outputs.values())) < len(outputs):
            raise ValueError("two sources or two drivers have the same name but for the suffix: rename one.")
    else:
        outputs = {pairs[0]: save}
    inputs = {path.resolve() for path in (*sources, *drivers)}
    for output in outputs.values():
        if output.resolve() in inputs:
            raise ValueError(f"{output}: would overwrite an input: choose another --save_path.")
    return sources, drivers, outputs


def run() -> list[str]:
    """Reenacts every pair. What fails for one of several is told, and the others go on. Returns what failed."""
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

    check_options()
    if _CACHE.value and not jax.config.jax_compilation_cache_dir:  # set already by JAX_COMPILATION_CACHE_DIR
        jax.config.update("jax_compilation_cache_dir", str(Path(_CACHE.value).expanduser()))
    source_paths, driver_paths, outputs = plan()
    how = {"fit": _FIT.value, "detector": _DETECTOR.value, "scale": _CROP_SCALE.value}
    source_crop = Cropping(crop=_SOURCE_CROP.value, flag="source_crop", **how)
    driving_crop = Cropping(crop=_DRIVING_CROP.value, flag="driving_crop", **how)
    section = (_START.value, _END.value, _MAX_FRAMES.value)
    sources = [attempt(reenact_inputs.open_source, path, source_crop) for path in source_paths]
    drivers = [attempt(reenact_inputs.open_driver, path, driving_crop, *section) for path in driver_paths]
    pairs = [(source, driver) for driver in filter(None, drivers) for source in filter(None, sources)]
    for source, driver in pairs:
        attempt(video_writer.check, outputs[source.path, driver.path], driver.timing.frame_rate, driver.timing.times)
    session = Session()
    at_once = len(sources) > 1 or _REFERENCE.value != "0" or _SAVE_MOTION.value
    for driver, group in itertools.groupby(pairs, key=lambda pair: pair[1]):
        codes = None
        if at_once or driver.template:
            codes = attempt(session.codes, driver)
            if codes is None:
                continue
        for source, _ in group:
            output = outputs[source.path, driver.path]
            if line := attempt(session.reenact, source, driver, output, codes):
                print(line)
    return failures


def main(argv: list[str]) -> None:
    logging.set_verbosity(logging.ERROR)  # Orbax tells of its every step
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {' '.join(argv[1:])}; quote a pattern: 'clips/*.mp4'")
    try:
        failures = run()
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from None
    if failures:
        raise SystemExit(f"{len(failures)} failed: see above")


if __name__ == "__main__":
    app.run(main)
