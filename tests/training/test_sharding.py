"""Where the state's arrays lie on a mesh."""

import dataclasses

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from toontalker_jax.training.sharding import Layout, check_divides, make_mesh, place


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


@dataclasses.dataclass(frozen=True)
class Device:
    """As much of a device as laying out a mesh looks at."""

    id: int
    platform: str
    device_kind: str
    process_index: int
    slice_index: int
    coords: tuple[int, ...] = ()
    core_on_chip: int = 0


@pytest.mark.parametrize("fsdp", [1, 2, 8])
def test_hosts_of_gpus_follow_one_another_and_copies_stay_within_one(fsdp):
    """JAX calls every host of GPUs a slice of its own, and `jax.make_mesh` refuses several."""
    devices = [Device(i, "gpu", "NVIDIA H100 80GB HBM3", i // 8, i // 8) for i in range(32)]
    mesh = make_mesh(fsdp, devices[::-1])
    assert mesh.axis_names == ("data", "fsdp") and mesh.devices.shape == (32 // fsdp, fsdp)
    assert [device.id for device in mesh.devices.ravel()] == list(range(32))
    assert all(len({device.process_index for device in copy}) == 1 for copy in mesh.devices)


@pytest.mark.parametrize(("kind", "sides"), [("TPU v6 lite", (4, 4, 1)), ("TPU v4", (2, 2, 4))])
@pytest.mark.parametrize("fsdp", [2, 8])
def test_the_axes_of_a_tpu_slice_are_split_where_they_must(kind, sides, fsdp):
    places = [(x, y, z) for z in range(sides[2]) for y in range(sides[1]) for x in range(sides[0])]
    devices = [Device(i, "tpu", kind, i // 4, 0, place) for i, place in enumerate(places)]
    mesh = make_mesh(fsdp, devices)
    assert mesh.devices.shape == (16 // fsdp, fsdp)
    assert {device.id for device in mesh.devices.ravel()} == set(range(16))


def test_slices_of_tpus_follow_one_another_and_copies_stay_within_one():
    places = [(x, y, 0) for y in range(4) for x in range(4)]
    devices = [
        Device(16 * n + i, "tpu", "TPU v6 lite", 4 * n + i // 4, n, at) for n in (0, 1) for i, at in enumerate(places)
    ]
    mesh = make_mesh(8, devices)
    assert mesh.devices.shape == (4, 8)
    assert [{device.slice_index for device in copy} for copy in mesh.devices] == [{0}, {0}, {1}, {1}]
    with pytest.raises(ValueError, match="mesh.fsdp = 32: must divide the number of devices of a slice, 16"):
        make_mesh(32, devices)


@pytest.mark.parametrize(("counts", "accumulate"), [((6,), 1), ((24,), 4), ((12, 2), 1)])
def test_rows_that_make_no_groups_for_a_discriminator_are_refused(counts, accumulate):
    mesh = make_mesh(devices=jax.devices()[:1])
    batch = {str(i): jax.ShapeDtypeStruct((rows, 4, 4, 3), np.uint8) for i, rows in enumerate(counts)}
    check_divides(batch, accumulate, mesh)
    with pytest.raises(ValueError, match="a discriminator looks at groups of 4 rows, into which parts of "):
        check_divides(batch, accumulate, mesh, group=4)


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 8])
def test_few_rows_are_one_group(rows):
    check_divides(jax.ShapeDtypeStruct((rows, 4, 4, 3), np.uint8), 1, make_mesh(devices=jax.devices()[:1]), group=4)
