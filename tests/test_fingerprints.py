"""What tells that data have changed since a stage read them: one text a record, and the identity of the whole."""

import errno
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssenet_jax import datasets
from ssenet_jax.config import paper_config
from ssenet_jax.datasets import fingerprints


def write_photo(path, size=(30, 20)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), np.uint8)).save(path)


@pytest.fixture
def own(tmp_path):
    for name in ("a", "b"):
        write_photo(tmp_path / f"data/images/{name}.png")
    (tmp_path / "data/masks").mkdir()
    Image.new("L", (30, 20), 1).save(tmp_path / "data/masks/a.png")
    (tmp_path / "data/train.csv").write_text("image,labels\na.png,oak;elm\nb.png,elm\n")
    data = paper_config().data
    data.name, data.root, data.folder.masks = "folder", str(tmp_path / "data"), "masks"
    return data


@pytest.fixture
def voc(tmp_path):
    root = tmp_path / "data"
    for name in ("a", "b"):
        write_photo(root / f"JPEGImages/{name}.jpg")
        (root / "Annotations").mkdir(exist_ok=True)
        (root / f"Annotations/{name}.xml").write_text("<a><object><name>dog</name></object></a>")
    (root / "ImageSets/Segmentation").mkdir(parents=True)
    (root / "ImageSets/Segmentation/train.txt").write_text("a\nb\n")
    data = paper_config().data
    data.root, data.cache = str(root), str(tmp_path / "cache")
    return data


def state(data):
    source = datasets.load(data, "train")
    prints = {name: (of, source.mask_fingerprints().get(name)) for name, of in source.fingerprints().items()}
    return json.loads(json.dumps(source.identity)), prints


def changed(data, before):
    """Which parts of the identity, and which records, differ from before, "NAME's mask" by their masks alone."""
    (identity, prints), (identity_before, prints_before) = state(data), before
    keys = {key for key in identity if identity[key] != identity_before[key]}
    records = {name for name in prints if prints[name][0] != prints_before.get(name, ("",))[0]}
    masks = {f"{name}'s mask" for name in prints.keys() & prints_before if prints[name][1] != prints_before[name][1]}
    return keys, records | masks


def later(path):
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 10**9))


def change(path):
    """One bit of a file, whose size stays."""
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    later(path)


def test_a_copy_elsewhere_is_the_same(own, tmp_path):
    before = state(own)
    shutil.copytree(own.root, tmp_path / "copy", copy_function=shutil.copyfile)
    own.root = str(tmp_path / "copy")
    assert state(own) == before and str(tmp_path) not in json.dumps(before)


def test_a_copy_of_a_devkit_elsewhere_is_the_same(voc, tmp_path):
    before = state(voc)
    shutil.copytree(voc.root, tmp_path / "copy", copy_function=shutil.copyfile)
    voc.root = str(tmp_path / "copy")
    assert state(voc) == before and str(tmp_path) not in json.dumps(before)


@pytest.mark.parametrize(
    "csv, identity, records",
    [
        ("image,labels\na.png,elm\nb.png,oak;elm\n", {"lists"}, {"a", "b"}),
        ("image,labels\na.png,elm ; oak\nb.png,elm\n", {"lists"}, set()),
        ("image,labels\na.png,oak;elm\nb.png,ash\n", {"lists", "classes"}, {"b"}),
        ("image,labels\na.png,oak;elm\nb.png,elm\nc.png,elm\n", {"lists"}, {"c"}),
        ("image,labels\na.png,oak;elm\nb.png,-\n", {"lists"}, {"b"}),
    ],
    ids=["labels exchanged", "order of labels", "class renamed", "photo added", "label taken away"],
)
def test_a_changed_list_shows_in_the_records_it_changes(own, csv, identity, records):
    before = state(own)
    write_photo(Path(own.root) / "images/c.png")
    (Path(own.root) / "train.csv").write_text(csv)
    assert changed(own, before) == (identity, records)


def test_a_changed_photo_or_mask_shows_in_its_record(own):
    before, root = state(own), Path(own.root)
    change(root / "images/b.png")
    assert changed(own, before) == (set(), {"b"})
    change(root / "masks/a.png")
    assert changed(own, before) == (set(), {"b", "a's mask"})
    before = state(own)
    Image.new("L", (30, 20), 1).save(root / "masks/b.png")
    assert changed(own, before) == (set(), {"b's mask"})


@pytest.mark.parametrize("place", ["JPEGImages/b.jpg", "Annotations/b.xml"])
def test_a_changed_file_of_a_devkit_shows_in_its_record(voc, place):
    before = state(voc)
    with (Path(voc.root) / place).open("ab") as file:
        file.write(b"\n")
    assert changed(voc, before) == (set(), {"b"})


def test_a_file_is_read_again_only_when_its_size_or_time_changed(own, monkeypatch):
    before, photo, read = state(own), Path(own.root) / "images/b.png", []
    digest = fingerprints._digest
    monkeypatch.setattr(fingerprints, "_digest", lambda path: read.append(path.name) or digest(path))
    assert state(own) == before and read == []
    later(photo)
    assert state(own) == before and read == ["b.png"]


@pytest.mark.parametrize("damage", [b"", b"[]", b'{"b.png": 1, "a.png": [1, 2, null]}'], ids=["cut", "list", "entries"])
def test_damaged_notes_are_made_again(own, monkeypatch, tmp_path, damage):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    before = state(own)
    notes = list((tmp_path / "user/ssenet_jax/contents").iterdir())
    whole = [path.read_bytes() for path in notes]
    for path in notes:
        path.write_bytes(damage)
    assert state(own) == before and [path.read_bytes() for path in notes] == whole


def test_a_disk_that_fails_is_not_taken_for_a_change(own, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    source = datasets.load(own, "train")

    def fail(*arguments):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        source.fingerprints()


def test_no_cache_is_needed(own, monkeypatch, tmp_path):
    before = state(own)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert state(own) == before


def test_another_order_of_a_devkits_list_is_another_list(voc):
    before = state(voc)
    (Path(voc.root) / "ImageSets/Segmentation/train.txt").write_text("b\na\n")
    assert changed(voc, before) == ({"lists"}, set())


def test_drawn_scenes_are_told_apart_by_what_they_are_drawn_from():
    data = paper_config().data
    data.name, data.scenes.num_train, data.scenes.size = "scenes", 3, 64
    before = state(data)
    data.scenes.num_train = 4
    assert changed(data, before) == (set(), {"train_00003"})
    data.scenes.seed = 1
    identity, records = changed(data, before)
    assert identity == {"seed"} and {f"train_0000{index}" for index in range(4)} < records


def test_shrinking_and_leaving_out_change_no_fingerprint(own):
    before = state(own)
    own.max_side = 16
    assert state(own) == before
    (Path(own.root) / "images/b.png").write_bytes(b"")
    own.on_error = "skip"
    identity, prints = state(own)
    assert identity == before[0] and prints == {"a": before[1]["a"]}
