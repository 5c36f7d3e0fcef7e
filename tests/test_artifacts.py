"""Files that stages exchange: whole or absent, readable by numpy and Pillow alone, tied to their settings."""

import errno
import io
import json
import os
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from PIL import Image

from ssenet_jax import artifacts


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


def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch):
    def flock(file, how):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(artifacts.fcntl, "flock", flock)
    with (
        pytest.raises(OSError, match=f"{tmp_path} cannot be locked .*use a --workdir on another one"),
        artifacts.locked(tmp_path),
    ):
        pass


def test_every_flipped_byte_of_an_archive_is_damage_or_harmless(tmp_path):
    path = tmp_path / "a.npz"
    artifacts.write_arrays(path, cam=np.arange(60, dtype=np.float16).reshape(5, 6, 2), classes=np.int32([3, 5]))
    data = path.read_bytes()
    for place in range(len(data)):
        path.write_bytes(data[:place] + bytes([data[place] ^ 255]) + data[place + 1 :])
        try:
            cam, classes = artifacts.read_arrays(path, "cam", "classes")
        except ValueError as error:
            assert str(path) in str(error) and str(error).endswith("delete it and run the stage that writes it again")
            assert "\n" not in str(error)
        else:  # a time, or another field that no reader looks at
            assert cam.tolist() == np.arange(60).reshape(5, 6, 2).tolist() and classes.tolist() == [3, 5]


@pytest.mark.parametrize("read", [lambda path: artifacts.read_arrays(path, "cam"), artifacts.read_mask])
@pytest.mark.parametrize("code", [errno.EMFILE, errno.EIO, errno.ENOMEM, errno.EACCES])
def test_what_cannot_be_read_just_now_is_not_called_damaged(tmp_path, monkeypatch, read, code):
    def refuse(*arguments, **options):
        raise OSError(code, os.strerror(code))

    path = tmp_path / "a.npz"
    artifacts.write_arrays(path, cam=np.zeros(3))
    monkeypatch.setattr(io, "open", refuse)
    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(OSError, match=os.strerror(code)):
        read(path)


def test_a_disk_that_fails_while_an_archive_is_read_does_not_make_it_damaged(tmp_path, monkeypatch):
    def fail(*arguments):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    artifacts.write_arrays(tmp_path / "a.npz", cam=np.zeros(3))
    monkeypatch.setattr(zipfile.ZipExtFile, "read", fail)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        artifacts.read_arrays(tmp_path / "a.npz", "cam")


def test_a_label_map_is_checked_against_its_photo_and_its_classes(tmp_path):
    path = tmp_path / "m.png"
    artifacts.write_mask(path, np.array([[0, 6, 255], [1, 2, 3]]))
    assert artifacts.read_mask(path, num_classes=6, size=(2, 3)).shape == (2, 3)
    with pytest.raises(ValueError, match=r"m\.png holds the class 6, the largest is 5; delete it"):
        artifacts.read_mask(path, num_classes=5)
    with pytest.raises(ValueError, match=r"m\.png is damaged \(it is 3 x 2 pixels, expected 4 x 2\)"):
        artifacts.read_mask(path, size=(2, 4))
    Image.fromarray(np.zeros((2, 3, 3), np.uint8)).save(path)
    with pytest.raises(ValueError, match=r"m\.png is damaged \(its mode is RGB"):
        artifacts.read_mask(path)


@pytest.mark.parametrize("stored", [bool, np.uint8, np.uint16])
def test_a_label_map_of_another_depth_that_a_person_put_there_is_read(tmp_path, stored):
    mask = np.array([[0, 1, 1], [1, 0, 1]])
    Image.fromarray(mask.astype(stored)).save(tmp_path / "m.png")
    read = artifacts.read_mask(tmp_path / "m.png", num_classes=1)
    np.testing.assert_array_equal(read, mask.astype(np.uint8), strict=True)


def test_a_label_map_of_16_bits_with_a_class_that_does_not_fit_is_refused(tmp_path):
    Image.fromarray(np.array([[0, 257]], np.uint16)).save(tmp_path / "m.png")
    with pytest.raises(ValueError, match=r"m\.png is damaged \(it holds the class 257, the largest is 255\)"):
        artifacts.read_mask(tmp_path / "m.png")


def test_only_temporary_files_of_this_package_are_removed(tmp_path):
    name = f".{'0f' * 16}.ssenet-part"
    ours = [name, f"cams/{name}", f"predictions/val/{name}"]
    theirs = [".movie.mp4.part", ".x.part", "cams/.a.npz.7.part", f"photos/{name}", "cams/notes.ssenet-part"]
    for name in (*ours, *theirs):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "cams" / f".{'1' * 32}.ssenet-part").mkdir()
    (tmp_path / "cams" / f".{'2' * 32}.ssenet-part").symlink_to(tmp_path / ".x.part")
    artifacts.remove_partial(tmp_path, [tmp_path / "cams", tmp_path / "predictions", tmp_path / "not_there"])
    assert not any((tmp_path / name).exists() for name in ours)
    assert all((tmp_path / name).exists() for name in theirs)


def test_maps_of_large_photos_are_read_however_well_they_were_packed(tmp_path):
    artifacts.write_arrays(tmp_path / "a.npz", cam=np.zeros(70 << 20, np.uint8))
    assert (tmp_path / "a.npz").stat().st_size < 1 << 20
    (cam,) = artifacts.read_arrays(tmp_path / "a.npz", "cam")
    assert cam.size == 70 << 20 and not cam.any()


def test_processes_of_one_number_do_not_write_into_each_others_files(tmp_path):
    program = "import os; os.getpid = lambda: 7; from ssenet_jax.artifacts import replacing; from pathlib import Path"
    program += f"\nwith replacing(Path({str(tmp_path)!r}, 'a')) as part: part.touch(); print(part.name)"
    names = [subprocess.check_output([sys.executable, "-c", program]) for _ in range(2)]
    assert names[0] != names[1]


def test_a_name_of_the_greatest_length_can_be_written(tmp_path):
    artifacts.write_arrays(tmp_path / ("x" * 251 + ".npz"), cam=np.zeros(1))


def test_a_full_disk_names_the_file(tmp_path):
    with pytest.raises(OSError, match="No space left on device: .*a.npz"), artifacts.replacing(tmp_path / "a.npz"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("make", "message"), [
    (lambda path: path.symlink_to(path.parent / "gone"), "is a link to .*gone, which is not there; make that folder"),
    (lambda path: path.touch(), "is a file; use another --workdir"),
])  # fmt: skip
def test_a_workdir_that_is_no_folder_is_refused(tmp_path, make, message):
    make(tmp_path / "run")
    with pytest.raises(OSError, match=message), artifacts.locked(tmp_path / "run"):
        pass
