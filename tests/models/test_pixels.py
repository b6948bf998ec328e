import jax
import numpy as np

from toontalker_jax.models.pixels import unit_range


def test_eight_bits_become_the_unit_range():
    values = jax.jit(unit_range)(np.arange(256, dtype=np.uint8))
    assert values.dtype == np.float32 and values[0] == -1 and values[255] == 1
    np.testing.assert_allclose(values, np.arange(256) / 127.5 - 1, atol=1e-7)


def test_floats_stay():
    values = np.linspace(-1, 1, 7, dtype=np.float32)
    np.testing.assert_array_equal(jax.jit(unit_range)(values), values)
