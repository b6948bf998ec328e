"""Motion in the canonical space: transformer layers, the query transformers' codes and their arithmetic."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from toontalker_jax.models.config import ModelConfig
from toontalker_jax.models.layers import PlainConv
from toontalker_jax.ops.broadcast import spread


class MotionCodes(NamedTuple):
    """One image's motion, measured against the canonical reference pose. Both [N, K, d], float32."""

    source_to_reference: jax.Array  # w_sr if the image is a source
    reference_to_driving: jax.Array  # w_rd if it is a driver (w_rs if it is a source)


def absolute(source_sr: jax.Array, driving_rd: jax.Array) -> jax.Array:
    """w = w_sr + w_rd (eq. 3)."""
    return source_sr + driving_rd


def relative(
    source: MotionCodes, reference_rd: jax.Array, driving_rd: jax.Array, scale: jax.Array | float = 1.0
) -> jax.Array:
    """w = (w_sr + w_rs) + (w_rd - w_r1) (eq. 5); `reference_rd` is w_r1, of the driving video's reference frame.

    `scale` multiplies the driver's part: 0 = the source as it is, 1 = the paper's, > 1 exaggerates.
    """
    return source.source_to_reference + source.reference_to_driving + scale * (driving_rd - reference_rd)


class Linear(nnx.Module):
    """x · kernel + bias in `dtype`; torch's plain linear layer with Xavier-uniform weights and zero bias."""

    def __init__(
        self, features_in: int, features_out: int, *, dtype: jnp.dtype, zero_init: bool = False, rngs: nnx.Rngs
    ):
        init = nnx.initializers.zeros if zero_init else nnx.initializers.xavier_uniform()
        self.kernel = nnx.Param(init(rngs.params(), (features_in, features_out), jnp.float32))
        self.bias = nnx.Param(jnp.zeros((features_out,), jnp.float32))
        self.dtype = dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x.astype(self.dtype) @ self.kernel[...].astype(self.dtype)
        return x + spread(self.bias[...], x)


class LayerNorm(nnx.Module):
    """Over the last axis, float32, eps 1e-5 inside the root."""

    def __init__(self, width: int):
        self.scale = nnx.Param(jnp.ones((width,), jnp.float32))
        self.bias = nnx.Param(jnp.zeros((width,), jnp.float32))

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x.astype(jnp.float32)
        x = x - x.mean(-1, keepdims=True)
        return x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + 1e-5) * self.scale[...] + self.bias[...]


class Memory(NamedTuple):
    """Keys and values of a cross-attention, [N or 1, T, heads, d / heads]: computed once a source image."""

    key: jax.Array
    value: jax.Array


class Attention(nnx.Module):
    """Multi-head attention; softmax in float32, dropout on the attention weights when `rngs` is given.

    With `zero_init` it starts with an output of zero.
    """

    def __init__(self, config: ModelConfig, memory_width: int, *, zero_init: bool = False, rngs: nnx.Rngs):
        width, dtype = config.width, config.compute_dtype
        self.query = Linear(width, width, dtype=dtype, rngs=rngs)
        self.key = Linear(memory_width, width, dtype=dtype, rngs=rngs)
        self.value = Linear(memory_width, width, dtype=dtype, rngs=rngs)
        self.out = Linear(width, width, dtype=dtype, zero_init=zero_init, rngs=rngs)
        self.dropout = nnx.Dropout(config.dropout)
        self.heads = config.heads

    def memory(self, tokens: jax.Array) -> Memory:
        """tokens [N, T, memory_width]."""
        return Memory(self._split(self.key(tokens)), self._split(self.value(tokens)))

    def __call__(self, x: jax.Array, memory: Memory, rngs: nnx.Rngs | None) -> jax.Array:
        """x [N, K, d] → [N, K, d]; a memory of batch 1 serves the whole batch."""
        query = self._split(self.query(x))
        key, value = (jnp.broadcast_to(m, (x.shape[0], *m.shape[1:])) for m in memory)
        logits = jnp.einsum("nqhc,nkhc->nhqk", query, key).astype(jnp.float32) / math.sqrt(query.shape[-1])
        weights = jax.nn.softmax(logits, axis=-1)
        weights = self.dropout(weights, deterministic=rngs is None, rngs=rngs).astype(value.dtype)
        return self.out(jnp.einsum("nhqk,nkhc->nqhc", weights, value).reshape(x.shape))

    def _split(self, x: jax.Array) -> jax.Array:
        return x.reshape(*x.shape[:-1], self.heads, -1)


class TransformerLayer(nnx.Module):
    """Cross-attention FIRST, then self-attention, then a ReLU feed-forward of the same width; norms after each.

    With `config.difference_init` the residual branches start at zero, the cross-attention's only if `zero_cross`.
    """

    def __init__(
        self, config: ModelConfig, memory_width: int | None = None, *, zero_cross: bool = False, rngs: nnx.Rngs
    ):
        width, dtype, zero = config.width, config.compute_dtype, config.difference_init
        self.cross_attention = Attention(config, memory_width or width, zero_init=zero and zero_cross, rngs=rngs)
        self.self_attention = Attention(config, width, zero_init=zero, rngs=rngs)
        self.feed_forward1 = Linear(width, width, dtype=dtype, rngs=rngs)
        self.feed_forward2 = Linear(width, width, dtype=dtype, zero_init=zero, rngs=rngs)
        self.norm1, self.norm2, self.norm3 = LayerNorm(width), LayerNorm(width), LayerNorm(width)

    def __call__(self, x: jax.Array, memory: Memory, rngs: nnx.Rngs | None = None) -> jax.Array:
        """x [N, K, d], float32 → [N, K, d], float32. `memory` comes from `self.cross_attention.memory(tokens)`."""
        x = self.norm1(x + self.cross_attention(x, memory, rngs))
        x = self.norm2(x + self.self_attention(x, self.self_attention.memory(x), rngs))
        return self.norm3(x + self.feed_forward2(jax.nn.relu(self.feed_forward1(x))))

    def project(self, motion_base: jax.Array, descriptor: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        """As a query transformer T(p, F): motion base p [K, d] asks the one token F [N, d] → motion code [N, K, d]."""
        queries = jnp.broadcast_to(motion_base, (descriptor.shape[0], *motion_base.shape))
        return self(queries, self.cross_attention.memory(descriptor[:, None, :]), rngs)

    def negate(self) -> None:
        """Gives the output the other sign, of a layer as it is made (its last bias is zero)."""
        self.norm3.scale[...] *= -1


class QueryMLP(nnx.Module):
    """Stands in for a query transformer in Table 7's ablation: no attention, no norm, each motion token by itself.

    w_k = W₂ relu(W_p p_k + W_F F + b) + c. The paper says no more than "MLP"; this one sees what T(p, F) sees.
    """

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        width, dtype = config.width, config.compute_dtype
        self.base = Linear(width, width, dtype=dtype, rngs=rngs)
        self.descriptor = Linear(width, width, dtype=dtype, rngs=rngs)
        self.out = Linear(width, width, dtype=dtype, rngs=rngs)

    def project(self, motion_base: jax.Array, descriptor: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        """As `TransformerLayer.project`; `rngs` changes nothing, there is no dropout."""
        base, descriptor = (x.astype(jnp.float32) for x in (self.base(motion_base), self.descriptor(descriptor)))
        hidden = base + descriptor[:, None, :]  # [N, K, d]
        return self.out(jax.nn.relu(hidden)).astype(jnp.float32)

    def negate(self) -> None:
        """As `TransformerLayer.negate`."""
        self.out.kernel[...] *= -1


def query(config: ModelConfig, *, rngs: nnx.Rngs) -> TransformerLayer | QueryMLP:
    """What projects a motion base and a descriptor into the canonical space, of the kind that `config.query` names."""
    return QueryMLP(config, rngs=rngs) if config.query == "mlp" else TransformerLayer(config, rngs=rngs)


class BackwardTransformer(nnx.Module):
    """T_B: from the canonical space back to a domain's own motion, reading the source's appearance maps.

    Three layers over three maps (4, 16 and 64 pixels as released), coarse to fine; the finest passes a 3×3 convolution.
    Without `config.backward_resolutions` there are none, and motion stays as it is.
    """

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        self.resolutions = config.backward_resolutions
        if not self.resolutions:
            return
        coarse, middle, fine = (config.channels(r) for r in self.resolutions)
        self.coarse = TransformerLayer(config, coarse, zero_cross=True, rngs=rngs)
        self.middle = TransformerLayer(config, middle, zero_cross=True, rngs=rngs)
        self.fine = TransformerLayer(config, zero_cross=True, rngs=rngs)
        self.lateral = PlainConv(fine, config.width, rngs=rngs)

    def memory(self, maps: dict[int, jax.Array]) -> tuple[Memory, ...]:
        """Keys and values of the appearance maps {resolution: [N, r, r, C]}, for `__call__`."""
        if not self.resolutions:
            return ()
        coarse, middle, fine = (maps[r] for r in self.resolutions)
        inputs = (coarse, middle, self.lateral(fine))
        tokens = [m.reshape(m.shape[0], -1, m.shape[-1]) for m in inputs]  # [N, r, r, C] → [N, T, C]
        return tuple(layer.cross_attention.memory(t) for layer, t in zip(self._layers(), tokens, strict=True))

    def __call__(self, w: jax.Array, memory: tuple[Memory, ...], rngs: nnx.Rngs | None = None) -> jax.Array:
        """w [N, K, d] → [N, K, d], float32."""
        for layer, layer_memory in zip(self._layers(), memory, strict=True):
            w = layer(w, layer_memory, rngs)
        return w

    def _layers(self) -> tuple[TransformerLayer, ...]:
        return (self.coarse, self.middle, self.fine) if self.resolutions else ()
