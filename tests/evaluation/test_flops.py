import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from toontalker_jax.evaluation.flops import count_flops
from toontalker_jax.models.config import ModelConfig
from toontalker_jax.models.toontalker import abstract_network
from toontalker_jax.ops.convolution import convolve


def test_products_and_convolutions_are_counted_by_hand():
    x, y = jnp.ones((5, 2, 3)), jnp.ones((5, 3, 7))
    assert count_flops(lambda x, y: jnp.tanh(x @ y) + 1, x, y) == 2 * 5 * 2 * 3 * 7
    image, kernel = jnp.ones((2, 8, 6, 3)), jnp.ones((3, 3, 3, 4))

    def convolve(image, kernel):
        return jax.lax.conv_general_dilated(image, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    assert count_flops(convolve, image, kernel) == 2 * (2 * 4 * 3 * 4) * 27
    assert count_flops(jax.jit(convolve), image, kernel) == 2 * (2 * 4 * 3 * 4) * 27  # inside another jaxpr


def test_a_scan_counts_each_iteration():
    x = jnp.ones((4, 4))
    assert count_flops(lambda x: jax.lax.scan(lambda c, _: (c @ c, None), x, length=7)[0], x) == 7 * 2 * 4**3


def test_a_strided_convolutions_gradient_costs_twice_its_forward_and_a_cond_its_largest_branch():
    image, kernel = jnp.ones((2, 9, 9, 3)), jnp.ones((3, 3, 3, 4))

    def loss(image, kernel):
        return convolve(image, kernel, stride=2, padding="VALID").sum()

    once = 2 * (2 * 4 * 4 * 4) * 27
    assert count_flops(loss, image, kernel) == once
    # The gradient of the image is computed at the 9 × 9 (and not 8 × 8) positions around every second one.
    assert count_flops(jax.value_and_grad(loss, (0, 1)), image, kernel) == pytest.approx(3 * once, rel=0.1)
    x = jnp.ones((4, 4))
    assert count_flops(lambda x: jax.lax.cond(x[0, 0] > 0, lambda: x @ x @ x, lambda: x @ x), x) == 2 * 2 * 4**3


def test_what_no_output_depends_on_does_not_count():
    image, kernel = jnp.ones((2, 8, 8, 3)), jnp.ones((3, 3, 3, 4))
    once = 2 * (2 * 8 * 8 * 4) * 27
    # The gradient of the kernel is traced, too, and dropped.
    gradient = jax.grad(lambda image, kernel: jnp.square(convolve(image, kernel)).sum())
    assert count_flops(gradient, image, kernel) == 2 * once
    steps = jax.jit(lambda image: jax.lax.scan(lambda x, _: (x - gradient(x, kernel), None), image, length=3)[0])
    assert count_flops(steps, image) == 3 * 2 * once


def test_the_official_network_needs_120_gflop_a_frame():
    graph, state = abstract_network(ModelConfig(), ("real",))
    picture, w = jax.ShapeDtypeStruct((1, 256, 256, 3), jnp.float32), jax.ShapeDtypeStruct((1, 20, 512), jnp.float32)
    source = jax.eval_shape(lambda s, x: nnx.merge(graph, s).encode_source("real", x), state, picture)
    codes = count_flops(lambda s, x: nnx.merge(graph, s).motion_codes("real", x), state, picture)
    decode = count_flops(lambda s, e, w: nnx.merge(graph, s).decode("real", e, w).image, state, source, w)
    encode = count_flops(lambda s, x: nnx.merge(graph, s).encode_source("real", x), state, picture)
    maps = count_flops(lambda s, x: nnx.merge(graph, s).domains["real"].appearance_encoder(x), state, picture)
    # Known of the reference: 31 for the motion encoder, 103 for backward transformer and generator, of which the 14
    # for the keys and values of the source are not needed again in each frame.
    assert codes / 1e9 == pytest.approx(31, abs=0.5)
    assert (decode + encode - maps) / 1e9 == pytest.approx(103, abs=0.5)
    assert decode / 1e9 == pytest.approx(88.4, abs=0.5)
