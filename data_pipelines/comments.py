"""Comments inside pictures and videos: text that says what the file is."""

import os
import shutil
import struct
import zlib
from pathlib import Path

import av

from data_pipelines import video

_PNG_START = b"\x89PNG\r\n\x1a\n"
_PNG_HEADER = 33  # Bytes of the start and of the first chunk, IHDR.


def add_to_png(png: bytes, text: str) -> bytes:
    """A PNG file with the text in a tEXt chunk "Comment". The chunk is latin-1: other characters become "?"."""
    body = b"tEXt" + b"Comment\0" + text.encode("latin-1", "replace")
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    return png[:_PNG_HEADER] + chunk + png[_PNG_HEADER:]


def of_png(png: bytes) -> str:
    """The text that `add_to_png` wrote; "" if there is none."""
    position = len(_PNG_START)
    while png.startswith(_PNG_START) and position + 8 <= len(png):
        length, kind = struct.unpack_from(">I4s", png, position)
        body = png[position + 8 : position + 8 + length]
        if kind == b"tEXt" and body.startswith(b"Comment\0"):
            return body.removeprefix(b"Comment\0").decode("latin-1")
        position += 12 + length
    return ""


def of_file(path: str | os.PathLike) -> str:
    """The text inside a video, GIF, PNG file or folder of them (of the first); "" if none. Raises VideoError."""
    path = Path(path)
    if path.is_dir():
        path = next(iter(video.frame_files(path)), path)
    try:
        if path.suffix.lower() in video.IMAGE_SUFFIXES:
            return of_png(path.read_bytes())
        with av.open(os.path.abspath(path)) as container:
            return next((text for key, text in container.metadata.items() if key.lower() == "comment"), "")
    except (av.FFmpegError, OSError, ValueError) as error:
        raise video.VideoError(f"{path}: {video.reason(error)}") from None


def add_to_gif(path: str | os.PathLike, text: str) -> None:
    """Puts the text, as UTF-8, in a comment extension of a GIF file, before its frames."""
    # Behind the frames FFmpeg would count it as one more frame.
    data = text.encode()
    blocks = (data[i : i + 255] for i in range(0, len(data), 255))
    extension = b"\x21\xfe" + b"".join(bytes([len(block)]) + block for block in blocks) + b"\0"
    path = Path(path)
    commented = path.with_suffix(".commented")
    with path.open("rb") as plain, commented.open("wb") as file:
        header = plain.read(13)
        file.write(header)
        if header[10] & 0x80:  # a palette for all frames follows
            file.write(plain.read(3 * 2 ** ((header[10] & 7) + 1)))
        file.write(extension)
        shutil.copyfileobj(plain, file)
    commented.replace(path)
