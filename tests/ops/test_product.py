"""Products of many features against NumPy's in float64, to the second derivative."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from toontalker_jax.ops.product import product


@pytest.mark.parametrize("features", [1024, 768, 40])
def test_values_and_gradients_are_those_of_a_product(features):
    random = np.random.default_rng(0)
    x, kernel, weight = (random.normal(size=shape) for shape in ((3, features), (features, 5), (3, 5)))

    def score(x, kernel):
        return (product(x, kernel) * weight.astype(np.float32)).sum()

    def slope(x, kernel):
        """A gradient of a gradient, as the R1 penalty takes it."""
        return jnp.square(jax.grad(lambda x: jnp.square(product(x, kernel)).sum())(x)).sum()

    singles = x.astype(np.float32), kernel.astype(np.float32)
    np.testing.assert_allclose(product(*singles), x @ kernel, atol=1e-4)  # of sums as large as 100
    for found, wanted in zip(jax.grad(score, (0, 1))(*singles), (weight @ kernel.T, x.T @ weight), strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-5)
    wanted = jax.grad(lambda x: jnp.square(2 * (x @ singles[1]) @ singles[1].T).sum())(singles[0])
    np.testing.assert_allclose(jax.grad(slope)(*singles), wanted, rtol=1e-4, atol=1e-5 * float(jnp.abs(wanted).max()))


def test_a_row_of_many_features_is_rounded_like_one_of_few():
    """6e-7 of the sums' size in blocks, 1.9e-6 without them."""
    random = np.random.default_rng(0)
    x, kernel = (random.normal(size=shape).astype(np.float32) for shape in ((1, 10_240), (10_240, 64)))
    exact = x.astype(np.float64) @ kernel
    error = jax.jit(product)(x, kernel) - exact
    assert np.linalg.norm(error) < 1e-6 * np.linalg.norm(exact)
