"""What a network looks like: one frozen dataclass, every default written once."""

import dataclasses
import math

import jax.numpy as jnp

DOMAINS = ("real", "cartoon")


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Sizes and choices of a `ToonTalker` network. The defaults are the released network.

    Attributes:
      image_size: S, a power of two from 64 to 1024.
      width: d, the width of style vectors, motion codes and transformers.
      motion_slots: K, the number of learned motion tokens.
      heads: attention heads; divides `width`.
      channel_base, channel_cap: a map of resolution r has min(channel_cap, channel_base / r) channels.
      backward_resolutions: the appearance maps that the backward transformer reads, coarse to fine. The released
        weights need (4, 16, 64); the paper says (16, 32, 64). (): no backward transformer (the paper's Table 7).
      query: what projects motion into the canonical space: "transformer" as released, or "mlp" (Table 7, `QueryMLP`).
      dropout: rate on attention weights, in training only.
      sft_from: the lowest resolution whose warped map is modulated again (SFT), which is how a stage paints what the
        source does not show. 64 as released, which at 256 px are the three finest stages; 0: no SFT (Table 7).
      align_corners: where the generator's sampler puts -1 and 1. The released weights need False, although their
        grid follows the True convention (`reference.md`, generator, step 3); a network trained from scratch may
        choose the consistent True.
      flow_init_scale: scale of the flow heads' initial weights. 1 as released; 0.1 starts near the identity flow.
      mask_init_bias: initial bias of the first flow head's mask logit. 0 as released; > 0 starts by warping.
      difference_init: start so that differences of motion alone reach the generator, undamped: T_{s→r} as T_{r→d} with
        the opposite sign, so that w_sr + w_rd = 0 for a picture that drives itself, and every residual branch of the
        transformers at zero but the one that brings F. False as released.
      dtype: what convolutions and matrix products compute in; parameters are always float32.
      remat: forget what is inside residual blocks and generator stages and compute it again for the gradient: less
        memory, more arithmetic, the same results.
    """

    image_size: int = 256
    width: int = 512
    motion_slots: int = 20
    heads: int = 8
    channel_base: int = 16384
    channel_cap: int = 512
    backward_resolutions: tuple[int, ...] = (4, 16, 64)
    query: str = "transformer"
    dropout: float = 0.1
    sft_from: int = 64
    align_corners: bool = False
    flow_init_scale: float = 1.0
    mask_init_bias: float = 0.0
    difference_init: bool = False
    dtype: str = "float32"
    remat: bool = False

    def __post_init__(self) -> None:
        if self.image_size not in (64, 128, 256, 512, 1024):
            raise ValueError(f"image_size = {self.image_size}: must be 64, 128, 256, 512 or 1024.")
        for name in ("width", "motion_slots", "heads", "channel_base", "channel_cap"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} = {value!r}: must be a whole number of at least 1.")
        if self.width % self.heads:
            raise ValueError(f"width = {self.width} is not divisible by heads = {self.heads}.")
        if self.channels(self.image_size) < 1:
            raise ValueError(f"channel_base = {self.channel_base} gives no channel at {self.image_size} px; raise it.")
        object.__setattr__(self, "backward_resolutions", tuple(self.backward_resolutions))  # JSON gives a list
        if len(self.backward_resolutions) not in (0, 3) or not set(self.backward_resolutions) <= set(self.resolutions):
            known = f"name three of the map sizes {self.resolutions}, or none"
            raise ValueError(f"backward_resolutions = {self.backward_resolutions}: {known}.")
        if list(self.backward_resolutions) != sorted(self.backward_resolutions):
            raise ValueError(f"backward_resolutions = {self.backward_resolutions}: name them from coarse to fine.")
        if self.sft_from not in (*self.resolutions[:-1], 0):
            stages = self.resolutions[:-1]
            raise ValueError(f"sft_from = {self.sft_from}: name one of the generator's stages {stages}, or 0 for none.")
        if self.query not in ("transformer", "mlp"):
            raise ValueError(f"query = {self.query!r}: must be 'transformer' or 'mlp'.")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout = {self.dropout}: must be in [0, 1).")
        if self.dtype not in ("float32", "bfloat16", "float16"):
            raise ValueError(f"dtype = {self.dtype!r}: must be 'float32', 'bfloat16' or 'float16'.")

    def channels(self, resolution: int) -> int:
        """Channels of every map of this resolution."""
        return min(self.channel_cap, self.channel_base // resolution)

    def has_sft(self, resolution: int) -> bool:
        """Whether the generator's stage of this resolution modulates the warped map again."""
        return 0 < self.sft_from <= resolution

    @property
    def resolutions(self) -> tuple[int, ...]:
        """Sides of the appearance maps: S, S/2, … 4."""
        return tuple(self.image_size >> i for i in range(self.stages + 1))

    @property
    def stages(self) -> int:
        """Generator stages: resolutions 8, 16, … S."""
        return int(math.log2(self.image_size)) - 2

    @property
    def style_vectors(self) -> int:
        """n = 2 log2(S) - 2."""
        return 2 * self.stages + 2

    @property
    def compute_dtype(self) -> jnp.dtype:
        return jnp.dtype(self.dtype)
