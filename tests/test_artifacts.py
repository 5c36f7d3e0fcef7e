"""Files that stages exchange: whole or absent, readable by numpy and Pillow alone, tied to their settings."""

import json
import subprocess
import sys

import numpy as np
import pytest

from ssenet_jax import artifacts
from ssenet_jax.config import paper_config
from ssenet_jax.stages import manifest


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.json"
    artifacts.write_json(path, [1])
    with pytest.raises(TypeError):
        artifacts.write_json(path, object())
    with pytest.raises(RuntimeError), artifacts.replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert artifacts.read_json(path) == [1]
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


def test_arrays_and_masks_come_back_as_they_went(tmp_path):
    cam = np.random.default_rng(0).random((5, 7, 2)).astype(np.float16)
    artifacts.write_arrays(tmp_path / "a.npz", cam=cam, classes=np.array([3, 5], np.int32))
    read, classes = artifacts.read_arrays(tmp_path / "a.npz", "cam", "classes")
    np.testing.assert_array_equal(read, cam)
    assert classes.tolist() == [3, 5]
    mask = np.array([[0, 20], [255, 1]])
    artifacts.write_mask(tmp_path / "m.png", mask)
    np.testing.assert_array_equal(artifacts.read_mask(tmp_path / "m.png"), mask)


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("a.npz", lambda path: artifacts.read_arrays(path, "cam")),
        ("a.png", artifacts.read_mask),
        ("a.json", artifacts.read_json),
    ],
)
@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off"])
def test_a_damaged_file_is_named(tmp_path, name, read, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=name):
        read(path)


def test_pickled_arrays_are_refused(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, cam=np.array([{"x": 1}], dtype=object))
    with pytest.raises(ValueError, match=r"a\.npz"):
        artifacts.read_arrays(path, "cam")


def test_results_of_other_settings_are_refused_and_the_key_is_named(tmp_path):
    config = paper_config()
    path = tmp_path / "manifests" / "infer_cams.json"
    manifest.write_manifest(path, manifest.result_settings(config, ("seed", "cam")), complete=True)
    assert manifest.check_manifest(path, manifest.result_settings(config, ("seed", "cam")), stage="infer_cams")
    config.cam.flip = False
    with pytest.raises(ValueError, match=r"infer_cams with cam\.flip=True, but the config says False"):
        manifest.check_manifest(path, manifest.result_settings(config, ("seed", "cam")), stage="infer_cams")


def test_settings_that_only_say_how_to_run_do_not_count():
    config = paper_config()
    before = manifest.result_settings(config, ("data", "crf", "classifier"))
    config.data.root, config.crf.workers, config.classifier.log_every = "/elsewhere", 3, 1
    assert manifest.result_settings(config, ("data", "crf", "classifier")) == before
    config.data.train_split = "train_aug"
    changed = manifest.result_settings(config, ("data", "crf", "classifier"))
    assert manifest.settings_hash(changed) != manifest.settings_hash(before)


def test_a_second_run_in_a_workdir_is_told_so(tmp_path):
    code = f"""
from pathlib import Path
from ssenet_jax.artifacts import locked
try:
    with locked(Path({json.dumps(str(tmp_path))})):
        print("got it")
except BlockingIOError as error:
    print(error)
"""
    with artifacts.locked(tmp_path):
        second = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    third = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "another run is using" in second.stdout
    assert third.stdout == "got it\n"
