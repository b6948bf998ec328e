"""Convolution by products against XLA's own, to the second derivative."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from toontalker_jax.ops import convolution


def slope(function):
    """|∇_x|² of a picture's score, as the R1 penalty takes it: a gradient of a gradient."""
    return lambda x, kernel: jnp.square(jax.grad(lambda x: jnp.square(function(x, kernel)).sum())(x)).sum()


KINDS = [(1, 1, "SAME"), (3, 1, "SAME"), (3, 2, "VALID"), (4, 1, "VALID"), (4, 3, "VALID")]


@pytest.mark.parametrize(("size", "stride", "padding"), KINDS)
@pytest.mark.parametrize("many", [1, 10**9], ids=["products", "convolution"])
def test_values_and_gradients_are_those_of_xlas_convolution(size, stride, padding, many, monkeypatch):
    monkeypatch.setattr(convolution, "_MANY", many)
    monkeypatch.setattr(convolution, "_FEW", 3 if many == 1 else 0)  # of 1×1: sums, or a product
    random = np.random.default_rng(0)
    x, kernel = (jnp.asarray(random.normal(size=shape), jnp.float32) for shape in ((2, 9, 9, 5), (size, size, 5, 3)))

    def plain(x, kernel):
        return jax.lax.conv_general_dilated(
            x, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    def ours(x, kernel):
        return convolution.convolve(x, kernel, stride, padding)

    for make in (lambda f: lambda x, kernel: jnp.square(f(x, kernel)).sum(), slope):
        found, wanted = (jax.jit(jax.value_and_grad(make(f), (0, 1)))(x, kernel) for f in (ours, plain))
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * float(jnp.abs(b).max()))  # sums in another order


@pytest.mark.parametrize(("size", "stride", "padding"), KINDS[1:])
def test_xla_is_left_nothing_to_turn_round_on_a_cpu(size, stride, padding):
    """It does not in a loop (parts of a batch) or conditional (the R1 penalty), and then is 16 times slower."""
    x, kernel = jnp.ones((2, 9, 9, 5)), jnp.ones((size, size, 5, 3))
    gradients = jax.grad(slope(lambda x, kernel: convolution.convolve(x, kernel, stride, padding)), (0, 1))
    program = jax.jit(gradients).lower(x, kernel).as_text("hlo")
    labels = re.findall(r"dim_labels=\S+", program)
    assert len(labels) >= 5 and set(label.rstrip(",") for label in labels) == {"dim_labels=b01f_01io->b01f"}
    assert "rhs_reversal" not in program
