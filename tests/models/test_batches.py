"""Several batches in one."""

import jax.numpy as jnp
import numpy as np
import pytest

from toontalker_jax.models.batches import deinterleave, interleave


def test_rows_stand_in_turn():
    first, second = np.arange(4), 10 + np.arange(4)
    np.testing.assert_array_equal(interleave((first, second)), [0, 10, 1, 11, 2, 12, 3, 13])
    np.testing.assert_array_equal(interleave((first, second), blocks=2), [0, 1, 10, 11, 2, 3, 12, 13])
    np.testing.assert_array_equal(interleave((first, second[:2])), [0, 1, 10, 2, 3, 11])


@pytest.mark.parametrize("sizes", [(4, 4, 4), (6, 2, 4), (3,)])
@pytest.mark.parametrize("blocks", [None, 1])
def test_there_and_back(sizes, blocks):
    batches = [jnp.asarray(np.random.default_rng(size).normal(size=(size, 3, 2))) for size in sizes]
    back = deinterleave(interleave(batches, blocks), sizes, blocks)
    for batch, found in zip(batches, back, strict=True):
        np.testing.assert_array_equal(batch, found)


def test_blocks_must_divide_all_batches():
    with pytest.raises(ValueError, match=r"batches of \(4, 6\) do not divide into 4 blocks"):
        interleave((jnp.zeros(4), jnp.zeros(6)), blocks=4)
