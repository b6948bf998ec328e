"""Paints a puppet's outlines in the two domains: `real` shaded, textured and soft, `cartoon` flat and outlined.

Textures lie in the plane of what they belong to and are moved with it by an affine map.
"""

from collections.abc import Callable

import cv2
import numpy as np

from data_pipelines.puppet_geometry import CAMERA_AT, CAMERA_ZOOM, Head, edges, stroke
from data_pipelines.puppet_identity import Identity, Motion, Rgb, tint
from data_pipelines.puppet_textures import background, clothes_texture, hair_texture, head_shade, skin_texture

_SHIFT = 4  # sub-pixel bits of cv2's coordinates
_GROWTH = 1.35  # pixels by which cv2's anti-aliased edges widen a shape (measured)
_INK = (38, 28, 34)


class Canvas:
    """A uint8 picture, or a window of one, that is drawn on in normalised coordinates."""

    def __init__(self, image: np.ndarray, full_size: int, origin: tuple[int, int] = (0, 0)):
        self.image, self.full_size = image, full_size
        self.origin = np.asarray(origin)

    def pixels(self, points: np.ndarray) -> np.ndarray:
        at = ((points - CAMERA_AT) * CAMERA_ZOOM + 1) * (0.5 * self.full_size) - 0.5 - self.origin
        return np.rint(at * (1 << _SHIFT)).astype(np.int32)

    def fill(self, points: np.ndarray, colour) -> None:
        cv2.fillPoly(self.image, [self.pixels(points)], colour, cv2.LINE_AA, _SHIFT)

    def line(self, points: np.ndarray, colour, width: np.ndarray | float, closed: bool = False) -> None:
        """A line of the given full width(s), as an outline of its own: cv2's thickness has no parts of a pixel."""
        left, right = edges(points, np.maximum(width - 2 * _GROWTH / (CAMERA_ZOOM * self.full_size), 1e-4), closed)
        rims = [left, right] if closed else [np.concatenate([left, right[::-1]])]
        cv2.fillPoly(self.image, [self.pixels(rim) for rim in rims], colour, cv2.LINE_AA, _SHIFT)

    def clip(self, points: np.ndarray, paint: Callable[["Canvas"], None], soft: float = 0.0) -> None:
        """Let `paint` draw inside the outline only; `soft` blurs the edge (half picture widths)."""
        pixels = self.pixels(points)
        margin = 2 + int(3 * soft * CAMERA_ZOOM * self.full_size / 2)
        size = np.array(self.image.shape[1::-1])
        low = np.clip((pixels.min(0) >> _SHIFT) - margin, 0, size)
        high = np.clip((pixels.max(0) >> _SHIFT) + margin + 1, 0, size)
        if (high <= low).any():
            return
        window = self.image[low[1]:high[1], low[0]:high[0]]
        layer = window.copy()
        paint(Canvas(layer, self.full_size, self.origin + low))
        mask = np.zeros(layer.shape[:2], np.uint8)
        cv2.fillPoly(mask, [pixels - (low << _SHIFT).astype(np.int32)], 255, cv2.LINE_AA, _SHIFT)
        if soft:
            mask = cv2.GaussianBlur(mask, (0, 0), soft * CAMERA_ZOOM * self.full_size / 2)
        weight = mask.astype(np.float32) * (1 / 255)
        window[:] = cv2.blendLinear(layer, window, weight, 1 - weight)

    def paste(self, texture: np.ndarray, affine: np.ndarray) -> None:
        """Cover the window with a square texture over [-1, 1]^2, moved by `affine` [2, 3] (normalised)."""
        height, width = self.image.shape[:2]
        pixel = 2 / len(texture)
        corner = affine @ (pixel / 2 - 1, pixel / 2 - 1, 1)  # where the texture's first pixel goes
        scale = CAMERA_ZOOM * self.full_size / 2
        start = scale * (corner - CAMERA_AT) + self.full_size / 2 - 0.5 - self.origin
        matrix = np.column_stack([scale * pixel * affine[:, :2], start])
        cv2.warpAffine(texture, matrix, (width, height), dst=self.image, borderMode=cv2.BORDER_REPLICATE)

    def multiply(self, shade: np.ndarray) -> None:
        """Darken or brighten by a uint8 layer of the window's shape in which 128 changes nothing."""
        cv2.multiply(self.image, shade, dst=self.image, scale=1 / 128)


def _paint_eyes(canvas: Canvas, head: Head, real: bool) -> None:
    who = head.identity
    lid_colour = tint(who.skin, 0.86 if real else 0.90, (150, 60, 60), 0.12 if real else 0.0)
    for side in (-1, 1):
        eye = head.eye(side)
        lid = head.motion.eyelid_left if side < 0 else head.motion.eyelid_right
        canvas.fill(eye.socket, lid_colour)

        def ball(window: Canvas, eye=eye) -> None:
            window.image[:] = (234, 229, 226) if real else (255, 255, 255)
            window.fill(eye.iris, tint(who.iris, 0.55))
            window.fill(eye.iris.mean(0) + 0.82 * (eye.iris - eye.iris.mean(0)), who.iris)
            window.fill(eye.pupil, (14, 10, 12))
            window.fill(eye.glint, (255, 255, 255))
            if real:  # the upper lid's shadow on the eyeball
                window.line(eye.lid, tint(who.skin, 0.45), 0.012)

        canvas.clip(eye.opening, ball)
        taper = np.linspace(-1, 1, len(eye.lid))
        if real:
            canvas.line(eye.crease, tint(who.skin, 0.62), 0.010 + 0.008 * (1 - taper**2))
            canvas.line(eye.lid, tint(who.skin, 0.18, (30, 18, 16), 0.5), 0.018 + 0.016 * (1 - taper**2))
        else:
            canvas.line(eye.socket, _INK, 0.022, closed=True)
            canvas.line(eye.lid, _INK, 0.028 + 0.020 * (1 - taper**2) * (1 - 0.3 * lid))


def _paint_mouth(canvas: Canvas, head: Head, real: bool) -> None:
    who, mouth = head.identity, head.mouth()
    closed = 1 - min(1.0, 5 * head.motion.mouth_open)
    canvas.fill(mouth.lips, who.lips)
    if real:
        low = mouth.lips[len(mouth.lips) // 2:][3:-3]
        centre = mouth.lips.mean(0)
        canvas.line(low + 0.10 * (centre - low), tint(who.lips, 1.16), 0.010)

    def inside(window: Canvas) -> None:
        window.image[:] = (58, 18, 22) if real else (96, 20, 34)
        window.fill(mouth.tongue, (158, 72, 76) if real else (236, 104, 116))
        window.fill(mouth.teeth, tint((228, 222, 212), 1.0, (110, 52, 54), 0.8 * closed) if real else (255, 255, 255))

    canvas.clip(mouth.opening, inside)
    if real:
        canvas.line(mouth.opening, tint(who.lips, 0.42), 0.012, closed=True)
    else:
        canvas.line(mouth.opening, _INK, 0.028, closed=True)
    if closed > 0:  # the line between the lips; it narrows as they part
        canvas.line(mouth.middle, tint(who.lips, 0.42) if real else _INK, (0.018 if real else 0.032) * closed)


def _paint_clothes(canvas: Canvas, head: Head, body: np.ndarray) -> None:
    who, real = head.identity, head.identity.domain == "real"
    texture = clothes_texture(who, canvas.full_size)
    layers = {"plain": [(0.07, False)], "stripes": [(0.05, False)], "vee": [(0.22, True)],
              "jacket": [(0.08, True), (0.36, True)]}[who.clothes_style]
    for depth, sharp in layers:
        shirt = len(layers) == 2 and depth < 0.2
        outline = head.torso(depth, sharp)
        if real:  # a seam's shadow below the neckline
            canvas.clip(outline - (0, 0.02), lambda c: c.multiply(np.full_like(c.image, 92)), 0.012)
        canvas.clip(outline, lambda c, shirt=shirt: c.image.__setitem__(slice(None), who.clothes_trim) if shirt
                    else c.paste(texture, body), 0.005 if real else 0.0)
        if real:
            canvas.line(outline[:-2][8:-8], tint(who.clothes_trim if shirt else who.clothes, 0.72), 0.012)
        else:
            canvas.line(outline, _INK, 0.032, closed=True)


def _paint_glasses(canvas: Canvas, head: Head, width: float) -> None:
    who = head.identity
    if who.glasses == "none":
        return
    level, inner = who.eye_level, 0.42 * who.eye_spread
    canvas.line(head.on_face(np.linspace(-inner, inner, 5), level - 0.02, 0.07), who.glasses_colour, width)
    for side in (-1, 1):
        canvas.line(head.lens(side), who.glasses_colour, width, closed=True)
        arm = np.linspace(who.eye_spread + 1.32 * max(who.eye_width, 0.12), 1.0 * who.half_width, 4)
        canvas.line(head.on_face(side * arm, level - 0.02, 0.04), who.glasses_colour, width)


def _soft_shadows(head: Head, size: int) -> np.ndarray:
    """Shading of the face's relief: sockets, nose, folds, chin; a uint8 layer [size, size, 3] with 128 neutral."""
    who, small = head.identity, size // 2
    wide = Canvas(np.full((small, small, 3), 128, np.uint8), small)
    t = np.linspace(0, 2 * np.pi, 14)
    for side in (-1, 1):
        at = head.on_face(side * who.eye_spread * 0.95 + 1.3 * who.eye_width * np.cos(t),
                          who.eye_level - 0.02 + 0.105 * np.sin(t))
        wide.fill(at, (104, 96, 94))
        fold = np.linspace(0, 1, 7)
        smile = max(0.0, head.motion.smile)
        x = side * (who.nose_width * 1.2 + fold * (0.5 * who.mouth_width + 0.03 * smile))
        deep = int(112 - 26 * smile)
        wide.fill(stroke(head.on_face(x, who.nose_level - 0.01 + fold**1.5 * 0.15), 0.045), (deep, deep - 6, deep - 6))
    x = np.linspace(-1, 1, 9)
    chin = 0.25 * head.motion.mouth_open * 0.8
    wide.fill(stroke(head.on_face(0.17 * x, who.mouth_level + 0.115 + chin), 0.06), (102, 96, 96))
    brow = head.on_face(0.9 * who.half_width * x, -0.62 * who.half_height + 0.2 * x**4)
    wide.fill(stroke(brow, 0.16), (110, 104, 104))
    soft = cv2.GaussianBlur(wide.image, (0, 0), 0.03 * small)
    nose = head.nose()
    fine = Canvas(soft, small)
    dark = np.array([-np.sign(who.light) * 0.035, 0.0])
    fine.fill(stroke(nose["bridge"] + dark, np.linspace(0.02, 0.10, 8)), (106, 98, 96))
    fine.fill(stroke(nose["base"] + (0, 0.02), 0.05), (86, 76, 74))
    fine.fill(stroke(nose["bridge"] - 0.3 * dark, np.linspace(0.02, 0.055, 8)), (144, 142, 140))
    fine.fill(nose["tip"] - 0.3 * dark - (0, 0.01), (146, 142, 138))
    return cv2.resize(cv2.GaussianBlur(soft, (0, 0), 0.011 * small), (size, size), interpolation=cv2.INTER_LINEAR)


def paint_real(who: Identity, motion: Motion, size: int) -> np.ndarray:
    """The shaded, textured picture [size, size, 3]."""
    head = Head(who, motion)
    canvas = Canvas(background(who, size).copy(), size)
    hair, shade = hair_texture(who, size), head_shade(who, size)
    flat, front = head.affine(0.0), head.affine(0.75 * who.depth)
    body = np.column_stack([np.eye(2), head.body_shift])

    for outline in head.hair_behind():
        canvas.clip(outline, lambda c: (c.paste(hair, head.affine(-0.2)), c.multiply(np.full_like(c.image, 96))), 0.014)
    neck = head.neck()
    middle = neck.mean(0)
    canvas.clip(neck, lambda c: c.image.__setitem__(slice(None), tint(who.skin, 0.52, (110, 40, 36), 0.1)), 0.006)
    canvas.clip(middle + (neck - middle) * (0.62, 1), lambda c: c.image.__setitem__(
        slice(None), tint(who.skin, 0.78, (130, 60, 46), 0.06)), 0.045)
    chin = head.outline()
    cast = chin * (0.86, 1.0) + (0.14 * chin[:, 0].mean(), 0.075)
    canvas.clip(cast, lambda c: c.multiply(np.full_like(c.image, 88)), 0.03)
    _paint_clothes(canvas, head, body)
    for side in (-1, 1):
        canvas.clip(head.ear(side), lambda c: (c.paste(skin_texture(who, size), front), c.multiply(
            np.full_like(c.image, 106))), 0.005)
        canvas.clip(head.ear(side, 0.6), lambda c: c.multiply(np.full_like(c.image, 98)), 0.012)

    relief = _soft_shadows(head, size)

    def face(window: Canvas) -> None:
        window.paste(skin_texture(who, size), front)
        light = np.empty_like(window.image)
        Canvas(light, size, window.origin).paste(shade, flat)
        window.multiply(light)
        x, y = window.origin
        window.multiply(np.ascontiguousarray(relief[y:y + light.shape[0], x:x + light.shape[1]]))

    canvas.clip(chin, face, 0.005)
    nose = head.nose()
    for wing in ("left", "right"):
        canvas.clip(nose[wing] * 1.0, lambda c: c.multiply(np.full_like(c.image, 62)), 0.010)
    if who.beard != "none":
        canvas.clip(head.beard(), lambda c: (c.paste(hair, front), c.multiply(np.full_like(c.image, 112))), 0.022)
    _paint_eyes(canvas, head, real=True)
    for side in (-1, 1):
        canvas.clip(head.brow(side), lambda c: c.image.__setitem__(slice(None), who.brow), 0.007)
    _paint_mouth(canvas, head, real=True)
    if who.hair_front != "bald":
        crown = head.hairline()
        canvas.clip(crown + (0, 0.025), lambda c: c.multiply(np.full_like(c.image, 100)), 0.02)
        canvas.clip(crown, lambda c: c.paste(hair, head.affine(0.25)), 0.009)
    _paint_glasses(canvas, head, 0.018)
    return canvas.image


def paint_cartoon(who: Identity, motion: Motion, size: int) -> np.ndarray:
    """The flat, outlined picture [size, size, 3]."""
    head = Head(who, motion)
    canvas = Canvas(background(who, size).copy(), size)
    body = np.column_stack([np.eye(2), head.body_shift])
    shadow = tint(who.skin, 0.80, (150, 40, 60), 0.08)

    def shape(outline: np.ndarray, colour: Rgb, width: float = 0.032) -> None:
        canvas.fill(outline, colour)
        canvas.line(outline, _INK, width, closed=True)

    for outline in head.hair_behind():
        shape(outline, tint(who.hair, 0.84))
    shape(head.neck(), shadow)
    _paint_clothes(canvas, head, body)
    for side in (-1, 1):
        shape(head.ear(side), who.skin)
        canvas.fill(head.ear(side, 0.5), shadow)
    shape(head.outline(), who.skin)
    t = np.linspace(0, 2 * np.pi, 14)

    def blush(window: Canvas) -> None:
        for side in (-1, 1):
            at = head.on_face(side * who.eye_spread * 1.25 + 0.085 * np.cos(t),
                              who.eye_level + who.eye_height + 0.08 + 0.045 * np.sin(t))
            window.fill(at, tint(who.skin, 1.0, (240, 90, 100), 0.28))

    canvas.clip(head.outline(), blush)
    if who.beard != "none":
        shape(head.beard(), who.hair, 0.018)
    _paint_eyes(canvas, head, real=False)
    nose = head.nose()
    canvas.fill(nose["tip"] + (0, 0.015), shadow)
    canvas.line(nose["base"][2:-2], _INK, 0.02)
    _paint_mouth(canvas, head, real=False)
    if who.hair_front != "bald":
        shape(head.hairline(), who.hair)
    for side in (-1, 1):  # over the hair, as cartoons do, so that they are never hidden
        canvas.fill(head.brow(side), who.brow)
    _paint_glasses(canvas, head, 0.034)
    return canvas.image
