"""Random-access sources of clips: a prepared data set, folders of frames, video files. `open_clips` chooses."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data_pipelines import transforms, video
from data_pipelines.clip_source import BadRecord, ClipSource, check_index, frame_range
from data_pipelines.prepared_clips import PreparedClips, check_finished, prepared_folders


class FolderClips(ClipSource):
    """Clips as folders of images, each read when it is asked for.

    Args:
      folders: one a clip; its images in natural order of their names are the frames.
      image_size: crop each frame to its central square and resize it to this side; None leaves it as it is.
      first, last: use the frames [first, last) of each clip; None is the clip's own start or end.

    Raises:
      ValueError: a folder without images, or without frames in that range.
    """

    def __init__(
        self,
        folders: Sequence[str | os.PathLike],
        image_size: int | None = None,
        first: int | None = None,
        last: int | None = None,
    ):
        self._names = self.identities = [Path(folder).name for folder in folders]
        self._image_size = image_size
        self._files = []
        for folder in folders:
            files = video.frame_files(folder)
            if not files:
                raise ValueError(f"{folder}: the folder holds no images")
            frames = frame_range(str(folder), len(files), first, last)
            self._files.append(files[frames.start : frames.stop])
        self.lengths = [len(files) for files in self._files]

    def __len__(self) -> int:
        return len(self.lengths)

    def name(self, clip: int) -> str:
        """The folder's name."""
        return self._names[clip]

    def frame(self, clip: int, index: int) -> np.ndarray:
        """Frame `index` of a clip, uint8 [H, W, 3] RGB."""
        check_index(self, clip, index)
        try:
            return _to_size(video.read_still(self._files[clip][index]), self._image_size)
        except video.VideoError as error:
            raise BadRecord(f"frame {index} of clip {self.name(clip)}: {error}") from None


class VideoClips(ClipSource):
    """Clips as video files, decoded when opened and held in memory: random reads within a video file are slow.

    The cost is 3 * height * width bytes a frame, after resizing: 500 frames take 6 MB at 64 px, 98 MB at 256 px.

    Args:
      files: one a clip, any video or GIF.
      image_size: crop each frame to its central square and resize it to this side on loading; None leaves it.
      first, last: load the frames [first, last) of each clip; None is the clip's own start or end.

    Raises:
      VideoError: a file is no video, or broken within that range.
      ValueError: no frames in that range.
    """

    def __init__(
        self,
        files: Sequence[str | os.PathLike],
        image_size: int | None = None,
        first: int | None = None,
        last: int | None = None,
    ):
        self._names = self.identities = [Path(file).name for file in files]
        self._clips = [_load_video(Path(file), image_size, first, last) for file in files]
        self.lengths = [len(clip) for clip in self._clips]

    def __len__(self) -> int:
        return len(self.lengths)

    def name(self, clip: int) -> str:
        """The file's name."""
        return self._names[clip]

    def frame(self, clip: int, index: int) -> np.ndarray:
        """Frame `index` of a clip, uint8 [H, W, 3] RGB."""
        check_index(self, clip, index)
        return self._clips[clip][index]


def open_clips(
    path: str | os.PathLike,
    split: str | None = None,
    image_size: int | None = None,
    first: int | None = None,
    last: int | None = None,
) -> ClipSource:
    """Opens whatever clips are at `path`.

    A video file is one clip. A folder is a data set written by prepare_data.py; or else one clip, if it holds images; a
    clip a video, if it holds video files; a clip a subfolder of images.

    Args:
      path: the file or folder.
      split: the split of a prepared data set, "train" if none is named; else a subfolder of `path` to read, or none.
      image_size: side of the frames; other frames are cropped to their central square and resized. A prepared data set
        has its size already, which the loaders check. None leaves the frames as they are.
      first, last: use the frames [first, last) of each clip; None is the clip's own start or end.

    Raises:
      FileNotFoundError: nothing there.
      ValueError: nothing of these, or no frames in that range.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder of clips")
    check_finished(path)
    if prepared_folders(path):
        return PreparedClips(path, split or "train", first, last)
    if split:
        path = path / split
        if not path.is_dir():
            raise ValueError(f"{path.parent} is no prepared data set and has no folder {split!r}: leave split empty")
    paths = clip_paths(path)
    return (FolderClips if paths[0].is_dir() else VideoClips)(paths, image_size, first, last)


def clip_paths(path: Path) -> list[Path]:
    """The clips at `path`, as in `open_clips` if it is no prepared data set: all video files, or all folders of images.

    Raises:
      ValueError: nothing of these, or both.
    """
    if path.is_file():
        return [path]
    entries = sorted((e for e in path.iterdir() if not e.name.startswith(".")), key=lambda e: video.natural_key(e.name))
    files = [entry for entry in entries if entry.suffix.lower() in video.VIDEO_SUFFIXES and entry.is_file()]
    folders = [entry for entry in entries if entry.is_dir()]
    images = video.frame_files(path)
    framed = [next(filter(video.frame_files, folders))] if any(map(video.frame_files, folders)) else []
    kinds = {"videos": files, "folders of images": framed, "images": images}
    found = [f"{kind} ({paths[0].name}, …)" for kind, paths in kinds.items() if paths]
    if len(found) > 1:
        raise ValueError(f"{path} has both {' and '.join(found)}: name a folder with one kind of clips")
    if not (images or files or folders):
        raise ValueError(f"{path}: no prepared data set, images, videos or folders of images there")
    return [path] if images else files or folders


def _load_video(file: Path, image_size: int | None, first: int | None, last: int | None) -> list[np.ndarray]:
    start = first or 0
    if start < 0 or (last is not None and last <= start):
        raise ValueError(f"{file}: frames [{first}, {last}) asked for: use 0 <= first < last")
    frames, length = [], 0
    for length, frame in enumerate(video.read_frames(file), 1):
        if length > start:
            frames.append(_to_size(frame, image_size))
        if length == last:
            break
    frame_range(str(file), length, first, last)
    return frames


def _to_size(image: np.ndarray, image_size: int | None) -> np.ndarray:
    return image if image_size is None else transforms.to_square(image, image_size)
