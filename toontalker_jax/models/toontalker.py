"""ToonTalker: one network a domain, and the two query transformers that all domains share."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from toontalker_jax.models.config import DOMAINS, ModelConfig
from toontalker_jax.models.encoders import AppearanceEncoder, MotionEncoder
from toontalker_jax.models.generator import Generator, GeneratorOutput
from toontalker_jax.models.layers import EqualLinear, normal
from toontalker_jax.models.motion import BackwardTransformer, Memory, MotionCodes, TransformerLayer, absolute
from toontalker_jax.ops.checks import check_shape


class Source(NamedTuple):
    """Everything about a source picture that does not depend on the motion: encode once, decode many times."""

    maps: dict[int, jax.Array]  # {resolution: [N or 1, r, r, C]}
    memory: tuple[Memory, ...]  # the backward transformer's keys and values


class DomainNetwork(nnx.Module):
    """The parts that belong to one domain."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        self.appearance_encoder = AppearanceEncoder(config, rngs=rngs)
        self.motion_encoder = MotionEncoder(config, rngs=rngs)
        self.motion_base = normal(rngs, (config.motion_slots, config.width))
        self.backward_transformer = BackwardTransformer(config, rngs=rngs)
        self.to_styles = EqualLinear(
            config.motion_slots * config.width, config.style_vectors * config.width, rngs=rngs
        )
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
        self.source_query = TransformerLayer(config, rngs=rngs)  # T_{s→r}
        self.driving_query = TransformerLayer(config, rngs=rngs)  # T_{r→d}
        if config.difference_init:
            self.source_query = nnx.clone(self.driving_query, arrays=True)
            self.source_query.norm3.scale[...] *= -1
        self.domains = nnx.Dict({name: DomainNetwork(config, rngs=rngs) for name in domains})

    def __call__(
        self, source: jax.Array, driving: jax.Array, domain: str, rngs: nnx.Rngs | None = None
    ) -> GeneratorOutput:
        """Stage 1's reconstruction: `source` with the motion of `driving` (absolute, eq. 3), both of `domain`."""
        codes_s, codes_d = self.pair_motion_codes(domain, source, driving, rngs)
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

    def pair_motion_codes(
        self, domain: str, first: jax.Array, second: jax.Array, rngs: nnx.Rngs | None = None
    ) -> tuple[MotionCodes, MotionCodes]:
        """`motion_codes` of two batches [N, S, S, 3] in one pass, which compiles and runs faster than two."""
        # Sample by sample, so that a batch sharded over devices stays where it is.
        both = jnp.stack([first, second], axis=1).reshape(-1, *first.shape[1:])
        codes = [code.reshape(-1, 2, *code.shape[1:]) for code in self.motion_codes(domain, both, rngs)]
        return MotionCodes(*(code[:, 0] for code in codes)), MotionCodes(*(code[:, 1] for code in codes))

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
