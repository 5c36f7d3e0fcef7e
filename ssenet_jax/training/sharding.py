"""The mesh, and where the arrays of a training lie on it."""

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

DATA_AXIS = "data"


def make_mesh(data: int = 0, devices=None) -> Mesh:
    """A mesh with one axis, "data".

    Args:
        data: number of devices along the axis; 0 takes all.
        devices: the devices to take from; by default those of all processes.

    Raises:
        ValueError: when there are fewer devices than asked for, or a process would be left with none.
    """
    devices = list(jax.devices() if devices is None else devices)
    if not 0 <= data <= len(devices):
        raise ValueError(f"mesh.data is {data}, but there are {len(devices)} devices; set mesh.data=0 to use all")
    chosen = devices[: data or len(devices)]
    used, known = ({device.process_index for device in group} for group in (chosen, devices))
    if used != known:
        raise ValueError(
            f"mesh.data={data} leaves the processes {sorted(known - used)} without a device; set mesh.data=0 to use all"
        )
    # in the order of the processes, so that the rows a process reads are contiguous in the global batch
    chosen.sort(key=lambda device: (device.process_index, device.id))
    return Mesh(np.array(chosen), (DATA_AXIS,), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds the whole array."""
    return NamedSharding(mesh, PartitionSpec())


def over_batch(mesh: Mesh) -> NamedSharding:
    """The leading axis is split over the devices."""
    return NamedSharding(mesh, PartitionSpec(DATA_AXIS))


def over_micro_batches(mesh: Mesh) -> NamedSharding:
    """The second axis, behind that of the micro-batches, is split over the devices."""
    return NamedSharding(mesh, PartitionSpec(None, DATA_AXIS))


def over_largest_axis(mesh: Mesh, shape: tuple[int, ...]) -> NamedSharding:
    """The largest axis that the number of devices divides is split; an array that has none is replicated."""
    divisible = [(size, -axis) for axis, size in enumerate(shape) if size and size % mesh.size == 0]
    if not divisible:
        return replicated(mesh)
    axis = -max(divisible)[1]
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, DATA_AXIS))


def check_batch(batch_size: int, mesh: Mesh, accumulate: int = 1) -> None:
    """Raises a ValueError when a global batch does not part evenly over devices and micro-batches."""
    parts = mesh.size * accumulate
    if accumulate < 1:
        raise ValueError(f"accumulate is {accumulate}; it is the number of micro-batches of a step, at least 1")
    if batch_size < 1 or batch_size % parts:
        raise ValueError(
            f"batch_size {batch_size} does not divide by {mesh.size} devices x {accumulate} micro-batches; "
            f"use a multiple of {parts}, or set mesh.data to a number of devices that divides it"
        )


def part_for_batch(batch_size: int, mesh: Mesh, accumulate: int = 1) -> Mesh:
    """The largest part of a mesh over which a global batch parts evenly: as many devices of each process.

    The batch, and so the loss and its gradient, stay what they are on one device; what is left out idles. Of a
    TPU slice of several hosts all chips are taken: its compiler refuses most programs on some chips of each host.

    Raises:
        ValueError: the processes alone, or all chips of such a slice, part the batch unevenly; the nearest batches that
            work are named.
    """
    parts = max(1, accumulate)
    groups: dict[int, list] = {}
    for device in mesh.devices.flat:
        groups.setdefault(device.process_index, []).append(device)
    most = min(map(len, groups.values()))
    fewest = most if len(groups) > 1 and mesh.devices.flat[0].platform == "tpu" else 1
    for each in range(most, fewest - 1, -1):
        if batch_size % (each * len(groups) * parts) == 0:
            return make_mesh(devices=[device for group in groups.values() for device in group[:each]])
    unit = fewest * len(groups) * parts
    below, above = batch_size // unit * unit, -(-batch_size // unit) * unit
    nearest = " or ".join(f"{size}" for size in (below, above) if size)
    raise ValueError(
        f"batch_size {batch_size} does not divide by {len(groups)} processes"
        f"{f' of {fewest} chips' if fewest > 1 else ''} x {parts} micro-batches; take {nearest}"
    )


def place(tree, shardings):
    """Copies host or device arrays, the same on every process, to where `shardings` says; the originals stay alive.

    Args:
        tree: tree of arrays.
        shardings: tree of shardings of the same structure.
    """

    def put(leaf, sharding):
        leaf = np.array(leaf)
        return jax.make_array_from_callback(leaf.shape, sharding, lambda index: leaf[index])

    return jax.tree.map(put, tree, shardings)


def global_batch(batch: dict, batch_size: int, mesh: Mesh) -> dict:
    """The global arrays of a batch of which each process holds its own contiguous rows.

    Args:
        batch: dict of numpy arrays (local rows, ...), the same number of rows on every process.
        batch_size: rows of all processes together.
        mesh: the devices.
    """

    def gather(rows):
        return jax.make_array_from_process_local_data(over_batch(mesh), rows, (batch_size, *rows.shape[1:]))

    return {name: gather(np.asarray(rows)) for name, rows in batch.items()}
