"""Small videos for the tests, rendered on the spot."""

import re
import struct
from fractions import Fraction

import av
import numpy as np

from data_pipelines import video, video_writer
from data_pipelines.sound import Sound

COLOURS = [
    (255, 0, 0),
    (0, 255, 0),
    (0, 0, 255),
    (255, 255, 0),
    (255, 255, 255),
    (0, 0, 0),
    (128, 128, 128),
    (201, 120, 90),
    (20, 200, 180),
]


def flat(colour, height=48, width=64):
    return np.full((height, width, 3), colour, np.uint8)


def numbered(count, height=48, width=64):
    """Grey frames, each of its own level."""
    return [flat((10 * n,) * 3, height, width) for n in range(count)]


def write(path, frames, rate=25):
    with video_writer.open_writer(path, rate) as writer:
        for frame in frames:
            writer.write(frame)
    return path


def film(path, count, rate=25, codec="libx264", stamps=None, tick=None, key_frames=250, **tone):
    """A video of `numbered` frames shown at `stamps` ticks, a key frame every so many; H.264 has B-frames.

    `tone` is sound=codec, and start=0.0 and seconds=2 of it.
    """
    tick = tick or 1 / Fraction(rate)
    with av.open(str(path), "w") as container:
        pictures = container.add_stream(codec, rate=rate)
        pictures.height, pictures.width, pictures.pix_fmt = 48, 64, "yuv420p"
        pictures.codec_context.time_base = tick
        packets = []
        pictures.codec_context.gop_size = key_frames
        sound = container.add_stream(tone.pop("sound"), rate=48000, layout="mono") if tone else None
        for image, stamp in zip(numbered(count), stamps or range(count), strict=True):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = stamp, tick
            packets += pictures.encode(frame)
        packets += pictures.encode(None)
        if sound:
            packets += _tone(sound, **tone)
        for packet in sorted(packets, key=lambda packet: (packet.dts or 0) * packet.time_base):
            container.mux(packet)
    return path


def _tone(stream, start=0.0, seconds=2):
    wave = np.sin(np.arange(48000 * seconds) * (2 * np.pi * 440 / 48000))[None].astype(np.float32) / 2
    whole = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
    whole.rate, whole.pts, whole.time_base = 48000, round(48000 * start), Fraction(1, 48000)
    resampler = av.AudioResampler(stream.format, "mono", 48000, stream.codec_context.frame_size or 1024)
    frames = resampler.resample(whole) + resampler.resample(None)
    return [packet for frame in [*frames, None] for packet in stream.encode(frame)]


def packets(path, kind):
    """(time in seconds, data) of the packets of the first "video" or "audio" stream, in order of time."""
    with av.open(str(path)) as container:
        stream = getattr(container.streams, kind)[0]
        return sorted((p.pts * p.time_base, bytes(p)) for p in container.demux(stream) if p.size)


def trim(path, milliseconds):
    """Lets the edit lists of an mp4 end its streams early; the packets stay in the file."""
    data = bytearray(path.read_bytes())
    for found in re.finditer(b"elst", bytes(data)):
        struct.pack_into(">I", data, found.end() + 8, milliseconds)  # after version, flags and number of edits
    path.write_bytes(data)
    return path


def copy(driver, path, *limits, comment=""):
    """The driver's section as it is, with its sound."""
    section = video.Section(driver, *limits)
    taken = Sound(section.path, *section.interval)
    with video_writer.open_writer(
        path, section.frame_rate, times=section.times, sound=taken, comment=comment
    ) as writer:
        for frame in section:
            writer.write(frame)
    return path
