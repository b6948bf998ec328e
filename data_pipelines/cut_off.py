"""Videos that end before they say: what FFmpeg reads without a word in containers that are read from start to end."""

import datetime
from fractions import Fraction
from pathlib import Path

import av

_FRAMES = 3  # Sums of rounded times may differ by some.
_GIF_END, _TAIL = b";", 1024  # Programs have put zeros behind the mark.


def missing_end(path: Path, container: av.container.InputContainer, stream: av.VideoStream, rate: Fraction) -> str:
    """Why a Matroska, WebM or GIF file seems to be cut off; "" if it does not.

    Args:
      path, container, stream: the file, open, of which every packet can be read and tells its time.
      rate: frames a second.
    """
    if container.format.name == "gif":
        whole = path.read_bytes()[-_TAIL:].rstrip(b"\0").endswith(_GIF_END)
        return "" if whole else "cut off: the mark of a GIF's end is missing"
    if "matroska" not in container.format.name:
        return ""
    told = _seconds(stream.metadata.get("DURATION", ""))
    if told is None and len(container.streams) == 1 and container.duration:
        told = Fraction(container.duration, av.time_base)
    if told is None:
        return ""
    # The last frame may be shown for long, which its packet tells.
    packets = (packet for packet in container.demux(stream) if packet.pts is not None)
    end = max(packet.pts + (packet.duration or 0) for packet in packets) * stream.time_base
    if told - end <= _FRAMES / rate:
        return ""
    return f"cut off: it tells of {float(told):.2f} s and ends at {float(end):.2f} s"


def _seconds(text: str) -> Fraction | None:
    """A Matroska tag's time, 00:01:02.345678900."""
    try:
        time = datetime.time.fromisoformat(text[:15])  # Python knows microseconds
    except ValueError:
        return None
    since = datetime.timedelta(hours=time.hour, minutes=time.minute, seconds=time.second, microseconds=time.microsecond)
    return Fraction(since // datetime.timedelta(microseconds=1), 1_000_000)
