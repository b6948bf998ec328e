"""Where the state's arrays lie on a mesh."""

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from toontalker_jax.training.sharding import Layout, make_mesh, place


@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((3, 3, 64, 128), (None, None, None, "fsdp")),
        ((3, 3, 128, 64), (None, None, "fsdp", None)),
        ((512, 510), ("fsdp", None)),  # of two axes that could be, the one that divides
        ((64, 1023), ("fsdp", None)),
        ((513, 1023), ()),  # none does
        ((512,), ()),  # too small to be worth a message
        ((1024,), ("fsdp",)),
    ],
    ids=str,
)
def test_the_largest_axis_that_divides_is_split(shape, axes):
    layout = Layout(make_mesh(4, jax.devices()[:8]))
    assert layout.slices(np.zeros(shape)).spec == PartitionSpec(*axes)


def test_a_copy_is_shared_along_fsdp_and_repeated_along_data():
    layout = Layout(make_mesh(4, jax.devices()[:8]))
    array = np.arange(2048.0)
    found = place(array, layout.slices(array))
    assert {shard.data.shape for shard in found.addressable_shards} == {(512,)}
    starts = sorted(int(shard.data[0]) for shard in found.addressable_shards)
    assert starts == sorted([0, 512, 1024, 1536] * 2)


def test_without_fsdp_everything_is_whole_everywhere():
    layout = Layout(make_mesh(1, jax.devices()[:2]))
    assert layout.slices(np.zeros((512, 512))).spec == PartitionSpec()


def test_a_mesh_that_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="mesh.fsdp = 3: must divide the number of devices, 8"):
        make_mesh(3, jax.devices()[:8])
