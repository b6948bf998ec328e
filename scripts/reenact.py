"""Lets a video move a picture.

    python scripts/reenact.py --checkpoint DIR --source_path IMAGE --driving_path VIDEO --save_path OUT --type r2c

The driver is a video, a GIF, a folder of frames or an image; OUT ends in .mp4 or .gif, or in nothing for a folder of
PNG files. Frames of OUT have the network's size and the driver's frame rate; the sound track is not carried over.
"""

import time
from pathlib import Path

import numpy as np
import tqdm
from absl import app, flags, logging

from data_pipelines import transforms, video, video_writer
from toontalker_jax.checkpoints import load_model
from toontalker_jax.reenactment.transfer import KINDS, MOTIONS, Reenactor

_FITS = {"crop": transforms.center_crop_square, "pad": transforms.pad_square}

_CHECKPOINT = flags.DEFINE_string("checkpoint", None, "Checkpoint folder, or the workdir of a training.", required=True)
_SOURCE = flags.DEFINE_string("source_path", None, "Picture to move.", required=True)
_DRIVING = flags.DEFINE_string("driving_path", None, "Video, GIF, folder of frames or image to follow.", required=True)
_SAVE = flags.DEFINE_string("save_path", None, "Where to write: .mp4, .gif, or no suffix for PNG files.", required=True)
_TYPE = flags.DEFINE_enum("type", "r2c", list(KINDS), "Driver 2 source: r2c lets a real video drive a cartoon.")
_MOTION = flags.DEFINE_enum("motion", "relative", MOTIONS, "Relative to the driver's first frame, or absolute.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 8, "Frames computed at once.", lower_bound=1)
_FIT = flags.DEFINE_enum("fit", "crop", list(_FITS), "What makes a picture that is not square square.")


def fit(picture: np.ndarray, size: int) -> np.ndarray:
    """uint8 [H, W, 3] → [size, size, 3]."""
    return transforms.resize(_FITS[_FIT.value](picture), size, size)


def reenact(source: np.ndarray, driver: video.VideoInfo) -> str:
    """Writes the reenacted video; returns a line that says what was written."""
    with video_writer.open_writer(_SAVE.value, driver.frame_rate) as writer:
        model = load_model(_CHECKPOINT.value)
        size = model.config.image_size
        reenactor = Reenactor(model, _TYPE.value, _MOTION.value, _BATCH_SIZE.value)
        reenactor.prepare(fit(source, size))
        driving = (fit(frame, size) for frame in video.read_frames(_DRIVING.value))
        start, count = time.monotonic(), 0
        for frame in tqdm.tqdm(reenactor.frames(driving), total=driver.num_frames, unit="frame"):
            writer.write(frame)
            count += 1
    seconds = time.monotonic() - start
    what = f"{count} frames of {size}×{size} at {float(driver.frame_rate):g} frames/s"
    return f"{_SAVE.value}: {what}, made in {seconds:.1f} s ({count / seconds:.1f} frames/s)"


def main(argv: list[str]) -> None:
    logging.set_verbosity(logging.WARNING)  # Orbax tells of its every step
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {' '.join(argv[1:])}")
    try:
        if Path(_SAVE.value).resolve() in (Path(_SOURCE.value).resolve(), Path(_DRIVING.value).resolve()):
            raise ValueError(f"{_SAVE.value}: would overwrite an input: choose another --save_path")
        print(reenact(video.read_image(_SOURCE.value), video.probe(_DRIVING.value)))
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    app.run(main)
