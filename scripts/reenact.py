"""Lets videos move pictures.

    python scripts/reenact.py --checkpoint DIR --source_path IMAGE --driving_path VIDEO --save_path OUT.mp4 --type r2c

The driver is a video, a GIF, a folder of frames, an image, or a motion template of --save_motion (.npz); OUT ends in
.mp4 or .gif, or in nothing for a folder of PNG files. Frame rate, timestamps and sound are the driver's. A folder of
pictures as source, a folder of videos as driver, or a quoted pattern ('clips/*.mp4') means every source with every
driver; OUT is then a folder of <source>--<driver>.mp4 files.
"""

import functools
import itertools
import sys
from pathlib import Path

import jax
import tqdm
from absl import app, flags, logging

from data_pipelines import video_writer
from scripts.endings import in_one_line
from scripts.reenactments import files, options
from scripts.reenactments.attempts import FAILURES, Attempts, told
from toontalker_jax.checkpoints import read_config
from toontalker_jax.cpu import settle_for_cpu
from toontalker_jax.media import Driver, open_driver, open_source
from toontalker_jax.reenactment.templates import save_template
from toontalker_jax.reenactment.transfer import check_kind
from toontalker_jax.video_reenactor import VideoReenactor

_CHECKPOINT = flags.DEFINE_string("checkpoint", None, "Checkpoint folder, or the workdir of a training.", required=True)
_SIZE = flags.DEFINE_integer("size", None, "The network's size in pixels, if it shall be checked.")
_DTYPE = flags.DEFINE_enum("dtype", None, ["float32", "bfloat16", "float16"], "Compute in this instead.")
_CACHE = flags.DEFINE_string("cache", "~/.cache/toontalker-jax", "Keeps compiled programs; '' = compile each time.")
flags.adopt_module_key_flags(files)  # for --help
flags.adopt_module_key_flags(options)


def check_network(kind: str) -> None:
    """Raises what is wrong with the checkpoint for this kind and --size, before a driver is decoded for nothing."""
    config, domains = read_config(_CHECKPOINT.value)
    check_kind(kind, domains)
    if _SIZE.value not in (None, config.image_size):
        raise ValueError(f"--size={_SIZE.value}, but the network's is {config.image_size}.")


def run() -> list[str]:
    """Reenacts every pair. What fails for one of several is told, and the others go on. Returns what failed."""
    asked, (source_paths, driver_paths, outputs) = options.asked(), files.plan()
    attempt = Attempts(several=len(outputs) > 1)

    def opened(path: Path) -> Driver:
        driver = open_driver(path, asked)
        sound = driver.sound if asked.sound else None
        video_writer.check_timing(outputs[source_paths[0], path], driver.frame_rate, driver.times, sound)
        return driver

    if files.SAVE_MOTION.value:
        files.check_save_motion(driver_paths)
    check_network(asked.kind)
    sources = [source.put_down() for path in source_paths if (source := attempt(path, open_source, path, asked))]
    drivers = [driver for path in driver_paths if (driver := attempt(path, opened, path))]
    pairs = [(driver, source, outputs[source.path, driver.path]) for driver in drivers for source in sources]
    pairs = [pair for pair in pairs if attempt(pair[2], video_writer.check_path, pair[2])]
    if not pairs:
        return attempt.failures
    progress = functools.partial(tqdm.tqdm, unit="frame")
    reenactor = VideoReenactor(_CHECKPOINT.value, asked, dtype=_DTYPE.value, progress=progress)
    for driver, group in itertools.groupby(pairs, key=lambda pair: pair[0]):
        motion = None
        if len(sources) > 1 or files.SAVE_MOTION.value or driver.template:
            motion = attempt(driver.path, reenactor.motion, driver)
            if motion is None:
                continue
        if files.SAVE_MOTION.value:
            save_template(files.saved_motion(), motion)
        for _, source, output in group:
            if written := attempt(output, reenactor.write, source, driver, output, motion):
                print(written)
    return attempt.failures


def main(argv: list[str]) -> None:
    settle_for_cpu()
    sys.stdout.reconfigure(errors="backslashreplace")  # names of files are any bytes
    logging.set_verbosity(logging.ERROR)  # Orbax tells of its every step
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {' '.join(argv[1:])}; quote a pattern: 'clips/*.mp4'")
    if _CACHE.value and not jax.config.jax_compilation_cache_dir:  # set already by JAX_COMPILATION_CACHE_DIR
        jax.config.update("jax_compilation_cache_dir", str(Path(_CACHE.value).expanduser()))
    with in_one_line(ctrl_c="of the unfinished file nothing is kept."):
        try:
            failures = run()
        except FAILURES as error:
            raise SystemExit(f"error: {told(error)}") from None
    if failures:
        raise SystemExit(f"{len(failures)} failed: see above")


if __name__ == "__main__":
    app.run(main)
