"""Puppets: procedural talking heads in two domains that share their motions, so that every transfer's truth is known.

A picture is a function of an identity and a motion vector. `real` puppets are shaded, textured and natural in
proportion; `cartoon` puppets are flat, outlined and exaggerated. The same motion vector moves both by similar amounts.
"""

from collections.abc import Iterator

import cv2
import numpy as np

from data_pipelines.puppet_drawing import paint_cartoon, paint_real
from data_pipelines.puppet_identity import (
    DOMAINS,
    SPLITS,
    Identity,
    Motion,
    checked_choice,
    generator,
    sample_identity,
)

__all__ = [
    "DOMAINS", "HEAD", "KINDS", "MOTION_HIGH", "MOTION_LOW", "MOTION_NAMES", "PARTS", "SPLITS", "Identity",
    "part_cases", "render", "sample_identity", "sample_motion", "transfer_cases", "transfer_motion",
]

KINDS = {"r2r": ("real", "real"), "c2c": ("cartoon", "cartoon"),
         "r2c": ("real", "cartoon"), "c2r": ("cartoon", "real")}  # (driver, source)
MIN_SIZE, MAX_SIZE = 64, 512

MOTION_NAMES: tuple[str, ...] = Motion._fields
HEAD = ("yaw", "pitch", "roll", "shift_x", "shift_y", "scale")
PARTS = {"head": {"yaw": 0.4}, "mouth": {"mouth_open": 0.7}, "smile": {"smile": 0.8},
         "eyes": {"eyelid_left": 0.95, "eyelid_right": 0.95}, "gaze": {"gaze_x": 0.8},
         "brows": {"brow_left": 0.8, "brow_right": 0.8}}  # name: {parameter: where it goes, from 0}
_ONE_SIDED = ("mouth_open", "eyelid_left", "eyelid_right")
MOTION_LOW = np.array([0.0 if name in _ONE_SIDED else -1.0 for name in MOTION_NAMES], np.float32)
MOTION_HIGH = np.ones(len(MOTION_NAMES), np.float32)


def _wave(rng: np.random.Generator, time: np.ndarray, slow: float, fast: float) -> np.ndarray:
    """Three sinusoids between two frequencies (cycles a frame), of unit peak, mostly taken back to 0 at frame 0."""
    parts = [w * np.sin(2 * np.pi * (rng.uniform(slow, fast) * time + rng.uniform())) for w in (0.5, 0.3, 0.2)]
    wave = np.sum(parts, axis=0)
    return wave - 0.75 * wave[0]


def sample_motion(domain: str, split: str, seed: int, index: int, num_frames: int) -> np.ndarray:
    """The smooth motion of clip `index`: float32 [num_frames, M] within MOTION_LOW..MOTION_HIGH.

    What moves is near neutral in frame 0. Real puppets move moderately, with quick small motions and fast speech;
    cartoons move far, hold their poses and snap between them. In a fifth of the training clips the head or all but one
    part is still (see `_stilled`); held-out heads all move.
    Raises ValueError for an unknown domain or split or no frames.
    """
    if num_frames < 1:
        raise ValueError(f"num_frames is {num_frames}; a clip needs at least 1")
    rng = generator(domain, split, "motion", seed, index)
    real = domain == "real"
    time = np.arange(num_frames, dtype=np.float64)
    slow, fast = (0.010, 0.042) if real else (0.006, 0.028)
    amplitude = {"yaw": 0.85, "pitch": 0.75, "roll": 0.6, "shift_x": 0.6, "shift_y": 0.6, "scale": 0.6, "smile": 0.9,
                 "gaze_x": 1.0, "gaze_y": 0.8, "brow_left": 0.8, "brow_right": 0.8}
    motion = {}
    for name, size in amplitude.items():
        wave = _wave(rng, time, slow, fast) + 0.06 * rng.uniform(-1, 1)
        if real:
            wave = 0.95 * wave + 0.06 * _wave(rng, time, 0.06, 0.12)
            motion[name] = np.tanh(1.5 * size * rng.uniform(0.6, 1.0) * wave)
        else:
            motion[name] = np.tanh(2.6 * size * rng.uniform(0.7, 1.1) * wave)
    shared = motion["brow_left"].copy()
    motion["brow_left"], motion["brow_right"] = (0.7 * shared + 0.3 * motion[k] for k in ("brow_left", "brow_right"))

    talk = _wave(rng, time, slow, fast) * 1.2 + 0.35
    beat = rng.uniform(0.07, 0.14) if real else rng.uniform(0.035, 0.08)
    syllable = 0.5 + 0.5 * np.sin(2 * np.pi * beat * (time + 3 * _wave(rng, time, slow, fast)) - np.pi / 2)
    loud = rng.uniform(0.6, 0.9) if real else rng.uniform(0.8, 1.1)
    motion["mouth_open"] = loud * np.clip(talk + 0.4, 0, 1) * syllable + rng.uniform(0, 0.08)

    droop = rng.uniform(0, 0.12)
    both, apart = _blinks(rng, time, 1.6 if real else 2.4, 45), _blinks(rng, time, 4.0, 90 if real else 50)
    side = rng.integers(2)
    squint = np.clip(_wave(rng, time, slow, fast) - 0.35, 0, 0.6)
    for name, winks in (("eyelid_left", side), ("eyelid_right", 1 - side)):
        motion[name] = droop + squint + both + winks * apart
    if split == "train":
        motion = _stilled(motion, generator(domain, split, "still", seed, index))
    stacked = np.stack([motion[name] for name in MOTION_NAMES], axis=1).astype(np.float32)
    return np.clip(stacked, MOTION_LOW, MOTION_HIGH)


def _stilled(motion: dict[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """`motion` with, in a tenth of the clips, everything still but one part, and in another tenth the head.

    A cartoon's outlines change more pixels when the head moves a little than its eyes and brows ever do: from clips in
    which everything moves the small parts are hardly learned. What is still stays as it is in a frame drawn at random:
    faces that move on neutral heads alone are not recognised on turned ones.
    """
    kind = rng.uniform()
    if kind < 0.1:
        moving = set(PARTS[rng.choice(list(PARTS))])
    else:
        moving = set(motion) - set(HEAD if kind < 0.2 else ())
    held = rng.integers(len(motion["yaw"]))
    return {name: line if name in moving else np.full_like(line, line[held]) for name, line in motion.items()}


def _blinks(rng: np.random.Generator, time: np.ndarray, width: float, period: float) -> np.ndarray:
    """Brief closures [T] at random times, about one every `period` frames; none at frame 0."""
    count = int(rng.poisson(len(time) / period)) + int(rng.uniform() < 0.5)
    moments = rng.uniform(3 * width, max(len(time), 6 * width), count)
    if count == 0:
        return np.zeros_like(time)
    return 1.05 * np.exp(-(((time[:, None] - moments) / width) ** 2)).max(axis=1)


def render(identity: Identity, motion: np.ndarray, image_size: int) -> np.ndarray:
    """The picture of an identity in a motion: motion [M] -> uint8 RGB [image_size, image_size, 3].

    Motions outside MOTION_LOW..MOTION_HIGH are clipped. Every size from 64 to 512 shows the same picture.
    Raises ValueError for another size or a motion of another shape.
    """
    if not MIN_SIZE <= image_size <= MAX_SIZE:
        raise ValueError(f"image_size is {image_size}; choose {MIN_SIZE} to {MAX_SIZE}")
    vector = np.asarray(motion, np.float64)
    if vector.shape != MOTION_LOW.shape:
        raise ValueError(f"motion has shape {vector.shape}; give one frame's vector of shape {MOTION_LOW.shape}")
    if not np.isfinite(vector).all():
        raise ValueError(f"motion holds {vector[~np.isfinite(vector)][0]}; give finite numbers")
    frame_motion = Motion(*np.clip(vector, MOTION_LOW, MOTION_HIGH).tolist())
    paint = paint_real if identity.domain == "real" else paint_cartoon
    if image_size > 128:
        return paint(identity, frame_motion, image_size)
    # Lines and edges thinner than a pixel need more than one sample.
    double = paint(identity, frame_motion, 2 * image_size)
    return cv2.resize(double, (image_size, image_size), interpolation=cv2.INTER_AREA)


def transfer_motion(source: np.ndarray, driving: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """The truth of relative transfer: the source's motion plus the driver's change, clipped; float32 [..., M]."""
    moved = np.asarray(source, np.float32) + np.asarray(driving, np.float32) - np.asarray(reference, np.float32)
    return np.clip(moved, MOTION_LOW, MOTION_HIGH)


def transfer_cases(kind: str, split: str, seed: int, count: int, frames: int, image_size: int,
                   num_frames: int = 64) -> Iterator[dict[str, np.ndarray]]:
    """`count` transfers whose right answer is known, one after the other.

    `kind` is driver 2 source: r2r, c2c, r2c (a real clip drives a cartoon source), c2r. Case i: the driver is clip
    2i of `num_frames` frames, the source frame 0 of clip 2i + 1. Yields uint8 pictures: source [S, S, 3],
    reference [S, S, 3] (the driver's frame 0), driving [frames, S, S, 3] (evenly spaced over the clip, frame 0
    left out) and truth [frames, S, S, 3].
    Raises ValueError for an unknown kind or split or for frames outside 1..num_frames - 1.
    """
    driver_domain, source_domain = KINDS[checked_choice("kind", kind, KINDS)]
    checked_choice("split", split, SPLITS)
    if not 1 <= frames < num_frames:
        raise ValueError(f"frames is {frames}; choose 1 to {num_frames - 1}")
    return _cases(driver_domain, source_domain, split, seed, count, frames, image_size, num_frames)


def _cases(driver_domain, source_domain, split, seed, count, frames, image_size, num_frames):
    chosen = np.rint(np.linspace(0, num_frames - 1, frames + 1)[1:]).astype(int)
    for case in range(count):
        driver = sample_identity(driver_domain, split, seed, 2 * case)
        source = sample_identity(source_domain, split, seed, 2 * case + 1)
        clip = sample_motion(driver_domain, split, seed, 2 * case, num_frames)
        start = sample_motion(source_domain, split, seed, 2 * case + 1, 1)[0]
        truth = transfer_motion(start, clip[chosen], clip[0])
        yield {
            "source": render(source, start, image_size), "reference": render(driver, clip[0], image_size),
            "driving": np.stack([render(driver, motion, image_size) for motion in clip[chosen]]),
            "truth": np.stack([render(source, motion, image_size) for motion in truth]),
        }


def part_cases(kind: str, part: str, split: str, seed: int, count: int, frames: int,
               image_size: int) -> Iterator[dict[str, np.ndarray]]:
    """`transfer_cases` in which one of `PARTS` moves, in `frames` equal steps, and everything else stays neutral.

    Raises ValueError for an unknown kind, part or split or for less than 1 frame.
    """
    domains = KINDS[checked_choice("kind", kind, KINDS)]
    goal = PARTS[checked_choice("part", part, PARTS)]
    checked_choice("split", split, SPLITS)
    if frames < 1:
        raise ValueError(f"frames is {frames}; choose 1 or more")
    return _part_cases(domains, goal, split, seed, count, frames, image_size)


def _part_cases(domains, goal, split, seed, count, frames, image_size):
    moved = np.array([goal.get(name, 0.0) for name in MOTION_NAMES], np.float32)
    motions = np.linspace(0, 1, frames + 1)[:, None] * moved

    def pictures(domain: str, index: int) -> np.ndarray:
        who = sample_identity(domain, split, seed, index)
        return np.stack([render(who, motion, image_size) for motion in motions])

    for case in range(count):
        driver, source = (pictures(domain, 2 * case + i) for i, domain in enumerate(domains))
        yield {"source": source[0], "reference": driver[0], "driving": driver[1:], "truth": source[1:]}
