"""What a puppet is made of: skin, light, hair, cloth and backdrop, as pictures over the plane [-1, 1]^2.

Each is made once for an identity and a size, from noise of one fixed size, so that all sizes show the same picture.
"""

from functools import lru_cache

import cv2
import numpy as np

from data_pipelines.puppet_identity import Identity

_TEXTURE = 256


def _noise(rng: np.random.Generator, sigma: float) -> np.ndarray:
    """Smooth noise [256, 256] of unit deviation, `sigma` texture pixels wide."""
    field = cv2.GaussianBlur(rng.standard_normal((_TEXTURE, _TEXTURE)).astype(np.float32), (0, 0), sigma)
    return field / field.std()


def _sized(texture: np.ndarray, size: int) -> np.ndarray:
    how = cv2.INTER_AREA if size < _TEXTURE else cv2.INTER_LINEAR
    return cv2.resize(np.clip(texture, 0, 255).astype(np.uint8), (size, size), interpolation=how)


def _grid() -> tuple[np.ndarray, np.ndarray]:
    axis = ((np.arange(_TEXTURE) + 0.5) * (2 / _TEXTURE) - 1).astype(np.float32)
    return np.meshgrid(axis, axis)


def _rng(who: Identity, layer: int) -> np.random.Generator:
    return np.random.default_rng((who.hair_seed, layer))


@lru_cache(maxsize=48)
def skin_texture(who: Identity, size: int) -> np.ndarray:
    """Skin with blotches, pores, blush and some freckles; fixed to the face."""
    rng, (x, y) = _rng(who, 1), _grid()
    gain = 1 + 0.025 * _noise(rng, 14) + 0.018 * _noise(rng, 1.2)
    freckles = rng.uniform() < 0.35
    spots = np.clip(_noise(rng, 1.2) - 1.6, 0, 1) * np.exp(-((y - 0.12) ** 2) / 0.03) * freckles
    blush = sum(np.exp(-((x - s * 0.62 * who.half_width) ** 2 + (y - 0.2) ** 2) / 0.018) for s in (-1, 1))
    skin = np.asarray(who.skin, np.float32) * (gain - 0.16 * spots)[..., None]
    return _sized(skin * (1 + blush[..., None] * np.array([0.02, -0.09, -0.08])), size)


@lru_cache(maxsize=48)
def head_shade(who: Identity, size: int) -> np.ndarray:
    """Soft light on the ellipsoid of the head, 128 neutral; turns with the head's roll only."""
    x, y = _grid()
    nx, ny = x / (1.08 * who.half_width), y / (1.12 * who.half_height)
    nz = np.sqrt(np.maximum(1 - nx**2 - ny**2, 0.0))
    light = 0.42 * who.light * nx - 0.34 * ny + 0.84 * nz
    gain = 0.52 + 0.56 * np.clip(light, 0, 1.2) + 0.10 * np.clip(light, 0, 1) ** 12
    cool = (1 - np.clip(gain, 0, 1))[..., None] * np.array([0.0, -0.12, -0.10])
    return _sized(128 * (gain[..., None] + cool), size)


@lru_cache(maxsize=48)
def hair_texture(who: Identity, size: int) -> np.ndarray:
    """Strands that run from the crown, with a band of sheen."""
    rng, (x, y) = _rng(who, 2), _grid()
    angle = np.arctan2(x - 0.12 * who.light, y + 0.85 * who.half_height + 0.25)
    radius = np.hypot(x, y + 0.85 * who.half_height)
    ring = np.interp(np.linspace(0, 1, 2048), np.linspace(0, 1, 420), rng.standard_normal(420))
    strands = ring[((angle / (2 * np.pi) + 0.5 + 0.01 * _noise(rng, 20)) * 2047).astype(int).clip(0, 2047)]
    sheen = np.exp(-(((radius - 0.26) / 0.10) ** 2)) * np.clip(0.7 + 0.6 * who.light * x, 0, 1.3)
    gain = 0.86 + 0.12 * strands + 0.30 * sheen - 0.25 * np.clip(y + 0.1, 0, 1)
    shine = 22 * sheen * (1 + 0.5 * strands)
    return _sized(np.asarray(who.hair, np.float32) * gain[..., None] + shine[..., None], size)


@lru_cache(maxsize=48)
def clothes_texture(who: Identity, size: int) -> np.ndarray:
    """Cloth with folds and, for stripes, a second colour; fixed to the torso."""
    rng, (x, y) = _rng(who, 3), _grid()
    cloth = np.broadcast_to(np.asarray(who.clothes, np.float32), (_TEXTURE, _TEXTURE, 3))
    if who.clothes_style == "stripes":
        cloth = np.where((np.sin(26 * (y + 0.10 * x**2)) > 0.2)[..., None], np.asarray(who.clothes_trim), cloth)
    if who.domain == "cartoon":
        return _sized(cloth.astype(np.float32), size)
    fold = cv2.GaussianBlur(rng.standard_normal((_TEXTURE, _TEXTURE)).astype(np.float32), (0, 0), 5, sigmaY=18)
    gain = 0.92 + 0.10 * fold / fold.std() + 0.04 * _noise(rng, 1) + 0.18 * who.light * x - 0.25 * (np.abs(x) > 2)
    return _sized(cloth * (gain - 0.22 * np.exp(-(x**2 + (y - 0.66) ** 2) / 0.05))[..., None], size)


@lru_cache(maxsize=48)
def background(who: Identity, size: int) -> np.ndarray:
    """The picture behind the puppet; it does not move."""
    rng, (x, y) = _rng(who, 4), _grid()
    first, second, third = (np.asarray(c, np.float32) for c in who.background)
    if who.domain == "real":
        share = np.clip(0.5 + 0.5 * y + 0.25 * _noise(rng, 30), 0, 1)[..., None]
        picture = np.ascontiguousarray(first * (1 - share) + second * share)
        for _ in range(14):
            at, spread = rng.integers(0, _TEXTURE, 2), rng.integers(8, 34, 2)
            colour = (third if rng.uniform() < 0.5 else second) * rng.uniform(0.6, 1.3)
            draw = cv2.rectangle if who.background_style == "room" else None
            if draw:
                cv2.rectangle(picture, at.tolist(), (at + spread * (1, 3)).tolist(), colour.tolist(), -1)
            else:
                cv2.circle(picture, at.tolist(), int(spread[0] * 0.8), colour.tolist(), -1, cv2.LINE_AA)
        picture = cv2.GaussianBlur(picture, (0, 0), 7.5 if who.background_style == "room" else 5.0)
        return _sized(picture * (1.04 - 0.22 * (x**2 + y**2))[..., None], size)
    angle, radius = np.arctan2(y, x), np.hypot(x, y)
    share = {
        "plain": 0.0 * x, "sunrise": (y + 1) / 2, "rays": (np.sin(12 * angle) * 25).clip(0, 1),
        "stripes": (np.sin(11 * (x + y)) * 10).clip(0, 1), "halo": ((0.86 - radius) * 60).clip(0, 1),
        "dots": ((np.cos(12 * x) * np.cos(12 * y) - 0.55) * 12).clip(0, 1),
    }[who.background_style][..., None]
    return _sized(first * (1 - share) + second * share, size)
