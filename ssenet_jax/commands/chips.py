"""The accelerators that a run may be planned for: what a chip can do, and devices that are not here."""

import importlib.util
import os
from typing import NamedTuple

import jax
from jax.experimental import topologies
from jax.sharding import Mesh

from ssenet_jax.training.sharding import make_mesh

GIB = 2**30


class Chip(NamedTuple):
    """What a chip can do.

    Attributes:
        flops: FLOP/s in bfloat16, which a TPU's matrix units also take float32 in by default.
        memory: bytes.
        bandwidth: of that memory, bytes a second.
        float32: share of `flops` that is left in float32, as JAX multiplies it by default (TF32 on GPUs).
    """

    flops: float
    memory: int
    bandwidth: float
    float32: float = 1.0


TPUS = {  # https://docs.cloud.google.com/tpu/docs/system-architecture-tpu-vm, the page of each version
    "v3": Chip(123e12, 32 * GIB, 900e9),
    "v4": Chip(275e12, 32 * GIB, 1228e9),
    "v5e": Chip(197e12, 16 * GIB, 819e9),
    "v5p": Chip(459e12, 95 * GIB, 2765e9),
    "v6e": Chip(918e12, 32 * GIB, 1640e9),
}
GPUS = {  # the maker's data sheets: the SXM form, dense bfloat16
    "a100": Chip(312e12, 80 * GIB, 2039e9, 0.5),
    "h100": Chip(989e12, 80 * GIB, 3350e9, 0.5),
    "h200": Chip(989e12, 141 * GIB, 4800e9, 0.5),
}


class Devices(NamedTuple):
    """Where a plan is made for.

    Attributes:
        topology: as it was asked for.
        number: of devices.
        each: what one device has; a part of a chip where a chip is several devices.
        mesh: to compile for; a host device where nothing is compiled.
        compiles: whether a compiler is at hand.
        hosts: processes that the devices belong to.
    """

    topology: str
    number: int
    each: Chip
    mesh: Mesh
    compiles: bool
    hosts: int = 1


def devices_of(topology: str, data: int = 0) -> Devices:
    """The devices of a topology, with none of them present.

    Args:
        topology: of TPUs, ``v5e:4x4``, or ``cuda``, ``cuda:CHIP``, ``cuda:CHIPxCOUNT``; one h100 when not said.
        data: how many of them to use; 0 takes all.

    Raises:
        ValueError: an unknown chip or shape, or libtpu is not installed.
    """
    kind, _, shape = topology.partition(":")
    if kind == "cuda":
        name, times, given = (shape or "h100").partition("x")
        chip, number = _look_up(GPUS, name), int(given) if given.isdecimal() else int(not times)
        if number < 1:
            raise ValueError(f"--topology is {topology!r}; behind the x stands how many chips, as in cuda:{name}x8")
        return Devices(topology, data or number, chip, make_mesh(1, jax.local_devices(backend="cpu")), compiles=False)
    chip = _look_up(TPUS, kind)
    mesh = make_mesh(data, _tpu_devices(topology))
    # without a TPU, libtpu takes each core of a v3 or v4 chip for a device, and each has half of the chip
    cores = mesh.size // len({tuple(device.coords) for device in mesh.devices.flat})
    each = Chip(chip.flops / cores, chip.memory // cores, chip.bandwidth / cores)
    hosts = len({device.process_index for device in mesh.devices.flat})
    return Devices(topology, mesh.size, each, mesh, compiles=True, hosts=hosts)


def _look_up(chips: dict[str, Chip], name: str) -> Chip:
    if name not in chips:
        raise ValueError(f"there is no chip {name!r} to plan for; TPUs: {', '.join(TPUS)}; cuda: {', '.join(GPUS)}")
    return chips[name]


def _tpu_devices(topology: str) -> list:
    if importlib.util.find_spec("libtpu") is None:
        raise ValueError(
            f"planning for {topology} takes the TPU compiler, which is not installed; pip install 'ssenet_jax[plan]', "
            "or plan for cuda"
        )
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # or libtpu asks the cloud's metadata server where it is
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")  # or it complains that there are none
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # or one plan at a time, and none after one was killed
    # eight chips of these are sold as one host, libtpu takes them for two
    hosts = {"chips_per_host_bounds": (2, 4, 1)} if topology in ("v5e:2x4", "v6e:2x4") else {}
    try:
        return topologies.get_topology_desc(platform="tpu", topology_name=topology, **hosts).devices
    except jax.errors.JaxRuntimeError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"libtpu has no topology {topology} ({reason}); one that it has is v5e:4x4") from error
