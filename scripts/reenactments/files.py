"""What is read and where each result is written: every source with every driver."""

import glob
import itertools
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from data_pipelines import video
from toontalker_jax.reenactment.templates import TEMPLATE_SUFFIX

_SOURCE = flags.DEFINE_string("source_path", None, "Picture to move; or a folder or pattern of them.", required=True)
_DRIVING = flags.DEFINE_string("driving_path", None, "What to follow; or a folder or pattern.", required=True)
_SAVE = flags.DEFINE_string("save_path", None, "Where to write: .mp4, .gif, or no suffix for a folder.")
_OUTPUT_DIR = flags.DEFINE_string("output_dir", None, "In place of --save_path: the folder of <source>--<driver>.mp4.")
SAVE_MOTION = flags.DEFINE_string("save_motion", None, "Keep the driver's motion in this .npz file.")

Pair = tuple[Path, Path]  # paths of a source and a driver


def find(pattern: str, suffixes: Sequence[str]) -> tuple[list[Path], bool]:
    """The inputs that a path, a folder or a glob names, in natural order, and whether it may name several.

    A folder stands for its files with these suffixes; without any it is one input (a folder of frames).
    """
    if not pattern:
        raise ValueError("--source_path or --driving_path is empty: name a file, a folder or a pattern.")
    pattern = os.path.expanduser(pattern)
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
    if bool(_SAVE.value) == bool(_OUTPUT_DIR.value):
        raise ValueError("say where to write: one of --save_path and --output_dir.")
    pairs, save = list(itertools.product(sources, drivers)), Path(_SAVE.value or _OUTPUT_DIR.value).expanduser()
    outputs = {pairs[0]: save}
    if several_sources or several_drivers or _OUTPUT_DIR.value:
        if save.suffix and not save.is_dir() and not _OUTPUT_DIR.value:
            raise ValueError(f"{save}: several results go into a folder: name one without a suffix.")
        outputs = {(source, driver): save / f"{source.stem}--{_stem(driver)}.mp4" for source, driver in pairs}
        if twice := sorted(str(name) for name, count in Counter(outputs.values()).items() if count > 1):
            pair, other, *_ = (pair for pair, name in outputs.items() if str(name) == twice[0])
            alike = next(f"{a} and {b}" for a, b in zip(pair, other, strict=True) if a != b)
            raise ValueError(f"{twice[0]}: would be written twice: {alike} differ in folder or suffix alone.")
    inputs = {path.resolve() for path in (*sources, *drivers)}
    for output in (*outputs.values(), *([saved_motion()] if SAVE_MOTION.value else [])):
        if output.resolve() in inputs:
            raise ValueError(f"{output}: would overwrite an input: choose another --save_path or --save_motion.")
    return sources, drivers, outputs


def _stem(driver: Path) -> str:
    """Its name without the suffix; what follows a dot in the name of a folder of frames is none, but in "id#1.mp4"."""
    no_suffix = driver.is_dir() and driver.suffix.lower() not in video.VIDEO_SUFFIXES
    return driver.name if no_suffix else driver.stem


def saved_motion() -> Path:
    """Where --save_motion says."""
    return Path(SAVE_MOTION.value).expanduser()


def check_save_motion(drivers: Sequence[Path]) -> None:
    """Raises ValueError if the motion cannot be kept where --save_motion says."""
    path = saved_motion()
    if path.suffix != TEMPLATE_SUFFIX or path.is_dir() or not path.absolute().parent.is_dir():
        raise ValueError(f"--save_motion={path}: must end in {TEMPLATE_SUFFIX}, in a folder that exists.")
    if len(drivers) > 1 or drivers[0].suffix == TEMPLATE_SUFFIX:
        raise ValueError(f"--save_motion keeps the motion of one video, not of {_DRIVING.value}.")
