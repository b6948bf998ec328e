"""Prepares a data set for training.

    python scripts/prepare_data.py puppets --output data/puppets --image_size 64

`puppets` renders the embedded two-domain data set: the splits real_train, cartoon_train, real_test, cartoon_test.
"""

import os

from absl import app, flags

from data_pipelines.builders import puppets

_DEFAULTS = puppets.PuppetsConfig()
_OUTPUT = flags.DEFINE_string("output", None, "Folder to write to; must be absent or empty.", required=True)
_IMAGE_SIZE = flags.DEFINE_integer("image_size", _DEFAULTS.image_size, "Side of the frames in pixels.")
_SEED = flags.DEFINE_integer("seed", _DEFAULTS.seed, "Seed of identities and motions.")
_REAL_CLIPS = flags.DEFINE_integer(
    "real_clips", _DEFAULTS.real_clips, "Training clips, real domain; one identity each."
)
_CARTOON_CLIPS = flags.DEFINE_integer("cartoon_clips", _DEFAULTS.cartoon_clips, "Training clips, cartoon domain.")
_TEST_CLIPS = flags.DEFINE_integer("test_clips", _DEFAULTS.test_clips, "Test clips of each domain.")
_FRAMES = flags.DEFINE_integer("frames", _DEFAULTS.frames, "Frames of a clip.")
_JPEG_QUALITY = flags.DEFINE_integer(
    "jpeg_quality", _DEFAULTS.jpeg_quality, f"Quality above {puppets.PNG_UP_TO} px; up to there frames are PNG."
)
_WORKERS = flags.DEFINE_integer("workers", os.cpu_count(), "Rendering processes.")


def prepare_puppets() -> None:
    """Renders the puppets as the flags say."""
    config = puppets.PuppetsConfig(
        image_size=_IMAGE_SIZE.value,
        seed=_SEED.value,
        real_clips=_REAL_CLIPS.value,
        cartoon_clips=_CARTOON_CLIPS.value,
        test_clips=_TEST_CLIPS.value,
        frames=_FRAMES.value,
        jpeg_quality=_JPEG_QUALITY.value,
    )
    written = puppets.prepare(_OUTPUT.value, config, _WORKERS.value)
    print(f"{_OUTPUT.value}: " + ("written" if written else "already there, complete and the same"))


_DATASETS = {"puppets": prepare_puppets}


def main(argv: list[str]) -> None:
    if len(argv) != 2 or argv[1] not in _DATASETS:
        raise app.UsageError(f"name one data set out of {', '.join(_DATASETS)}, got {' '.join(argv[1:]) or 'none'}")
    try:
        _DATASETS[argv[1]]()
    except (ValueError, FileExistsError) as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    app.run(main)
