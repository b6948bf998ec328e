"""The shape of a puppet: an identity and a motion in, outlines on the picture out.

Coordinates are normalised, x right and y down, so that one drawing serves every size: the puppet's world spans [-1, 1],
of which the camera shows the head.
Features lie on the front of an ellipsoid that yaw and pitch turn: eyes, nose and mouth move against the head's outline.
Both domains share these formulas and the motion's amplitudes; the proportions come from the identity.
"left" and "right" are those of the picture, not of the puppet: side -1 and side +1.
"""

from typing import NamedTuple

import numpy as np

from data_pipelines.puppet_identity import Identity, Motion

YAW, PITCH, ROLL = np.radians(25.0), np.radians(16.0), np.radians(18.0)  # at a motion value of 1
SHIFT_X, SHIFT_Y = 0.17, 0.11  # in half picture widths
ZOOM = 1.14  # head size at scale 1; 1 / ZOOM at scale -1
MOUTH_OPENING = 0.23  # height of the fully open mouth
BROW_RISE = 0.075
GAZE_X, GAZE_Y = 0.058, 0.044
PERSPECTIVE = 0.14
HEAD_Y = -0.06  # resting height of the head's centre
SHOULDER_Y = 0.62
PIVOT_Y = 0.5  # roll turns the head about the neck
CAMERA_ZOOM = 1.4  # the camera frames the head, as crops of talking heads do
CAMERA_AT = np.array([0.0, -0.05])  # the point at the picture's centre


def edges(curve: np.ndarray, widths: np.ndarray | float, closed: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """The two sides, each [N, 2], of a line of the given full width(s) along `curve` [N, 2]."""
    ends = np.concatenate([curve[-1:], curve, curve[:1]]) if closed else np.concatenate([curve[:1], curve, curve[-1:]])
    tangent = ends[2:] - ends[:-2]
    normal = np.stack([-tangent[:, 1], tangent[:, 0]], axis=1)
    normal *= (0.5 * np.asarray(widths) / (np.hypot(normal[:, 0], normal[:, 1]) + 1e-6)).reshape(-1, 1)
    return curve + normal, curve - normal


def stroke(curve: np.ndarray, widths: np.ndarray | float) -> np.ndarray:
    """Outline [2N, 2] of a line of the given full width(s) along `curve` [N, 2]."""
    left, right = edges(curve, widths)
    return np.concatenate([left, right[::-1]])


def _circle(count: int) -> tuple[np.ndarray, np.ndarray]:
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
    return np.cos(angle), np.sin(angle)


_T = np.linspace(-1.0, 1.0, 15)
_COS, _SIN = _circle(20)
_ANGLE = np.linspace(-np.pi, np.pi, 56, endpoint=False)  # around the head, 0 at the top


class Eye(NamedTuple):
    """Outlines of one eye, all [N, 2]: the whole socket, the open part, the upper lid's edge, iris, pupil, glint."""

    socket: np.ndarray
    opening: np.ndarray
    lid: np.ndarray
    crease: np.ndarray
    iris: np.ndarray
    pupil: np.ndarray
    glint: np.ndarray


class Mouth(NamedTuple):
    """Outlines of the mouth, all [N, 2]: lips with the opening, the opening, upper teeth, tongue, the middle line."""

    lips: np.ndarray
    opening: np.ndarray
    teeth: np.ndarray
    tongue: np.ndarray
    middle: np.ndarray


class Head:
    """The outlines of one identity in one motion."""

    def __init__(self, identity: Identity, motion: Motion):
        self.identity, self.motion = identity, motion
        cos_yaw, sin_yaw = np.cos(motion.yaw * YAW), np.sin(motion.yaw * YAW)
        cos_pitch, sin_pitch = np.cos(motion.pitch * PITCH), np.sin(motion.pitch * PITCH)
        turn = np.array([[cos_yaw, 0, sin_yaw], [0, 1, 0], [-sin_yaw, 0, cos_yaw]])
        nod = np.array([[1, 0, 0], [0, cos_pitch, sin_pitch], [0, -sin_pitch, cos_pitch]])
        self.rotation = nod @ turn
        # An ellipsoid's silhouette keeps its size when it turns; a flat one would shrink by the cosine.
        side = identity.depth / identity.half_width
        self.fullness = np.hypot(cos_yaw, side * sin_yaw) / cos_yaw, 1 / cos_pitch
        zoom = ZOOM**motion.scale
        cos_roll, sin_roll = np.cos(motion.roll * ROLL), np.sin(motion.roll * ROLL)
        roll = np.array([[cos_roll, -sin_roll], [sin_roll, cos_roll]])
        shift = np.array([SHIFT_X * motion.shift_x, SHIFT_Y * motion.shift_y + HEAD_Y])
        pivot = np.array([0.0, PIVOT_Y])
        self.plane = zoom * roll  # the rolled and zoomed picture plane [2, 2]
        self.offset = pivot - roll @ pivot + shift
        self.body_shift = np.array([0.3 * shift[0], 0.3 * (shift[1] - HEAD_Y)])

    def project(self, points: np.ndarray) -> np.ndarray:
        """Head space [N, 3] to picture [N, 2]."""
        turned = points @ self.rotation.T
        flat = turned[:, :2] / (1 - PERSPECTIVE * turned[:, 2:])
        return flat @ self.plane.T + self.offset

    def on_face(self, x: np.ndarray | float, y: np.ndarray | float, lift: float = 0.0) -> np.ndarray:
        """Picture points [N, 2] of head-plane points laid on the front of the head; `lift` is above the skin."""
        who = self.identity
        x, y = np.broadcast_arrays(np.atleast_1d(x), y)
        rest = 1 - (x / (1.05 * who.half_width)) ** 2 - (y / (1.25 * who.half_height)) ** 2
        z = who.depth * np.sqrt(np.maximum(rest, 0.03)) + lift
        return self.project(np.stack([x, y, z], axis=1))

    def affine(self, depth: float) -> np.ndarray:
        """[2, 3] map of the head plane at `depth` to the picture: moves textures with the head."""
        scale = 1 / (1 - PERSPECTIVE * depth)
        return np.column_stack([scale * self.plane @ self.rotation[:2, :2],
                                scale * depth * self.plane @ self.rotation[:2, 2] + self.offset])

    def _skull(self, grow: np.ndarray | float = 0.0) -> tuple[np.ndarray, np.ndarray]:
        who = self.identity
        x, y = np.sin(_ANGLE), -np.cos(_ANGLE)
        low = np.maximum(y, 0)
        x = x * (1 - (1 - who.jaw) * low**1.5) * (1 + 0.10 * low * (1 - low))
        drop = 0.25 * MOUTH_OPENING * self.motion.mouth_open * low**2
        return x * (who.half_width + grow) * self.fullness[0], (y * (who.half_height + grow) + drop) * self.fullness[1]

    def outline(self) -> np.ndarray:
        """The face's silhouette; the chin lies in front of the axis and so swings with yaw."""
        x, y = self._skull()
        lower = np.maximum(y / self.identity.half_height, 0)
        return self.project(np.stack([x, y, 0.45 * self.identity.depth * lower], axis=1))

    def eye(self, side: int) -> Eye:
        who, move = self.identity, self.motion
        lid = move.eyelid_left if side < 0 else move.eyelid_right
        arch = np.maximum(1 - _T**2, 0) ** who.eye_roundness
        x, y = side * who.eye_spread + who.eye_width * _T, who.eye_level - who.eye_tilt * side * _T
        upper = -who.eye_height * arch
        lower = who.eye_height * arch * (0.8 - 0.3 * max(move.smile, 0.0))
        edge = upper + lid * (0.9 * lower - upper)
        centre_x = side * who.eye_spread + GAZE_X * move.gaze_x
        centre_y = who.eye_level + GAZE_Y * move.gaze_y - 0.08 * who.eye_height
        both = np.concatenate([x, x[::-1]])
        radius = who.iris_radius

        def disc(size: float, dx: float = 0.0, dy: float = 0.0) -> np.ndarray:
            return self.on_face(centre_x + dx * radius + size * radius * _COS,
                                centre_y + dy * radius + size * radius * _SIN)

        return Eye(
            socket=self.on_face(both, np.concatenate([y + upper, (y + lower)[::-1]])),
            opening=self.on_face(both, np.concatenate([y + edge, (y + lower)[::-1]])),
            lid=self.on_face(x, y + edge),
            crease=self.on_face(x, y + upper - 0.35 * who.eye_height * (arch - 0.4 * lid)),
            iris=disc(1.0), pupil=disc(0.5), glint=disc(0.24, 0.36 * np.sign(who.light), -0.38),
        )

    def brow(self, side: int) -> np.ndarray:
        who = self.identity
        rise = self.motion.brow_left if side < 0 else self.motion.brow_right
        outer = side * _T  # -1 at the nose, +1 at the temple
        x = side * who.eye_spread * 1.03 + who.eye_width * 1.2 * _T
        y = who.eye_level - who.eye_height - 0.085 - who.brow_arch * (1 - _T**2) - BROW_RISE * rise * (1 - 0.25 * outer)
        widths = who.brow_thickness * (1 - 0.25 * outer - 0.5 * np.maximum(outer, 0) ** 3) * ZOOM**self.motion.scale
        return stroke(self.on_face(x, y, 0.02), widths)

    def mouth(self) -> Mouth:
        who, move = self.identity, self.motion
        width = who.mouth_width * (1 + 0.18 * move.smile - 0.16 * move.mouth_open)
        arch = 1 - _T**2
        gap = MOUTH_OPENING * move.mouth_open
        base = who.mouth_level - 0.075 * move.smile * (_T**2 - 0.35)
        upper, lower = base - 0.22 * gap * arch**0.7, base + 0.78 * gap * arch**0.6
        x = width * _T
        both = np.concatenate([x, x[::-1]])
        cupid = who.lip_thickness * (arch**0.8 - 0.25 * np.exp(-((_T / 0.22) ** 2)))
        full = 1.25 * who.lip_thickness * arch**0.7

        def area(top: np.ndarray, bottom: np.ndarray, grow: float = 1.0) -> np.ndarray:
            return self.on_face(grow * both, np.concatenate([top, bottom[::-1]]), 0.03)

        return Mouth(
            lips=area(upper - cupid, lower + full, 1.06), opening=area(upper, lower),
            teeth=area(upper - 0.02, upper + 0.055 + 0 * arch), middle=self.on_face(x, 0.5 * (upper + lower), 0.03),
            tongue=self.on_face(0.6 * width * _COS, who.mouth_level + 0.80 * gap + 0.055 * _SIN, 0.0),
        )

    def nose(self) -> dict[str, np.ndarray]:
        """bridge [N, 2] from brow to tip, tip disc, wing discs, and the base line under the tip."""
        who = self.identity
        width, level = who.nose_width, who.nose_level
        y = np.linspace(who.eye_level, level, 8)
        lift = np.linspace(0.03, 0.16, 8)
        bridge = np.concatenate([self.on_face(0.0, a, b) for a, b in zip(y, lift, strict=True)])
        return {
            "bridge": bridge,
            "tip": self.on_face(0.62 * width * _COS, level - 0.02 + 0.5 * width * _SIN, 0.14),
            "left": self.on_face(-0.62 * width + 0.3 * width * _COS, level + 0.2 * width * _SIN, 0.08),
            "right": self.on_face(0.62 * width + 0.3 * width * _COS, level + 0.2 * width * _SIN, 0.08),
            "base": self.on_face(width * _T, level + 0.45 * width * (1 - _T**2), 0.10),
        }

    def ear(self, side: int, size: float = 1.0) -> np.ndarray:
        """Always behind the face, so no ear pops in or out: the near ear spreads, the far one hides."""
        who = self.identity
        spread = 0.62 * (1 - 1.3 * side * np.sin(self.motion.yaw * YAW))
        x = side * who.half_width * 0.985 + size * who.ear_size * spread * (_COS + 0.4 * side)
        y = who.eye_level + 0.09 + size * 1.15 * who.ear_size * _SIN
        return self.project(np.stack([x, y, np.full_like(x, -0.03)], axis=1))

    def hairline(self) -> np.ndarray:
        """The front hair: a crown around the skull and a hairline across the forehead."""
        who = self.identity
        noise = np.random.default_rng(who.hair_seed).uniform(-1, 1, (2, _ANGLE.size))
        waves = {
            "curly": 1.8 * np.abs(np.cos(4.5 * _ANGLE)) - 0.7,
            "spiky": 1.9 * (np.abs((6 * _ANGLE / np.pi) % 2 - 1) - 0.3),
        }
        outer_wave = 0.5 * waves.get(who.hair_front, 0.25 * noise[0])
        x, y = self._skull(who.hair_thickness * (1 + outer_wave))
        end = 0.47 if who.hair_front == "cap" else 0.58
        keep = np.abs(_ANGLE) < end * np.pi
        crown = self.project(np.stack([x[keep], y[keep], np.zeros(keep.sum())], axis=1))
        # Walk the visible side from edge to edge: `u` is the longitude on the head, 1 = 90 degrees from the nose.
        u = np.linspace(1, -1, 27) - self.motion.yaw * YAW / (np.pi / 2)
        jag = noise[1][: u.size]
        near = np.minimum(np.abs(u), 1.0)
        level = {
            "short": -0.60 + 0.04 * jag, "fringe": -0.49 + 0.035 * jag,
            "side": -0.64 + 0.16 * (u - 0.45 * np.sign(who.light)) ** 2 + 0.02 * jag,
            "curly": -0.55 + 0.04 * np.cos(12 * u), "spiky": -0.66 + 0.15 * np.abs((3.5 * u) % 2 - 1),
            "receding": -0.80 + 0.06 * np.cos(6 * u), "cap": -0.60 + 0 * u,
        }[who.hair_front]
        sides = -0.22 if who.hair_front == "cap" else 0.0
        level = level + (sides - level) * near**6
        ring = np.sqrt(1 - 0.85 * level**2)
        x, z = who.half_width * ring * np.sin(u * np.pi / 2), who.depth * ring * np.cos(u * np.pi / 2)
        line = self.project(np.stack([x, who.half_height * level, z], axis=1))
        return np.concatenate([crown, line])

    def hair_behind(self) -> list[np.ndarray]:
        """The hair behind the head, zero or more outlines; it moves against the face when the head turns."""
        who = self.identity
        a, b, thick = who.half_width, who.half_height, who.hair_thickness
        noise = np.random.default_rng(who.hair_seed + 1).uniform(-1, 1, _ANGLE.size)

        def blob(x: float, y: float, width: float, height: float, bumps: float) -> np.ndarray:
            grow = 1 + 0.04 * noise + bumps * np.cos(13 * _ANGLE)
            flat = [x + width * grow * np.sin(_ANGLE), y - height * grow * np.cos(_ANGLE)]
            return self.project(np.stack([*flat, np.full(_ANGLE.size, -0.22)], axis=1))

        def curtain(bottom: float, flare: float) -> np.ndarray:
            y = np.linspace(-0.2 * b, bottom, 12)
            x = (a + 1.2 * thick) * (1 + flare * np.linspace(0, 1, 12) ** 2) * (1 + 0.02 * noise[:12])
            top = np.linspace(-np.pi / 2, np.pi / 2, 20)
            x = np.concatenate([(a + thick) * np.sin(top), x, -x[::-1]])
            y = np.concatenate([-0.2 * b - (0.8 * b + thick) * np.cos(top), y, y[::-1]])
            return self.project(np.stack([x, y, np.full(x.size, -0.22)], axis=1))

        return {
            "none": [], "bob": [curtain(0.72 * b, 0.12)], "long": [curtain(1.75 * b, 0.10)],
            "afro": [blob(0, -0.22 * b, 1.36 * a, 1.02 * b, 0.02)], "bun": [blob(0, -1.12 * b, 0.42 * a, 0.3 * b, 0.0)],
            "tails": [blob(s * 1.22 * a, 0.05 * b, 0.36 * a, 0.48 * b, 0.0) for s in (-1, 1)],
        }[who.hair_back]

    def beard(self) -> np.ndarray:
        """The bearded part of the face; the mouth is painted over it."""
        who = self.identity
        reach = {"full": 0.97, "goatee": 0.45, "moustache": 0.48}[who.beard]
        u = np.linspace(-1, 1, 21)
        drop = 0.25 * MOUTH_OPENING * self.motion.mouth_open
        top = who.mouth_level - 0.045 - 0.06 * (1 - u**2) - (0.30 * u**6 if who.beard == "full" else -0.04 * u**2)
        if who.beard == "moustache":
            bottom = who.mouth_level - 0.03 + 0.07 * u**2
        else:
            bottom = (1.01 * who.half_height + drop - 0.05) * np.sqrt(1 - (0.96 * u) ** 2 * (1 if reach > 0.9 else 0.2))
            bottom = np.maximum(bottom, top)
        width = reach * who.half_width * (1 - (1 - who.jaw) * np.clip(bottom / who.half_height, 0, 1) ** 1.5)
        top_curve = self.on_face(reach * who.half_width * u * 0.97, top, 0.01)
        return np.concatenate([top_curve, self.on_face(width * u, bottom, 0.0)[::-1]])

    def lens(self, side: int) -> np.ndarray:
        who = self.identity
        power = 0.45 if self.identity.glasses == "square" else 1.0
        x = min(1.32 * max(who.eye_width, 0.12), 0.9 * who.eye_spread) * np.sign(_COS) * np.abs(_COS) ** power
        y = 1.25 * max(who.eye_height, 0.09) * np.sign(_SIN) * np.abs(_SIN) ** power
        return self.on_face(side * who.eye_spread * 1.03 + x, who.eye_level + y, 0.06)

    def neck(self) -> np.ndarray:
        """From inside the head down into the clothes."""
        wide = 0.48 * self.identity.half_width
        top = self.project(np.array([[-wide, 0.5 * self.identity.half_height, -0.05],
                                     [wide, 0.5 * self.identity.half_height, -0.05]]))
        bottom = np.array([[1.05 * wide, 1.1], [-1.05 * wide, 1.1]]) + self.body_shift
        return np.concatenate([top, bottom])

    def torso(self, depth: float, sharp: bool) -> np.ndarray:
        """The clothes, with a neckline `depth` deep, sharp or round; they follow the head's shift a little."""
        who = self.identity
        collar, top = 0.56 * who.half_width, SHOULDER_Y - 0.02
        u = np.linspace(0, 1, 12)
        x = np.concatenate([collar * u, collar + (who.shoulder - collar) * u])
        dip = top + depth * (1 - u if sharp else np.sqrt(np.maximum(1 - u**2, 0)))
        y = np.concatenate([dip, top + 0.05 * u + 0.30 * u**3])
        x, y = np.concatenate([-x[::-1], x]), np.concatenate([y[::-1], y])
        shape = np.stack([x, y + 0.02 * self.motion.roll * x], axis=1)
        return np.concatenate([shape, [[who.shoulder, 1.6], [-who.shoulder, 1.6]]]) + self.body_shift
