"""Saving and restoring: other device counts, damaged files, another model, nothing there."""

import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from ssenet_jax.checkpoint import Checkpoints, load_variables
from ssenet_jax.training.sharding import make_mesh

MESH = make_mesh(8)


def trees(step, mesh=MESH, spec=("data",), size=16):
    x = jax.device_put(jnp.arange(size, dtype=jnp.float32) + step, NamedSharding(mesh, PartitionSpec(*spec)))
    variables = {"params": {"b2_1": {"kernel": x}}, "batch_stats": {"bn7": {"mean": x * 2}}}
    return variables, {"b2_1": {"kernel": x * 3}}


def wanted(mesh, spec, size=16):
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), trees(0, mesh, spec, size)
    )


@pytest.fixture
def saved(tmp_path):
    with Checkpoints(tmp_path / "run", keep=2) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, *trees(step), {"input": {"next_index": step}})
    return tmp_path / "run"


def damage(path):
    """Cuts every file of a checkpoint in half, as a full disk does."""
    for file in path.rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


@pytest.mark.parametrize(("devices", "spec"), [(1, ()), (2, ("data",)), (8, ())])
def test_a_checkpoint_of_8_devices_restores_on_any_number(saved, devices, spec):
    mesh = make_mesh(devices)
    with Checkpoints(saved, keep=2) as checkpoints:
        step, variables, momentum, loop = checkpoints.restore(*wanted(mesh, spec))
    assert step == 3 and loop == {"input": {"next_index": 3}}
    jax.tree.map(np.testing.assert_array_equal, (variables, momentum), jax.device_get(trees(3)))
    assert variables["params"]["b2_1"]["kernel"].sharding == NamedSharding(mesh, PartitionSpec(*spec))


@pytest.mark.parametrize("spec", [("data",), ()])
def test_a_checkpoint_of_one_device_restores_on_8(tmp_path, spec):
    with Checkpoints(tmp_path / "run", keep=1) as checkpoints:
        checkpoints.save(1, *trees(1, make_mesh(1), ()), {})
        checkpoints.wait()
        _, variables, momentum, _ = checkpoints.restore(*wanted(MESH, spec))
    jax.tree.map(np.testing.assert_array_equal, (variables, momentum), jax.device_get(trees(1)))
    assert variables["params"]["b2_1"]["kernel"].sharding == NamedSharding(MESH, PartitionSpec(*spec))


def test_the_newest_stay(saved):
    assert sorted(path.name for path in saved.iterdir() if path.is_dir()) == ["2", "3"]


def test_saving_a_step_twice_keeps_the_first(saved):
    with Checkpoints(saved, keep=2) as checkpoints:
        checkpoints.save(3, *trees(7), {})
    np.testing.assert_array_equal(load_variables(saved, "x")["params"]["b2_1"]["kernel"], np.arange(16) + 3)


def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_is_used(saved, caplog):
    damage(saved / "3")
    with caplog.at_level(logging.WARNING):
        assert load_variables(saved, "x")["params"]["b2_1"]["kernel"][0] == 2
        assert (saved / "3").exists()
        with Checkpoints(saved, keep=2) as checkpoints:
            assert checkpoints.restore(*wanted(MESH, ()))[0] == 2
            checkpoints.save(3, *trees(3), {"input": {}})
    assert f"the checkpoint {saved / '3'} is damaged" in caplog.text
    assert (saved / "3.damaged").is_dir()
    with Checkpoints(saved, keep=2) as checkpoints:
        assert checkpoints.restore(*wanted(MESH, ()))[0] == 3


@pytest.mark.parametrize("part", ["variables", "momentum", "loop"])
def test_a_checkpoint_with_a_part_missing_is_damaged(saved, part):
    for file in (saved / "3" / part).rglob("*"):
        if file.is_file():
            file.unlink()
    with Checkpoints(saved, keep=2) as checkpoints:
        assert checkpoints.restore(*wanted(MESH, ()))[0] == 2


def test_when_all_are_damaged_nothing_starts_over_silently(saved):
    damage(saved / "2")
    damage(saved / "3")
    with pytest.raises(ValueError, match=r"none of the checkpoints \[3, 2\] in .*run can be read; remove it"):
        load_variables(saved, "x")


def test_a_checkpoint_of_another_model_is_not_taken_for_damage(saved):
    another = wanted(MESH, (), size=24)
    with Checkpoints(saved, keep=2) as checkpoints, pytest.raises(ValueError, match=r"another model .*kernel: \(16,\)"):
        checkpoints.restore(*another)
    assert (saved / "3").is_dir()


@pytest.mark.parametrize("make", [False, True])
def test_an_absent_checkpoint_names_the_stage_to_run(tmp_path, make):
    if make:
        (tmp_path / "run").mkdir()
    with pytest.raises(ValueError, match=r"no checkpoint in .*run; run the stage train_affinity first"):
        load_variables(tmp_path / "run", "train_affinity")


def test_without_a_checkpoint_there_is_nothing_to_restore(tmp_path):
    with Checkpoints(tmp_path / "run", keep=1) as checkpoints:
        assert checkpoints.newest() is None
        assert checkpoints.restore(*wanted(MESH, ())) is None
