import jax
import jax.numpy as jnp
import numpy as np
import pytest

from toontalker_jax.ops.convolution import convolve

KINDS = [(1, 1, "SAME"), (3, 1, "SAME"), (3, 2, "VALID"), (4, 1, "VALID")]


@pytest.mark.parametrize(("size", "stride", "padding"), KINDS)
def test_values_and_gradients_are_those_of_xlas_convolution(size, stride, padding):
    random = np.random.default_rng(0)
    x, kernel = (jnp.asarray(random.normal(size=shape), jnp.float32) for shape in ((2, 9, 9, 5), (size, size, 5, 3)))

    def plain(x, kernel):
        return jax.lax.conv_general_dilated(
            x, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    def ours(x, kernel):
        return convolve(x, kernel, stride, padding)

    def slope(function):
        """|∇_x|² of a picture's score, as the R1 penalty takes it: a gradient of a gradient."""
        return lambda x, kernel: jnp.square(jax.grad(lambda x: jnp.square(function(x, kernel)).sum())(x)).sum()

    for make in (lambda f: lambda x, kernel: jnp.square(f(x, kernel)).sum(), slope):
        found, wanted = (jax.jit(jax.value_and_grad(make(f), (0, 1)))(x, kernel) for f in (ours, plain))
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * float(jnp.abs(b).max()))  # sums in another order
