"""The mesh and where arrays lie on it."""

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from ssenet_jax.training import sharding


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
