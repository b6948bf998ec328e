"""ToonTalker: one network a domain, and the two query transformers that all domains share."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
from flax import nnx

from toontalker_jax.models.batches import deinterleave, interleave
from toontalker_jax.models.config import DOMAINS, ModelConfig
from toontalker_jax.models.encoders import AppearanceEncoder, MotionEncoder
from toontalker_jax.models.generator import Generator, GeneratorOutput
from toontalker_jax.models.layers import EqualLinear, normal
from toontalker_jax.models.motion import BackwardTransformer, Memory, MotionCodes, absolute, query
from toontalker_jax.ops.checks import check_shape


class Source(NamedTuple):
    """Everything about a source picture that does not depend on the motion: encode once, decode many times."""

    maps: dict[int, jax.Array]  # {resolution: [N or 1, r, r, C]}
    memory: tuple[Memory, ...]  # the backward transformer's keys and values


def abstract_network(config: ModelConfig, domains: Sequence[str]) -> tuple[nnx.GraphDef, nnx.State]:
    """A network, split, that has shapes and types only, for whoever has the numbers: `nnx.merge(graph, filled state)`.

    Raises what `ToonTalker` raises.
    """
    graph, state = _traced(config, tuple(domains))
    return graph, jax.tree.map(lambda leaf: leaf, state)  # the caller's own


@functools.cache
def _traced(config: ModelConfig, domains: tuple[str, ...]) -> tuple[nnx.GraphDef, nnx.State]:
    return nnx.split(nnx.eval_shape(lambda: ToonTalker(config, domains, rngs=nnx.Rngs(0))))


class DomainNetwork(nnx.Module):
    """The parts that belong to one domain."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        self.appearance_encoder = AppearanceEncoder(config, rngs=rngs)
        self.motion_encoder = MotionEncoder(config, rngs=rngs)
        self.motion_base = normal(rngs, (config.motion_slots, config.width))
        self.backward_transformer = BackwardTransformer(config, rngs=rngs)
        self.to_styles = EqualLinear(config.motion_slots * config.width, config.style_vectors * config.width, rngs=rngs)
        self.generator = Generator(config, rngs=rngs)


class ToonTalker(nnx.Module):
    """The network. With `domains=("real",)` it is the one-domain network of stage 1 and in-domain checkpoints.

    Images are [N, S, S, 3] float32 RGB in [-1, 1]; motion codes [N, K, d] float32. `rngs` at call time switches
    dropout on (training); without it every method is deterministic.

    Raises:
      ValueError: domains empty, repeated or unknown; an image of the wrong shape; a domain the network lacks.
    """

    def __init__(self, config: ModelConfig, domains: Sequence[str] = DOMAINS, *, rngs: nnx.Rngs):
        if not domains or len(set(domains)) != len(domains) or not set(domains) <= set(DOMAINS):
            raise ValueError(f"domains = {tuple(domains)}: name each of {DOMAINS} at most once, and at least one.")
        self.config = config
        self.source_query = query(config, rngs=rngs)  # T_{s→r}
        self.driving_query = query(config, rngs=rngs)  # T_{r→d}
        if config.difference_init:
            self.source_query = nnx.clone(self.driving_query, arrays=True)
            self.source_query.negate()
        self.domains = nnx.Dict({name: DomainNetwork(config, rngs=rngs) for name in domains})

    def __call__(
        self, source: jax.Array, driving: jax.Array, domain: str, rngs: nnx.Rngs | None = None
    ) -> GeneratorOutput:
        """Stage 1's reconstruction: `source` with the motion of `driving` (absolute, eq. 3), both of `domain`."""
        codes_s, codes_d = self.joint_motion_codes(domain, (source, driving), rngs)
        w = absolute(codes_s.source_to_reference, codes_d.reference_to_driving)
        return self.decode(domain, self.encode_source(domain, source), w, rngs)

    def motion_codes(self, domain: str, image: jax.Array, rngs: nnx.Rngs | None = None) -> MotionCodes:
        """Project the motion of image [N, S, S, 3] into the canonical space: w_sr = T_sr(p, F), w_rd = T_rd(p, F)."""
        network = self._network(domain, image)
        descriptor, base = network.motion_encoder(image), network.motion_base[...]
        return MotionCodes(
            source_to_reference=self.source_query.project(base, descriptor, rngs),
            reference_to_driving=self.driving_query.project(base, descriptor, rngs),
        )

    def joint_motion_codes(
        self, domain: str, images: Sequence[jax.Array], rngs: nnx.Rngs | None = None
    ) -> list[MotionCodes]:
        """`motion_codes` of several batches [N_i, S, S, 3] in one pass."""
        both = self.motion_codes(domain, interleave(images), rngs)
        codes = (deinterleave(code, [len(batch) for batch in images]) for code in both)
        return [MotionCodes(*pair) for pair in zip(*codes, strict=True)]

    def encode_source(self, domain: str, image: jax.Array) -> Source:
        """Appearance maps and backward-transformer memory of image [N, S, S, 3]."""
        network = self._network(domain, image)
        maps = network.appearance_encoder(image)
        return Source(maps, network.backward_transformer.memory(maps))

    def decode(self, domain: str, source: Source, w: jax.Array, rngs: nnx.Rngs | None = None) -> GeneratorOutput:
        """Render `source` of `domain` with motion w [N, K, d]; a source of batch 1 serves every row of w."""
        network = self._network(domain)
        check_shape("w", w, (None, self.config.motion_slots, self.config.width))
        w = network.backward_transformer(w, source.memory, rngs)
        styles = network.to_styles(w.reshape(w.shape[0], -1))  # token-major, K·d → n·d
        styles = styles.reshape(w.shape[0], self.config.style_vectors, self.config.width)
        return network.generator(styles, source.maps)

    def _network(self, domain: str, image: jax.Array | None = None) -> DomainNetwork:
        if domain not in self.domains:
            raise ValueError(f"domain {domain!r} is not in this network, which has {tuple(self.domains)}.")
        if image is not None:
            check_shape("image", image, (None, self.config.image_size, self.config.image_size, 3))
        return self.domains[domain]
