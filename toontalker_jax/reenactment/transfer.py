"""Motion transfer: the frames of a driver move a source picture (`reference.md`, motion; paper equations 3 and 5)."""

import itertools
from collections.abc import Iterable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from toontalker_jax.models import layers
from toontalker_jax.models import motion as motion_terms
from toontalker_jax.models.pixels import unit_range
from toontalker_jax.models.toontalker import Source, ToonTalker

# Driver domain and source domain of each kind: "r2c" = a real video drives a cartoon source, as in the official script.
KINDS = {
    "r2r": ("real", "real"),
    "c2c": ("cartoon", "cartoon"),
    "r2c": ("real", "cartoon"),
    "c2r": ("cartoon", "real"),
}
MOTIONS = ("relative", "absolute")


def check_kind(kind: str, domains: Iterable[str]) -> None:
    """Raises ValueError unless `kind` is one of `KINDS` and needs only these domains."""
    if kind not in KINDS:
        raise ValueError(f"type = {kind!r}: must be one of {', '.join(KINDS)}.")
    domains = tuple(domains)
    missing = sorted(set(KINDS[kind]) - set(domains))
    if missing:
        raise ValueError(
            f"type {kind!r} needs the domain {missing[0]!r}, but this model has only {', '.join(domains)}:"
            f" choose another type or a cross-domain checkpoint."
        )


class Reenactor:
    """Moves one source picture at a time. Pictures in and out are uint8 [S, S, 3] RGB, S = the model's image size.

    [-1, 1] becomes round(clip((x + 1) · 127.5, 0, 255)), a fixed rule. The source is encoded once; frames run in
    batches of one size, so nothing is compiled twice and memory does not grow with the length of the video.

        reenactor = Reenactor(model, "r2c")
        reenactor.prepare(source)
        for frame in reenactor.frames(driving_frames): ...

    `frames` is `codes` (the driver's motion, which can be kept and used on any source) followed by `render`.
    """

    def __init__(
        self,
        model: ToonTalker,
        kind: str = "r2c",
        motion: str = "relative",
        batch_size: int = 8,
        motion_scale: float = 1.0,
    ):
        """kind: one of `KINDS`; motion: "relative" (to a reference frame of the driver, eq. 5) or "absolute" (eq. 3).

        motion_scale multiplies the driver's motion, relative motion only: 1 = as the driver moves.

        Raises:
          ValueError: an unknown kind or motion, a domain that the model lacks, a batch size below 1, a motion scale
            with absolute motion.
        """
        check_kind(kind, model.domains)
        if motion not in MOTIONS:
            raise ValueError(f"motion = {motion!r}: must be one of {', '.join(MOTIONS)}.")
        if motion == "absolute" and motion_scale != 1:
            raise ValueError(f"motion_scale = {motion_scale} scales relative motion: absolute motion has none.")
        if batch_size < 1:
            raise ValueError(f"batch_size = {batch_size}: must be at least 1.")
        self.motion, self.batch_size, self.image_size = motion, batch_size, model.config.image_size
        self.dtype = model.config.dtype
        driver_domain, source_domain = KINDS[kind]
        graph, self._state = nnx.split(_folded(model, driver_domain, source_domain))
        self._source = self._w_r1 = None
        self._scale = np.float32(motion_scale)  # an argument: another scale is no other program

        @jax.jit
        def encode_source(state, picture):
            model = nnx.merge(graph, state)
            source = unit_range(picture)
            return model.encode_source(source_domain, source), model.motion_codes(source_domain, source)

        @jax.jit
        def driving_codes(state, frames):
            codes = nnx.merge(graph, state).motion_codes(driver_domain, unit_range(frames)).reference_to_driving
            return codes, _all_finite(codes)

        @jax.jit
        def decode(state, source, codes, w_r1, w_rd, scale):
            if motion == "relative":
                w = motion_terms.relative(codes, w_r1, w_rd, scale)  # eq. 5
            else:
                w = motion_terms.absolute(codes.source_to_reference, w_rd)  # eq. 3
            pictures = nnx.merge(graph, state).decode(source_domain, source, w).image
            return _to_uint8(pictures), _all_finite(pictures)

        self._encode_source, self._driving_codes, self._decode = encode_source, driving_codes, decode

    def prepare(self, source: np.ndarray) -> None:
        """Encodes the source picture, uint8 [S, S, 3], and forgets the reference."""
        self._check("source", source)
        self._source = self._encode_source(self._state, source[None])
        self._w_r1 = None

    def set_reference(self, frame: np.ndarray) -> None:
        """The driver's frame, uint8 [S, S, 3], whose motion counts as the source's own pose (relative motion only).

        Without it, `frames` and `render` take the first frame they are given.
        """
        self.set_reference_code(next(self.codes([frame])))

    def set_reference_code(self, w_r1: np.ndarray) -> None:
        """`set_reference` by the frame's code, float32 [K, d]."""
        self._w_r1 = w_r1[None]

    def nearest(self, codes: Iterable[np.ndarray]) -> int:
        """The index of the code [K, d] that is nearest to the prepared source's own motion in the canonical space.

        Raises:
          RuntimeError: no source has been prepared.
          ValueError: no codes.
        """
        w_rs = np.asarray(self._prepared()[1].reference_to_driving[0])
        distances = [float(np.linalg.norm(code - w_rs)) for code in codes]
        if not distances:
            raise ValueError("no codes: the driver has no frames.")
        return int(np.argmin(distances))

    def codes(self, driving: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Yields the motion code w_rd of each frame, float32 [K, d]. Frames as for `frames`. Needs no source.

        Raises:
          ValueError: a frame that is not uint8 [S, S, 3], or a code that is not finite.
        """
        batches = self._batches(map(self._checked, driving))
        computed = ((self._driving_codes(self._state, batch), count) for batch, count in batches)
        return self._finite("motion code", computed)

    def render(self, codes: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Yields the source moved by each code, uint8 [S, S, 3], in order.

        Raises:
          RuntimeError: no source has been prepared.
          ValueError: values that are not finite, which 8 bits would show as black.
        """
        source, w_r1 = self._prepared(), self._w_r1

        def computed() -> Iterator[tuple["_Computed", int]]:
            nonlocal w_r1
            for w_rd, count in self._batches(codes):
                w_r1 = w_rd[:1] if w_r1 is None else w_r1
                yield self._decode(self._state, *source, w_r1, w_rd, self._scale), count

        return self._finite("picture", computed())

    def frames(self, driving: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Yields one frame for each driving frame, uint8 [S, S, 3], in order.

        Raises:
          RuntimeError: no source has been prepared.
          ValueError: a frame that is not uint8 [S, S, 3], or values that are not finite.
        """
        return self.render(self.codes(driving))

    def transfer(self, source: np.ndarray, reference: np.ndarray, driving: np.ndarray) -> np.ndarray:
        """One case at once: source and reference uint8 [S, S, 3], driving uint8 [F, S, S, 3] → uint8 [F, S, S, 3]."""
        self.prepare(source)
        self.set_reference(reference)
        return np.stack(list(self.frames(driving)))

    def _batches(self, items: Iterable[np.ndarray]) -> Iterator[tuple[np.ndarray, int]]:
        """Full batches [batch_size, …] and how many of their items count: the last is filled with its last."""
        items = iter(items)
        while waiting := list(itertools.islice(items, self.batch_size)):
            yield np.stack(waiting + [waiting[-1]] * (self.batch_size - len(waiting))), len(waiting)

    def _finite(self, name: str, batches: Iterable[tuple["_Computed", int]]) -> Iterator[np.ndarray]:
        """The items of the batches; raises ValueError at one that is not finite."""
        for number, (item, finite) in enumerate(_one_ahead(batches)):
            if not finite:
                raise ValueError(
                    f"the {name} of frame {number} (from 0) is not finite in {self.dtype}: use --dtype=float32, or"
                    f" another checkpoint if this one has diverged."
                )
            yield item

    def _prepared(self) -> tuple[Source, motion_terms.MotionCodes]:
        if self._source is None:
            raise RuntimeError("no source yet: call prepare(source) first.")
        return self._source

    def _checked(self, frame: np.ndarray) -> np.ndarray:
        self._check("driving frame", frame)
        return frame

    def _check(self, name: str, picture: np.ndarray) -> None:
        shape = (self.image_size, self.image_size, 3)
        if picture.dtype != np.uint8 or picture.shape != shape:
            raise ValueError(f"{name} is {picture.dtype} {picture.shape}, the model takes uint8 {shape}: resize it.")


def _folded(model: ToonTalker, driver_domain: str, source_domain: str) -> ToonTalker:
    """A copy in which the layers that a frame needs have their kernels scaled and cast once: an eighth of the time.

    The arrays of the other layers are the model's own.
    """
    model = nnx.clone(model)
    for path, module in nnx.iter_modules(model):
        unused = path[:1] == ("domains",) and path[1:2] != (source_domain,)
        unused = unused and path[1:3] != (driver_domain, "motion_encoder")
        if isinstance(module, layers.Equalized) and not unused:
            module.fold(model.config.dtype)
    return model


_Computed = tuple[jax.Array, jax.Array]  # items of a batch, and whether all values of each are finite


def _one_ahead(batches: Iterable[tuple[_Computed, int]]) -> Iterator[tuple[np.ndarray, np.bool_]]:
    """The items of the batches, on the host; one batch is computed while the one before it is handed out."""
    under_way = None
    for batch in batches:
        if under_way is not None:
            yield from _on_host(*under_way)
        under_way = batch
    if under_way is not None:
        yield from _on_host(*under_way)


def _on_host(computed: _Computed, count: int) -> Iterator[tuple[np.ndarray, np.bool_]]:
    items, finite = jax.device_get(computed)
    return zip(items[:count], finite[:count], strict=True)


def _all_finite(values: jax.Array) -> jax.Array:
    """[N, …] → bool [N]."""
    return jnp.isfinite(values).all(axis=tuple(range(1, values.ndim)))


def _to_uint8(pictures: jax.Array) -> jax.Array:
    return jnp.round(jnp.clip((pictures + 1) * 127.5, 0, 255)).astype(jnp.uint8)
