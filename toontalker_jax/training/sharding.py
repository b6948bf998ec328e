"""Where arrays live: a mesh of devices, batches split over all of it, the training state over part of it.

The mesh has two axes. Every device has rows of the batch of its own. Along "fsdp" the devices also share one copy of
everything that a run carries (parameters, their average, optimizer state): each keeps a slice, the whole is gathered
where it is used, and gradients come back in slices. Along "data" the copies are repeated.
"""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

AXES = ("data", "fsdp")
_WHOLE_BELOW = 1024  # elements: slices of smaller arrays would save nothing and cost a message each


def make_mesh(fsdp: int = 1, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Axes ("data", "fsdp") over `devices`, by default all of every process.

    On a TPU slice, neighbours in the mesh are neighbours in the slice. Several slices, and hosts of GPUs, follow one
    another along "data"; what is shared along "fsdp" stays within a slice, and within a host that has a multiple of
    `fsdp` devices. (`jax.make_mesh` refuses several slices, which is what JAX calls hosts of GPUs, too.)

    Raises:
      ValueError: the devices, or those of a TPU slice, are not a multiple of `fsdp`.
    """
    devices = list(jax.devices() if devices is None else devices)
    slices = {getattr(device, "slice_index", 0) for device in devices} if devices[0].platform == "tpu" else {0}
    each = len(devices) // len(slices)
    if fsdp < 1 or each % fsdp:
        which = " of a slice" if len(slices) > 1 else ""
        raise ValueError(f"mesh.fsdp = {fsdp}: must divide the number of devices{which}, {each}.")
    split = {"allow_split_physical_axes": True}
    if len(slices) > 1:
        laid = mesh_utils.create_hybrid_device_mesh((each // fsdp, fsdp), (len(slices), 1), devices, **split)
    else:
        laid = mesh_utils.create_device_mesh((each // fsdp, fsdp), devices, **split)
    return Mesh(laid, AXES, axis_types=(AxisType.Auto,) * 2)


class Layout(NamedTuple):
    """The shardings of a mesh."""

    mesh: Mesh

    @property
    def whole(self) -> NamedSharding:
        """A copy on every device."""
        return NamedSharding(self.mesh, PartitionSpec())

    @property
    def rows(self) -> NamedSharding:
        """Axis 0, the batch, split over every device."""
        return NamedSharding(self.mesh, PartitionSpec(AXES))

    def rows_of_each(self, x: jax.Array) -> jax.Array:
        """Inside a jitted function: [parts, B, …] with each part split over every device."""
        return jax.lax.with_sharding_constraint(x, NamedSharding(self.mesh, PartitionSpec(None, AXES)))

    def told(self) -> AbstractContextManager:
        """While a function is traced: on CPUs, operations that go row by row know the mesh (`ops.bilinear`)."""
        on_cpu = self.mesh.devices.flat[0].platform == "cpu"
        return jax.sharding.use_abstract_mesh(self.mesh.abstract_mesh) if on_cpu else nullcontext()

    def slices(self, tree: Any) -> Any:
        """A sharding for each array of `tree`: its largest axis that "fsdp" divides is split; small ones are whole."""
        return jax.tree.map(lambda leaf: NamedSharding(self.mesh, self._spec(leaf.shape)), tree)

    def _spec(self, shape: tuple[int, ...]) -> PartitionSpec:
        fsdp = self.mesh.shape["fsdp"]
        divisible = [axis for axis, size in enumerate(shape) if size % fsdp == 0]
        if fsdp == 1 or not divisible or math.prod(shape) < _WHOLE_BELOW:
            return PartitionSpec()
        split = max(divisible, key=lambda axis: shape[axis])
        return PartitionSpec(*("fsdp" if axis == split else None for axis in range(len(shape))))

    def gather(self, tree: Any) -> Any:
        """Inside a jitted function: every array of `tree` whole on every device."""
        return jax.lax.with_sharding_constraint(tree, self.whole)

    def scatter(self, tree: Any) -> Any:
        """Inside a jitted function: every array of `tree` in its slices."""
        return jax.lax.with_sharding_constraint(tree, self.slices(tree))


def abstract(tree: Any, shardings: Any) -> Any:
    """The shapes and types of `tree` with the shardings, which are one for all or a tree like it."""
    if isinstance(shardings, NamedSharding):
        shardings = jax.tree.map(lambda _: shardings, tree)
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), tree, shardings)


def place(tree: Any, shardings: Any) -> Any:
    """Arrays that every process has in full → global arrays; `shardings` as in `abstract`."""

    def put(leaf: Any, wanted: jax.ShapeDtypeStruct) -> jax.Array:
        if wanted.sharding.is_fully_addressable:
            return jax.device_put(leaf, wanted.sharding)
        host = np.asarray(leaf)
        return jax.make_array_from_callback(host.shape, wanted.sharding, host.__getitem__)

    return jax.tree.map(put, tree, abstract(tree, shardings))


def check_batch(rows: int, accumulate: int, mesh: Mesh) -> None:
    """Raise ValueError unless `rows` divide into `accumulate` parts and these over all devices."""
    if accumulate < 1 or rows % (accumulate * mesh.size):
        parts = f"accumulate = {accumulate} × {mesh.size} devices"
        raise ValueError(f"a batch of {rows} rows does not divide among {parts}: use a multiple of their product.")


def check_divides(batch: Any, accumulate: int, mesh: Mesh, group: int = 1) -> None:
    """`check_batch` for every array of a batch: the directions of stage 2 have each their own number of rows.

    Args:
      batch: arrays, or shapes.
      group: rows that the discriminators' minibatch statistic takes together where a part has that many.

    Raises:
      ValueError: it does not divide among the devices, or a part of it not into groups.
    """
    counts = {array.shape[0] for array in jax.tree.leaves(batch)}
    for rows in counts:
        check_batch(rows, accumulate, mesh)
    parts = {rows // accumulate for rows in counts}
    if any(part % min(part, group) for part in parts) or len({min(part, group) for part in parts}) > 1:
        listed = " and ".join(map(str, sorted(parts)))
        raise ValueError(
            f"a discriminator looks at groups of {group} rows, into which parts of {listed} rows do not divide: "
            f"change batch_size, accumulate = {accumulate} or data.driver_weights."
        )


def shard_batch(batch: Any, mesh: Mesh) -> Any:
    """Numpy arrays with this process's rows → global arrays split along axis 0 over the mesh.

    On a TPU slice the mesh follows the links, and a process's devices need not be neighbours in it. The batch has the
    same rows then in another order: dropout's masks, and the groups of the discriminator's statistic where a device has
    less than one, are not those of a single host.
    """
    sharding = Layout(mesh).rows
    return jax.tree.map(lambda rows: jax.make_array_from_process_local_data(sharding, rows), batch)
