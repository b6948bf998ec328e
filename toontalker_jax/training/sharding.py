"""Where arrays live: a mesh of devices, batches split over it, the training state on each."""

from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec


def make_mesh() -> Mesh:
    """One axis, "data", over every device."""
    return jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def shard_batch(batch: Any, mesh: Mesh) -> Any:
    """Numpy arrays with this process's rows → global arrays split along axis 0 over "data".

    Raises:
      ValueError: the rows do not divide among this process's devices.
    """
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    devices = jax.local_device_count()

    def place(rows: np.ndarray) -> jax.Array:
        if rows.shape[0] % devices:
            raise ValueError(f"batch_size: {rows.shape[0]} rows do not divide among {devices} devices.")
        return jax.make_array_from_process_local_data(sharding, rows)

    return jax.tree.map(place, batch)
