"""Saving and restoring: other device counts, damaged files, another model, nothing there."""

import errno
import logging
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from ssenet_jax import checkpoint
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


@pytest.fixture(scope="module")
def three_steps(tmp_path_factory):
    folder = tmp_path_factory.mktemp("three_steps") / "run"
    with Checkpoints(folder, keep=2) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, *trees(step), {"input": {"next_index": step}})
    return folder


@pytest.fixture
def saved(three_steps, tmp_path):
    return shutil.copytree(three_steps, tmp_path / "run")


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
    with caplog.at_level(logging.WARNING), Checkpoints(saved, keep=2) as checkpoints:
        assert checkpoints.restore(*wanted(MESH, ()))[0] == 2
        checkpoints.save(3, *trees(3), {"input": {}})
    assert f"the checkpoint {saved / '3'} is damaged" in caplog.text
    assert (saved / "3.damaged").is_dir()
    with Checkpoints(saved, keep=2) as checkpoints:
        assert checkpoints.restore(*wanted(MESH, ()))[0] == 3


def test_a_step_that_is_damaged_again_and_again_is_set_aside_each_time(saved):
    for _ in range(3):
        damage(saved / "3")
        with Checkpoints(saved, keep=2) as checkpoints:
            assert checkpoints.restore(*wanted(MESH, ())).step == 2
            checkpoints.save(3, *trees(3), {"input": {}})
    assert {"3", "3.damaged", "3.damaged.1", "3.damaged.2"} <= {path.name for path in saved.iterdir()}


def test_a_model_that_is_read_is_never_older_than_the_newest(saved):
    damage(saved / "3")
    remedy = rf"3 is damaged \(.*\); delete {saved / '3'} and run the stage train_x again, which goes on"
    with pytest.raises(ValueError, match=remedy):
        load_variables(saved, "train_x")
    assert (saved / "3").is_dir()
    with Checkpoints(saved, keep=2) as checkpoints:
        checkpoints.restore(*wanted(MESH, ()))
    with pytest.raises(ValueError, match="step 3, is damaged; run the stage train_x again, which goes on from what"):
        load_variables(saved, "train_x")


DAMAGES = {  # of a file's bytes, or None for none
    "gone": lambda data: None,
    "empty": lambda data: b"",
    "half": lambda data: data[: len(data) // 2],
    "nested": lambda data: b"[" * 5000 + b"]" * 5000,
    "null": lambda data: b"null",
    "a table of nothing": lambda data: b"{}",
    "text": lambda data: "\u00e4".encode("latin-1") * 40,
}
OPTIONAL = ("variables/_sharding", "variables/array_metadatas/process_0")


@pytest.mark.parametrize(
    ("file", "damage_of"),
    [("loop/metadata", name) for name in DAMAGES]
    + [("variables/_METADATA", name) for name in ("gone", "half", "nested", "null")]
    + [(name, kind) for name in ("momentum/_METADATA", *OPTIONAL) for kind in ("gone", "nested", "a table of nothing")],
)
def test_damaged_metadata_set_one_checkpoint_aside(saved, file, damage_of):
    path = saved / "3" / file
    data = DAMAGES[damage_of](path.read_bytes())
    path.unlink() if data is None else path.write_bytes(data)
    harmless = file in OPTIONAL and (damage_of == "gone" or "array_metadatas" in file and "table" in damage_of)
    with Checkpoints(saved, keep=2) as checkpoints:
        restored = checkpoints.restore(*wanted(MESH, ()), lambda step, loop: bool(loop))
    assert restored.step == (3 if harmless else 2)


@pytest.mark.parametrize("file", ["_METADATA", "_sharding"])
def test_a_damaged_folder_of_weights_is_to_be_written_again(saved, file):
    (saved / "3" / "variables" / file).write_bytes(b"[" * 5000)
    with pytest.raises(ValueError, match=rf"{file} is not JSON.*write the folder again with ssenet import-weights"):
        load_variables(saved)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EMFILE, "Too many open files"),
        OSError(errno.EIO, "Input/output error"),
        MemoryError(),
        ValueError("RESOURCE_EXHAUSTED: Error reading: Too many open files"),
        ValueError("PERMISSION_DENIED: Failed to open"),
        jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes"),
        AttributeError("a library of another version"),
    ],
    ids=repr,
)
def test_what_proves_no_damage_changes_nothing(saved, monkeypatch, error):
    def restore(*arguments, **options):
        raise Exception("Encountered error while reading array index") from error

    before = sorted(path.name for path in saved.iterdir())
    monkeypatch.setattr(checkpoint.ocp.StandardCheckpointHandler, "restore", restore)
    with pytest.raises(OSError, match="cannot be read just now .*; nothing was changed"):
        load_variables(saved, "x")
    with Checkpoints(saved, keep=2) as checkpoints, pytest.raises(OSError, match="nothing was changed"):
        checkpoints.restore(*wanted(MESH, ()))
    assert sorted(path.name for path in saved.iterdir()) == before


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_end_of_the_process_changes_nothing(saved, monkeypatch, error):
    def restore(*arguments, **options):
        raise error

    monkeypatch.setattr(checkpoint.ocp.StandardCheckpointHandler, "restore", restore)
    with Checkpoints(saved, keep=2) as checkpoints, pytest.raises(error):
        checkpoints.restore(*wanted(MESH, ()))
    assert (saved / "3").is_dir()


def test_what_another_process_finds_counts_here_too(saved, monkeypatch):
    monkeypatch.setattr(checkpoint.hosts, "agree", lambda where, word: [word, "damaged d/1 does not decode"])
    with Checkpoints(saved, keep=2) as checkpoints, pytest.raises(ValueError, match="every checkpoint in"):
        checkpoints.restore(*wanted(MESH, ()))
    assert {"2.damaged", "3.damaged"} <= {path.name for path in saved.iterdir()}


def test_hosts_that_have_the_workdir_under_other_paths_meet(saved, monkeypatch):
    places = []
    monkeypatch.setattr(checkpoint.hosts, "agree", lambda where, word: places.append(where) or [word])
    with Checkpoints(saved, keep=2) as checkpoints:
        checkpoints.restore(*wanted(MESH, ()))
    assert places and not any(str(saved.parent) in where for where in places)


def test_a_failure_of_another_process_is_one_here_too(saved, monkeypatch):
    monkeypatch.setattr(checkpoint.hosts, "agree", lambda where, word: [word, "failed Too many open files"])
    with Checkpoints(saved, keep=2) as checkpoints:
        with pytest.raises(OSError, match="process 1 could not restore .*/3: Too many open files"):
            checkpoints.restore(*wanted(MESH, ()))
    assert (saved / "3").is_dir()


FULL = """
import logging, os, resource, sys
import jax.numpy as jnp
from pathlib import Path
from ssenet_jax.checkpoint import Checkpoints
tree = {"a": {"kernel": jnp.arange(200_000.0) * 1.37}}
limit = sys.argv[2]
with Checkpoints(sys.argv[1], keep=2) as checkpoints:
    checkpoints.save(1, {"params": tree}, tree, {})
    checkpoints.wait()
    if limit == "size":
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    else:
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 6,) * 2)
    try:
        checkpoints.save(2, {"params": tree}, tree, {})
        checkpoints.wait()
    except OSError as error:
        print(str(error).replace("\\n", " "))
"""


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts open files as Linux shows them")
@pytest.mark.parametrize("limit", ["size", "files"])
def test_a_full_disk_and_too_many_files_are_one_line_and_leave_what_was_there(tmp_path, limit):
    command = [sys.executable, "-c", FULL, str(tmp_path / "run"), limit]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert f"a checkpoint in {tmp_path / 'run'} could not be written" in ended.stdout
    assert ended.stdout.count("\n") == 1 and ended.stderr == ""
    assert float(load_variables(tmp_path / "run", "x")["params"]["a"]["kernel"][1]) == pytest.approx(1.37)


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
    for _ in range(2):  # the second time nothing but what was set aside is left
        with Checkpoints(saved, keep=2) as checkpoints:
            with pytest.raises(ValueError, match=r"every checkpoint in .*run is damaged \(steps 3, 2\); delete that"):
                checkpoints.restore(*wanted(MESH, ()))
    with pytest.raises(ValueError, match=r"step 3, is damaged; delete .*run and run the stage x again"):
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
