"""Who a puppet is and how it can move: the identity, the motion, and the sampling of identities."""

import zlib
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

DOMAINS = ("real", "cartoon")
SPLITS = ("train", "test")

# A colour, 0..255 a channel.
Rgb = tuple[int, int, int]

_SKINS = ((246, 214, 190), (236, 196, 166), (224, 178, 144),
          (205, 154, 118), (176, 124, 90), (140, 94, 68), (104, 70, 52))
_FANTASY = ((168, 214, 138), (150, 196, 232), (206, 172, 232), (250, 214, 110), (244, 176, 186))
_HAIRS = ((38, 28, 26), (62, 42, 32), (96, 62, 40), (138, 92, 54),
          (190, 144, 84), (222, 190, 128), (150, 66, 36), (150, 146, 146))
_BRIGHT_HAIRS = ((236, 92, 118), (80, 150, 226), (96, 190, 132), (250, 176, 60),
                 (150, 96, 208), (250, 222, 110), (46, 40, 60))
_IRISES = ((92, 58, 34), (120, 84, 46), (74, 110, 78), (84, 120, 156), (110, 128, 136), (58, 40, 30))
_BRIGHT_IRISES = ((60, 130, 220), (70, 170, 90), (150, 90, 40), (140, 80, 190), (40, 160, 170), (80, 56, 40))
_PASTELS = ((250, 206, 150), (168, 216, 232), (204, 228, 168), (248, 190, 196),
            (214, 200, 240), (252, 232, 160), (150, 200, 190))


class Motion(NamedTuple):
    """One frame's motion; 0 is neutral. Ranges: lids and mouth [0, 1], all others [-1, 1]."""

    yaw: float  # + turns to the right of the picture
    pitch: float  # + looks down
    roll: float  # + tilts clockwise
    shift_x: float  # + right
    shift_y: float  # + down
    scale: float  # + nearer
    mouth_open: float  # 1 fully open
    smile: float  # - frown, + smile
    eyelid_left: float  # 1 closed
    eyelid_right: float
    gaze_x: float  # + right
    gaze_y: float  # + down
    brow_left: float  # + raised
    brow_right: float


@dataclass(frozen=True)
class Identity:
    """Everything about a puppet but its motion. Lengths are in half picture widths, colours are RGB 0..255."""

    domain: str
    split: str
    seed: int
    index: int
    half_width: float
    half_height: float
    depth: float
    jaw: float  # width at the chin's height against an ellipse
    skin: Rgb
    hair: Rgb
    hair_front: str
    hair_back: str
    hair_thickness: float
    hair_seed: int
    eye_width: float
    eye_height: float
    eye_roundness: float  # exponent of the lid curve: 0.5 an ellipse, 1 an almond
    eye_spread: float
    eye_level: float
    eye_tilt: float
    iris: Rgb
    iris_radius: float
    brow: Rgb
    brow_thickness: float
    brow_arch: float
    nose_width: float
    nose_level: float
    mouth_width: float
    mouth_level: float
    lips: Rgb
    lip_thickness: float
    ear_size: float
    beard: str
    glasses: str
    glasses_colour: Rgb
    clothes: Rgb
    clothes_trim: Rgb
    clothes_style: str
    shoulder: float
    background: tuple[Rgb, Rgb, Rgb]
    background_style: str
    light: float  # -1 from the left, +1 from the right


def tint(colour: Rgb, gain: float, towards: Rgb = (0, 0, 0), share: float = 0.0) -> Rgb:
    """A colour times `gain`, then mixed with another."""
    mixed = np.asarray(colour) * gain * (1 - share) + np.asarray(towards) * share
    return tuple(int(v) for v in np.clip(mixed, 0, 255))


def checked_choice(name: str, value: str, allowed) -> str:
    if value not in allowed:
        raise ValueError(f"{name} is {value!r}; choose one of {', '.join(allowed)}")
    return value


def generator(domain: str, split: str, stream: str, seed: int, index: int) -> np.random.Generator:
    """A stream of its own for every (domain, split, purpose, seed, index): train and test never share a draw."""
    checked_choice("domain", domain, DOMAINS)
    checked_choice("split", split, SPLITS)
    for name, value in (("seed", seed), ("index", index)):
        if value < 0:
            raise ValueError(f"{name} is {value}; give a number of 0 or more")
    return np.random.default_rng((zlib.crc32(f"{domain}/{split}/{stream}".encode()), seed, index))


def _colour(rng: np.random.Generator, palette: tuple[Rgb, ...], spread: float) -> Rgb:
    """A palette colour, a little lighter or darker and a little off in hue."""
    base = np.asarray(palette[rng.integers(len(palette))], np.float64)
    mixed = base * rng.uniform(1 - spread, 1 + 0.7 * spread) + rng.uniform(-60, 60, 3) * spread
    return tuple(int(v) for v in np.clip(mixed, 0, 255))


def _cloth_colour(rng: np.random.Generator, saturation: tuple[float, float], value: tuple[float, float]) -> Rgb:
    hsv = np.array([[[rng.uniform(0, 360), rng.uniform(*saturation), rng.uniform(*value)]]], np.float32)
    return tuple(int(v) for v in 255 * cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0, 0])


def sample_identity(domain: str, split: str, seed: int, index: int) -> Identity:
    """The identity number `index` of a domain's split ("train" | "test"; the two are disjoint).

    Raises ValueError for an unknown domain or split and for negative numbers.
    """
    rng = generator(domain, split, "identity", seed, index)
    real = domain == "real"
    looks = _looks(rng, real)
    proportions = _proportions(rng, real)
    return Identity(domain=domain, split=split, seed=int(seed), index=int(index), **looks, **proportions)


def _proportions(rng: np.random.Generator, real: bool) -> dict[str, float]:
    def between(real_range: tuple[float, float], cartoon_range: tuple[float, float]) -> float:
        return float(rng.uniform(*(real_range if real else cartoon_range)))

    half_width = between((0.43, 0.50), (0.47, 0.58))
    eye_level = between((-0.07, -0.03), (-0.01, 0.04))
    return {
        "half_width": half_width, "half_height": between((0.58, 0.64), (0.52, 0.60)),
        "depth": between((0.46, 0.52), (0.46, 0.52)), "jaw": between((0.70, 0.92), (0.60, 1.05)),
        "hair_thickness": between((0.03, 0.09), (0.05, 0.13)),
        "eye_width": between((0.100, 0.120), (0.125, 0.155)), "eye_height": between((0.052, 0.066), (0.115, 0.160)),
        "eye_roundness": between((0.75, 1.0), (0.45, 0.6)),
        "eye_spread": half_width * between((0.40, 0.46), (0.37, 0.42)),
        "eye_level": eye_level, "eye_tilt": between((-0.008, 0.022), (-0.015, 0.03)),
        "iris_radius": between((0.052, 0.060), (0.068, 0.088)),
        "brow_thickness": between((0.028, 0.050), (0.032, 0.064)), "brow_arch": between((0.01, 0.04), (0.0, 0.05)),
        "nose_width": between((0.070, 0.105), (0.045, 0.085)),
        "nose_level": eye_level + between((0.22, 0.27), (0.175, 0.20)),
        "mouth_width": between((0.16, 0.20), (0.16, 0.22)), "mouth_level": between((0.33, 0.37), (0.325, 0.345)),
        "lip_thickness": between((0.030, 0.048), (0.0, 0.02)), "ear_size": between((0.10, 0.13), (0.10, 0.16)),
        "shoulder": between((0.80, 1.0), (0.62, 0.88)),
        "light": float(rng.choice([-1, 1]) * rng.uniform(0.5, 1.0)),
    }


def _looks(rng: np.random.Generator, real: bool) -> dict[str, object]:
    skin = _colour(rng, _FANTASY if not real and rng.uniform() < 0.25 else _SKINS, 0.07)
    natural = _HAIRS if sum(skin) > 450 else _HAIRS[:3]
    hair = _colour(rng, natural if real or rng.uniform() < 0.4 else _BRIGHT_HAIRS, 0.12)
    fronts = ("short", "fringe", "side", "curly", "receding") if real else (
        "short", "fringe", "side", "curly", "spiky", "cap")
    front = str(rng.choice(fronts))
    if rng.uniform() < 0.05:
        front = "bald"
    backs = ("none", "none", "bob", "long", "afro", "bun") if real else ("none", "bob", "long", "afro", "bun", "tails")
    back = "none" if front in ("bald", "receding") else str(rng.choice(backs))
    bearded = back in ("none",) and rng.uniform() < 0.45
    styles = ("room", "bokeh") if real else ("plain", "sunrise", "rays", "stripes", "halo", "dots")
    if real:
        scene = tuple(_cloth_colour(rng, (0.08, 0.45), span) for span in ((0.45, 0.85), (0.2, 0.6), (0.3, 0.95)))
    else:
        first = _colour(rng, _PASTELS, 0.08)
        scene = (first, tint(first, 1.0, (255, 255, 255), 0.42), tint(first, 0.8))
    brow = tint(hair, (0.55 if real else 0.38) if sum(hair) > 200 else 0.8)
    if not real and sum(skin) < 330:  # dark brows would vanish on dark skin
        brow = tint(hair, 0.9) if sum(hair) > 450 else (24, 16, 18)
    lips = tint(skin, 0.78, (178, 52, 60), float(rng.uniform(0.35, 0.6 if bearded else 0.8)))
    return {
        "skin": skin, "hair": hair, "hair_front": front, "hair_back": back,
        "hair_seed": int(rng.integers(2**31)), "iris": _colour(rng, _IRISES if real else _BRIGHT_IRISES, 0.12),
        "brow": brow, "lips": lips,
        "beard": str(rng.choice(["full", "goatee", "moustache"])) if bearded else "none",
        "glasses": str(rng.choice(["round", "square"])) if rng.uniform() < 0.22 else "none",
        "glasses_colour": _colour(rng, ((30, 28, 32), (70, 44, 30), (120, 30, 40), (40, 60, 110)), 0.1),
        "clothes": _cloth_colour(rng, *(((0.1, 0.65), (0.2, 0.75)) if real else ((0.5, 0.85), (0.6, 0.95)))),
        "clothes_trim": _cloth_colour(rng, (0.0, 0.3), (0.7, 0.98)),
        "clothes_style": str(rng.choice(["plain", "stripes", "vee", "jacket"])),
        "background": scene, "background_style": str(rng.choice(styles)),
    }
