"""A made-up input folder with every layout, and files that are none."""

from pathlib import Path

import numpy as np

from data_pipelines import puppets, transforms, video_writer

SIDE = 32
# The clips that come out of it with their numbers of frames, and what is dropped.
CLIPS = {
    "test/id2#abcd#000010#000013.mp4": 3,
    "train/id1#7w0I#000001#000005.mp4": 4,
    "train/id1#7w0I#000100#000105.mp4": 5,
    "train/id3#x#00012.txt#003.mp4": 4,
    "train/loose.gif": 3,
    "train/loose.mov": 4,
    "train/loose.webm": 4,
    "train/plain clip": 3,
    "train/strips/side by side.png": 3,
    "train/twin#7w0I.mp4": 4,
}
DROPPED = {"notes.txt", "train/broken.mp4", "train/cut off.mp4", "train/half", "train/short.mp4"}


def frame(number: int, side: int = SIDE) -> np.ndarray:
    """A smooth picture of its own."""
    down, across = np.mgrid[:side, :side]
    red, green = number * 37 + down * 3, number * 91 + across * 3
    return np.stack([red % 256, green % 256, down + across], axis=-1).astype(np.uint8)


def movie(path: Path, first: int, count: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with video_writer.open_writer(path, 25) as writer:
        for number in range(first, first + count):
            writer.write(frame(number))


def make_tree(root: Path) -> Path:
    """Writes it; returns `root`."""
    movie(root / "train/id1#7w0I#000001#000005.mp4", 0, 4)
    movie(root / "train/id1#7w0I#000100#000105.mp4", 10, 5)
    movie(root / "train/loose.gif", 30, 3)
    for first, suffix in ((40, ".mov"), (45, ".webm")):  # Their containers are told by their content.
        movie(root / "loose.mp4", first, 4)
        (root / "loose.mp4").rename(root / f"train/loose{suffix}")
    (root / "train/twin#7w0I.mp4").write_bytes((root / "train/id1#7w0I#000001#000005.mp4").read_bytes())
    for folder, first, count in (
        ("test/id2#abcd#000010#000013.mp4", 50, 3),
        ("train/id3#x#00012.txt#003.mp4", 60, 4),
        ("train/plain clip", 70, 3),
        ("train/half", 80, 3),
    ):
        (root / folder).mkdir(parents=True)
        for number in range(count):
            (root / folder / f"{number}.png").write_bytes(transforms.encode_png(frame(first + number)))
    (root / "train/strips").mkdir()
    strip = np.concatenate([frame(90 + n) for n in range(3)], axis=1)
    (root / "train/strips/side by side.png").write_bytes(transforms.encode_png(strip))
    (root / "train/half/2.png").write_bytes(b"not a picture")
    (root / "train/broken.mp4").write_text("text")
    movie(root / "train/cut off.mp4", 0, 20)
    whole = (root / "train/cut off.mp4").read_bytes()
    (root / "train/cut off.mp4").write_bytes(whole[: len(whole) // 2])
    movie(root / "train/short.mp4", 0, 1)
    (root / "notes.txt").write_text("not a clip")
    return root


def raw_video(path: Path, count: int = 12) -> None:
    """A puppet's head before a wide grey wall: what has to be cropped."""
    identity = puppets.sample_identity("real", "train", 0, 0)
    with video_writer.open_writer(path, 25) as writer:
        for motion in puppets.sample_motion("real", "train", 0, 0, count):
            wall = np.full((260, 400, 3), 90, np.uint8)
            wall[60:188, 206:334] = puppets.render(identity, motion, 128)
            writer.write(wall)
