"""The mesh and where arrays lie on it."""

from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from ssenet_jax.commands.configs import load_config
from ssenet_jax.stages import runner, table
from ssenet_jax.stages.context import Context
from ssenet_jax.training import sharding

CONFIG = Path(__file__).parents[1] / "configs" / "voc12_ssenet.py"


def test_the_mesh_takes_all_devices_or_as_many_as_asked():
    assert sharding.make_mesh().size == sharding.make_mesh(0).size == len(jax.devices()) == 8
    assert sharding.make_mesh(2).devices.tolist() == jax.devices()[:2]


@pytest.mark.parametrize("data", [-1, 9])
def test_an_impossible_mesh_is_an_error(data):
    with pytest.raises(ValueError, match=rf"mesh.data is {data}, but there are 8 devices; set mesh.data=0"):
        sharding.make_mesh(data)


@pytest.mark.parametrize(
    ("shape", "spec"),
    [
        ((3, 3, 16, 8), PartitionSpec(None, None, "data")),
        ((3, 3, 8, 16), PartitionSpec(None, None, None, "data")),
        ((8, 8), PartitionSpec("data")),
        ((7, 24), PartitionSpec(None, "data")),
        ((3, 5), PartitionSpec()),
        ((), PartitionSpec()),
        ((0,), PartitionSpec()),
    ],
)
def test_the_largest_divisible_axis_is_split(shape, spec):
    assert sharding.over_largest_axis(sharding.make_mesh(), shape).spec == spec


@pytest.mark.parametrize(("batch_size", "accumulate"), [(12, 1), (8, 2), (0, 1), (8, 0)])
def test_a_batch_that_does_not_divide_is_an_error(batch_size, accumulate):
    mesh = sharding.make_mesh()
    sharding.check_batch(16, mesh, 2)
    with pytest.raises(ValueError, match="multiple of|at least 1"):
        sharding.check_batch(batch_size, mesh, accumulate)


def test_a_global_batch_keeps_the_order_of_its_rows():
    mesh = sharding.make_mesh()
    rows = np.arange(32, dtype=np.float32).reshape(16, 2)
    (array,) = sharding.global_batch({"x": rows}, 16, mesh).values()
    np.testing.assert_array_equal(array, rows)
    assert array.sharding.shard_shape(array.shape) == (2, 2)
    with pytest.raises(ValueError):
        sharding.global_batch({"x": rows}, 24, mesh)


def test_placing_leaves_the_original_alive():
    mesh = sharding.make_mesh()
    original = jax.numpy.arange(8.0)
    placed = sharding.place({"x": original}, {"x": sharding.replicated(mesh)})
    jax.jit(lambda tree: jax.tree.map(lambda x: x + 1, tree), donate_argnums=0)(placed)
    np.testing.assert_array_equal(original, np.arange(8.0))


@pytest.mark.parametrize(
    ("batch_size", "accumulate", "used"),
    [(16, 1, (1, 2, 2, 4, 4, 8)), (8, 1, (1, 2, 2, 4, 4, 8)), (10, 1, (1, 2, 2, 2, 5, 5)), (16, 4, (1, 2, 2, 4, 4, 4))],
)
def test_a_training_takes_as_many_devices_as_part_its_batch_evenly(batch_size, accumulate, used):
    for count, wanted in zip((1, 2, 3, 4, 6, 8), used, strict=True):
        part = sharding.part_for_batch(batch_size, sharding.make_mesh(count), accumulate)
        assert part.devices.tolist() == jax.devices()[:wanted]
        sharding.check_batch(batch_size, part, accumulate)


class Hosts:
    """A mesh of processes with four devices each."""

    def __init__(self, processes, platform="cuda"):
        facts = [{"process_index": i // 4, "id": i, "platform": platform} for i in range(4 * processes)]
        devices = [type("Device", (), fact)() for fact in facts]
        self.devices = np.array(devices)
        self.size = len(devices)


def test_batches_that_processes_cannot_share_are_named_before_anything_is_computed(tmp_path):
    config = load_config(str(CONFIG), ["--config.affinity.batch_size=6"])
    context = Context(config, tmp_path)
    context.mesh = Hosts(4)
    with pytest.raises(ValueError) as raised:
        runner._check_batches(context, table.TABLE)
    assert str(raised.value) == (
        "affinity: batch_size 6 does not divide by 4 processes x 1 micro-batches; take 4 or 8; "
        "segmenter: batch_size 10 does not divide by 4 processes x 1 micro-batches; take 8 or 12"
    )
    with pytest.raises(ValueError, match="batch_size 2 .*; take 4$"):
        sharding.part_for_batch(2, Hosts(4))


def test_hosts_of_a_tpu_slice_take_all_of_its_chips_or_say_what_batch_would(monkeypatch):
    monkeypatch.setattr(sharding, "make_mesh", lambda devices: devices)
    assert len(sharding.part_for_batch(24, Hosts(4))) == 12
    assert len(sharding.part_for_batch(32, Hosts(4, "tpu"))) == 16
    with pytest.raises(ValueError, match="batch_size 24 .* 4 processes of 4 chips x 1 micro-batches; take 16 or 32$"):
        sharding.part_for_batch(24, Hosts(4, "tpu"))
