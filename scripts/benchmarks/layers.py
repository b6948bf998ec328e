"""Each kind of layer: its forward and backward pass together against its forward pass, timed in turn.

No operation may have a pathological gradient: a ratio above 6 is listed in `above_limit`. Gradients are those of the
parameters and of all inputs. Sizes are those of the recipe's network (--config; by default the official one) where its
maps have --resolution pixels a side.
"""

import statistics
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from flax import nnx

from scripts.benchmarks.clock import in_turn, ratio
from scripts.recipe import CONFIG
from toontalker_jax import losses
from toontalker_jax.models.config import ModelConfig
from toontalker_jax.models.discriminator import minibatch_std
from toontalker_jax.models.generator import SFT, FlowHead, GeneratorStage, RGBHead
from toontalker_jax.models.layers import ActivatedConv, EqualLinear, ModulatedConv, PlainConv, ResidualBlock, StyledConv
from toontalker_jax.models.motion import LayerNorm, QueryMLP, TransformerLayer
from toontalker_jax.models.perceptual import VGG19, image_pyramid, perceptual_loss, pool
from toontalker_jax.ops.resample import blur, upsample
from toontalker_jax.ops.warp import warp

LIMIT = 6  # forward and backward over forward

_RESOLUTION = flags.DEFINE_integer("resolution", 64, "layers: side of the maps: 16, 32, 64, 128 or 256.")
_ROWS = flags.DEFINE_integer("rows", 2, "layers: rows of a layer's batch: 1, 2, or a multiple of 4.", lower_bound=1)
_LAYER_ROUNDS = flags.DEFINE_integer("layer_rounds", 5, "layers: measurements of each kind.", lower_bound=1)

Shape = tuple[int, ...]


def whole(layer: Callable, *inputs: jax.Array) -> jax.Array:
    return layer(*inputs)


class Kind(NamedTuple):
    inputs: tuple[Shape, ...]
    layer: nnx.Module | Callable  # a function has no parameters
    call: Callable = whole  # of the layer and its inputs


def convolutions(config: ModelConfig, r: int, n: int) -> dict[str, Kind]:
    """The kinds of the encoders and of the discriminator."""
    rngs, c, coarse = nnx.Rngs(0), config.channels(r), config.channels(r // 2)
    maps = ((n, r, r, c),)
    return {
        "1x1 convolution": Kind(maps, ActivatedConv(c, c, 1, rngs=rngs)),
        "3x3 convolution": Kind(maps, PlainConv(c, c, rngs=rngs)),
        "down-sampling convolution": Kind(maps, ActivatedConv(c, coarse, 3, downsample=True, rngs=rngs)),
        "residual block": Kind(maps, ResidualBlock(c, coarse, rngs=rngs)),
        "minibatch standard deviation": Kind(maps, minibatch_std),
        "blur": Kind(maps, lambda x: blur(x, (2, 2))),
        "blur, every second sample": Kind(maps, lambda x: blur(x, (1, 1), stride=2)),
    }


def generation(config: ModelConfig, r: int, n: int) -> dict[str, Kind]:
    """The kinds of the generator."""
    rngs, d, c, coarse = nnx.Rngs(0), config.width, config.channels(r), config.channels(r // 2)
    a_map, half, small, style = (n, r, r, c), (n, r // 2, r // 2, coarse), (n, r // 2, r // 2, 3), (n, d)

    def stage(layer: GeneratorStage, h: jax.Array, s: jax.Array, x: jax.Array, flow: jax.Array, rgb: jax.Array):
        return layer(h, (s, s, s), x, flow, rgb)

    return {
        "modulated convolution": Kind((a_map, style), ModulatedConv(c, c, 3, d, rngs=rngs)),
        "up-sampling convolution": Kind((half, style), StyledConv(coarse, c, d, upsample=True, rngs=rngs)),
        "up-sampling": Kind((small,), upsample),
        "flow head": Kind((a_map, style, small), FlowHead(c, config, rngs=rngs)),
        "warp": Kind((a_map, (n, r, r, 2)), lambda x, at: warp(x, 0.1 * at, align_corners=False)),
        "picture head": Kind((a_map, small), RGBHead(c, rngs=rngs)),
        "SFT": Kind((a_map, style), SFT(c, d, rngs=rngs)),
        "generator stage": Kind((half, style, a_map, small, small), GeneratorStage(r, config, rngs=rngs), stage),
    }


def motion(config: ModelConfig, r: int, n: int) -> dict[str, Kind]:
    """The kinds between the encoders and the generator."""
    rngs, d, slots = nnx.Rngs(0), config.width, config.motion_slots
    codes, tokens = (n, slots, d), (n, r * r, config.channels(r))

    def attend(layer: TransformerLayer, x: jax.Array, tokens: jax.Array) -> jax.Array:
        return layer(x, layer.cross_attention.memory(tokens))

    return {
        "transformer layer, one token": Kind((codes, (n, 1, d)), TransformerLayer(config, rngs=rngs), attend),
        "transformer layer, a map": Kind((codes, tokens), TransformerLayer(config, tokens[-1], rngs=rngs), attend),
        "query by an MLP": Kind(((slots, d), (n, d)), QueryMLP(config, rngs=rngs), QueryMLP.project),
        "layer norm": Kind((codes,), LayerNorm(d)),
        "linear layer to styles": Kind(((n, slots * d),), EqualLinear(slots * d, config.style_vectors * d, rngs=rngs)),
    }


def objectives(config: ModelConfig, r: int, n: int) -> dict[str, Kind]:
    """The losses, on pictures of twice the side."""
    vgg, picture = VGG19(dtype=config.dtype, rngs=nnx.Rngs(0)), (n, 2 * r, 2 * r, 3)

    def block(vgg: VGG19, x: jax.Array) -> jax.Array:
        x = jax.nn.relu(vgg.convs["conv2_1"](x))
        return pool(jax.nn.relu(vgg.convs["conv2_2"](x)))

    return {
        "VGG block": Kind(((n, r, r, 64),), vgg, block),
        "maxima of VGG": Kind(((n, r, r, 128),), pool),
        "image pyramid": Kind((picture,), lambda x: tuple(image_pyramid(x))),
        "perceptual loss": Kind((picture, picture), lambda x, y: perceptual_loss(vgg, x, y).mean()),
        "L1": Kind((picture, picture), losses.l1),
        "image-gradient loss": Kind((picture, picture), losses.image_gradient),
        "change loss": Kind((picture, picture, picture), losses.change),
    }


def passes(kind: Kind, dtype: str) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Forward alone, and forward and backward: jitted, on arguments that lie on the device."""
    random = np.random.default_rng(0)

    def normal(shape: Shape) -> jax.Array:
        return jnp.asarray(random.standard_normal(shape, np.float32), dtype if len(shape) == 4 else np.float32)

    inputs = tuple(map(normal, kind.inputs))
    graph, parameters = nnx.split(kind.layer) if isinstance(kind.layer, nnx.Module) else (None, ())

    def forward(parameters: Any, *inputs: jax.Array) -> Any:
        return kind.call(nnx.merge(graph, parameters) if graph else kind.layer, *inputs)

    def both(cotangent: Any, *arguments: Any) -> Any:
        output, backward = jax.vjp(forward, *arguments)
        return output, backward(cotangent)

    cotangent = jax.tree.map(lambda x: normal(x.shape).astype(x.dtype), jax.eval_shape(forward, parameters, *inputs))
    forward_program = jax.jit(forward).lower(parameters, *inputs).compile()
    both_program = jax.jit(both).lower(cotangent, parameters, *inputs).compile()
    return lambda: forward_program(parameters, *inputs), lambda: both_program(cotangent, parameters, *inputs)


def measure() -> dict[str, Any]:
    """The report."""
    r, n, rounds = _RESOLUTION.value, _ROWS.value, _LAYER_ROUNDS.value
    if r not in (16, 32, 64, 128, 256) or (n > 2 and n % 4):
        raise ValueError(f"resolution = {r}, rows = {n}: use 16, 32, 64, 128 or 256, and 1, 2 or a multiple of 4.")
    config = ModelConfig(dtype=flags.FLAGS.dtype) if CONFIG.value is None else ModelConfig(**CONFIG.value.model)
    dtype, table = config.dtype, {}
    for group in (convolutions, generation, motion, objectives):
        for name, kind in group(config, r, n).items():
            forward, both = passes(kind, dtype)
            times = in_turn({"forward": forward, "both": both}, rounds)
            table[name] = {
                "forward_ms": 1000 * statistics.median(times["forward"]),
                "forward_backward_ms": 1000 * statistics.median(times["both"]),
                "ratio": ratio(times["both"], times["forward"]),
            }
    return {
        "dtype": dtype,
        "channels": config.channels(r),
        "resolution": r,
        "rows": n,
        "rounds": rounds,
        "limit": LIMIT,
        "above_limit": [name for name, row in table.items() if row["ratio"] > LIMIT],
        "layers": table,
    }
