"""Finds the clips in a folder as people have it: every on-disk layout in use, without renaming anything.

An item is a video file, a folder of frames, a picture with frames side by side, or (`single_images`) one picture:

    [{train,test}/] person#video#start#end.mp4            VoxCeleb as FOMM cuts it: a file, or a folder of that name
    [{train,test}/] person#video#utterance.txt#000.mp4    the same by utterances
    [{train,test}/] [person/ …] clip.{mp4,mov,webm,gif …} any videos, at any depth
    [{train,test}/] [person/ …] clip/*.png                any folders of frames
    [{train,test}/] [person/ …] clip.png                  frames side by side: the width is a multiple of the height

Above the folder of the split there may be folders that all clips share.

The identity is what stands before the first "#"; else a folder named as VoxCeleb names people, id00012; else the first
folder (below the split's) that not all clips share; else the clip's own name.
"""

import dataclasses
import os
import re
from collections.abc import Iterator
from pathlib import Path

from data_pipelines import video

_VOXCELEB = re.compile(r"id\d{5}")
SPLITS = dict(train="train", training="train", dev="train", test="test", val="val", valid="val", validation="val")
SPLITS |= dict(testing="test", eval="test", evaluation="test")

_FEW = 4  # Strips of two or three frames may be called clip1.png, clip2.png …


@dataclasses.dataclass(frozen=True)
class Item:
    """Something to make clips of.

    Attributes:
      name: its path below the input folder, with "/".
      kind: "video", "frames" (a folder), "strip" (frames side by side) or "image".
      identity: who is seen, as far as names tell.
      split: the split whose folder it lies in, or None.
      size: in bytes; of a folder, that of all its images.
    """

    name: str
    kind: str
    identity: str
    split: str | None
    size: int


def find_items(
    folder: str | os.PathLike, single_images: bool = False, strips: str = "auto"
) -> tuple[list[Item], list[tuple[str, str]]]:
    """All items below a folder in the order of their names, and (name, reason) of the files, and empty folders, that
    are none.

    Hidden files are passed over. Folders whose names are in SPLITS are splits, at the top or right below the folders
    that all items share. A folder that holds images is one clip, unless they are strips; with `single_images` every
    image is an item and videos are none.

    Args:
      folder: the input.
      single_images: see above.
      strips: whether images are frames side by side: "yes", "no" or "auto", if the first that can be read is two or
        more times as wide as high, by a whole number; four or more times, as no film is, if the names are numbered as
        those of a film's frames.

    Raises:
      ValueError: no such folder, it cannot be read, or nothing in it is an item.
    """
    root = Path(folder)
    if not root.is_dir():
        raise ValueError(f"{root}: no such folder: name the one that holds the clips")
    items: list[Item] = []
    left_out: list[tuple[str, str]] = []
    for place, folders, files in _walk(root):
        images, videos = [], []
        if not (folders or files or place == root):
            left_out.append((_told(root, place), "an empty folder"))
        for file in files:
            suffix = file.suffix.lower()
            if reason := _unusable(file, suffix, single_images):
                left_out.append((_told(root, file), reason))
            else:
                (images if suffix in video.IMAGE_SUFFIXES else videos).append(file)
        items += [_item(root, file, "video") for file in videos]
        if videos:  # previews and thumbnails
            left_out += [(_told(root, file), "a picture beside videos") for file in images]
            images = []
        if single_images:
            items += [_item(root, file, "image") for file in images]
        elif images and (strips == "yes" or (strips == "auto" and _are_strips(images))):
            items += [_item(root, file, "strip") for file in images]
        elif images:
            items.append(_item(root, place, "frames"))
    if not items:
        wanted = "images" if single_images else "videos or folders of frames"
        raise ValueError(f"{root}: no {wanted} in it ({len(left_out)} other files): name the folder that holds them")
    return sorted(_with_names_told(items, root), key=lambda item: item.name), sorted(left_out)


def passed_over_split(item: Item) -> str | None:
    """The name of a folder above the item that looks like that of a split and is not; None if there is none."""
    folders = item.name.split("/")[:-1]
    return next((name for name in folders if SPLITS.get(name.lower(), item.split) != item.split), None)


def _unusable(file: Path, suffix: str, single_images: bool) -> str:
    """Why a file is no item and no part of one; "" if it is."""
    if suffix not in video.IMAGE_SUFFIXES and (single_images or suffix not in video.VIDEO_SUFFIXES):
        return "not an image" if single_images else "neither a video nor an image"
    try:
        str(file).encode()
    except UnicodeEncodeError:
        return "its name is not UTF-8: rename it"
    return "" if file.is_file() else "not a file, or a link to nothing"


def measure(path: Path, kind: str) -> int:
    """The size of an item in bytes: see `Item`. Raises OSError if it is not there."""
    if kind != "frames":
        return path.stat().st_size
    # A link to nothing counts as empty here: its clip is dropped when it is read, with the reason.
    return sum(file.stat().st_size for file in video.frame_files(path) if file.exists())


def _walk(root: Path) -> Iterator[tuple[Path, list[str], list[Path]]]:
    """Every folder with the names of its folders and with its files, hidden ones left out, in natural order."""

    def refuse(error: OSError) -> None:
        raise ValueError(f"{error.filename}: cannot be read ({error.strerror}): mend its permissions")

    above: dict[str, frozenset[str]] = {}  # A link to a folder above would lead round for ever.
    for place, folders, files in os.walk(root, onerror=refuse, followlinks=True):
        own = above.get(os.path.dirname(place), frozenset()) | {os.path.realpath(place)}
        above[place] = own
        folders[:] = sorted(n for n in folders if n[0] != "." and os.path.realpath(os.path.join(place, n)) not in own)
        names = sorted((name for name in files if not name.startswith(".")), key=video.natural_key)
        yield Path(place), folders, [Path(place, name) for name in names]


def _told(root: Path, file: Path) -> str:
    return file.relative_to(root).as_posix().encode(errors="backslashreplace").decode()


def _item(root: Path, path: Path, kind: str) -> Item:
    return Item(path.relative_to(root).as_posix(), kind, "", None, measure(path, kind))


def _with_names_told(items: list[Item], root: Path) -> list[Item]:
    """The items with the identities and splits that their paths tell."""
    paths = [item.name.split("/") for item in items]
    shared = _shared_folders([path for path in paths if len(path) > 1])
    splits, below = [], []
    for path in paths:
        places = [n for n, name in enumerate(path[:-1][: shared + 1]) if name.lower() in SPLITS]
        splits.append(SPLITS[path[places[0]].lower()] if places else None)
        below.append(path[places[0] + 1 :] if places else path[shared:] or path)
    depth = _shared_folders([path for path in below if len(path) > 1])
    if len(set(splits)) > 1 and all(len(path) == depth + 2 for path in below) and len({*map(_folder, below)}) == 1:
        below = [path[-1:] for path in below]  # The same one folder in every split is nobody's.
    return [
        dataclasses.replace(item, split=split, identity=_identity(path, rest, depth, root))
        for item, path, split, rest in zip(items, paths, splits, below, strict=True)
    ]


def _shared_folders(paths: list[list[str]]) -> int:
    """How many folders all paths begin with, as long as each has a further one."""
    depth = 0
    while all(len(path) > depth + 2 for path in paths) and len({path[depth] for path in paths}) == 1:
        depth += 1
    return depth


def _identity(path: list[str], below: list[str], depth: int, root: Path) -> str:
    """`below` is the path below the split's folder, of which `depth` folders are shared by all."""
    own = root.resolve().name if path == ["."] else path[-1]  # The input folder itself may be the clip.
    if own.find("#") > 0:
        return own.split("#")[0]
    if person := next(filter(_VOXCELEB.fullmatch, path[:-1]), None):
        return person
    below = below[depth:] if len(below) > depth + 1 else below
    return below[0] if len(below) > 1 else _without_suffix(own)


def _folder(path: list[str]) -> tuple[str, ...]:
    return tuple(path[:-1])


def _without_suffix(name: str) -> str:
    path = Path(name)
    return path.stem if path.suffix.lower() in (*video.VIDEO_SUFFIXES, *video.IMAGE_SUFFIXES) else name


def _are_strips(images: list[Path]) -> bool:
    least = 4 if _are_numbered(images) else 2
    for image in images:
        try:
            height, width = video.read_image(image).shape[:2]
            return width >= least * height and width % height == 0
        except video.VideoError:
            continue
    return False


def _are_numbered(images: list[Path]) -> bool:
    """Whether the names are those of a film's frames: mere numbers or, of more than a few, alike but for one number."""
    if all(image.stem.isdecimal() for image in images):
        return True
    parts = [re.split(r"(\d+)", image.stem) for image in images]
    if len(images) <= _FEW or len({len(part) for part in parts}) > 1:
        return False
    differ = [n for n, column in enumerate(zip(*parts, strict=True)) if len(set(column)) > 1]
    return len(differ) == 1 and differ[0] % 2 == 1  # The odd ones are the numbers.
