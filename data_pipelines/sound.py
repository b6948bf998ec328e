"""Copies the sound of one file into another, packet by packet: not decoded, not changed, not held in memory."""

import dataclasses
import io
import os
from collections.abc import Iterator
from fractions import Fraction

import av

from data_pipelines import video


@dataclasses.dataclass(frozen=True)
class Sound:
    """The sound of a file between two times in seconds, counted from the file's first picture.

    From 0 on it includes what comes before the first picture; an `end` of None is the end of the sound.
    """

    path: str | os.PathLike
    start: Fraction = Fraction(0)
    end: Fraction | None = None


def has_sound(path: str | os.PathLike) -> bool:
    """Whether a file has a sound track; False for folders and for what cannot be opened."""
    try:
        with av.open(os.path.abspath(path)) as container:
            return bool(container.streams.audio)
    except (av.FFmpegError, OSError, ValueError):
        return False


class SoundCopy:
    """Copies a sound into an mp4 while its pictures are written. A context manager; without a sound it does nothing.

    Time 0 of the mp4 is `sound.start`. What lies before 0 (of a packet across the start; the encoder's run-in) goes
    along, and an edit list in the mp4 makes players skip it.

    Raises:
      VideoError: the file is not there or has no pictures, or an mp4 cannot hold its sound.
    """

    def __init__(self, sound: Sound | None):
        self._sound = sound
        self._input = self._output = self._next = None
        if sound is not None and not os.path.exists(sound.path):
            raise video.VideoError(f"{sound.path}: no such file to take the sound of")
        if sound is None or not has_sound(sound.path):
            return
        self._input = av.open(os.path.abspath(sound.path))
        self._stream = self._input.streams.best("audio") or self._input.streams.audio[0]
        try:
            _check_codec(sound.path, self._stream)
            self._packets = self._shifted(video.first_time(sound.path))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "SoundCopy":
        return self

    def __exit__(self, *error) -> None:
        self.close()

    def close(self) -> None:
        if self._input is not None:
            self._input.close()

    def start(self, output: av.container.OutputContainer) -> None:
        """Adds the stream to an mp4 of which nothing is written yet."""
        if self._input is not None:
            self._output = output
            self._copy = output.add_stream_from_template(self._stream)
            self._next = next(self._packets, None)

    def copy(self, until: Fraction | None = None) -> None:
        """Writes the packets that begin before `until`, in seconds of the mp4; None writes all that are left."""
        while self._next is not None and (until is None or self._next.pts * self._next.time_base < until):
            self._next.stream = self._copy
            self._output.mux(self._next)
            self._next = next(self._packets, None)

    def _shifted(self, origin: Fraction) -> Iterator[av.Packet]:
        """The packets of the section, their time stamps in samples from its start; `origin` is the file's zero."""
        start, end = self._sound.start, self._sound.end
        tick = Fraction(1, self._stream.codec_context.sample_rate)
        time = None
        try:
            for packet in self._input.demux(self._stream):
                stamp = packet.dts if packet.pts is None else packet.pts
                if stamp is None or packet.size == 0:
                    continue
                before, time = time, stamp * packet.time_base - origin
                duration = (packet.duration or 0) * packet.time_base
                if not duration and before is not None:  # Players leave a last packet out that lasts no time.
                    duration = time - before
                if end is not None and time >= end:
                    return
                if start == 0 or time + duration > start:
                    packet.pts = packet.dts = round((time - start) / tick)
                    packet.duration = round(duration / tick)
                    packet.time_base = tick
                    yield packet
        except av.FFmpegError as error:
            raise video.VideoError(f"{self._sound.path}: the sound is broken ({video.reason(error)})") from None


def _check_codec(path: str | os.PathLike, stream: av.AudioStream) -> None:
    """Writes the head of an mp4 with that stream, which fails if an mp4 cannot hold it."""
    try:
        with av.open(io.BytesIO(), "w", format="mp4") as trial:
            trial.add_stream_from_template(stream)
            trial.start_encoding()
    except (av.FFmpegError, ValueError):
        codec = getattr(stream.codec_context, "name", "of an unknown kind")
        raise video.VideoError(f"{path}: its sound is {codec}, which an mp4 cannot hold: use --nosound") from None
