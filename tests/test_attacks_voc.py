"""Devkits whose lists, annotations or prepared records are wrong: a line that names the file and a remedy."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssenet_jax import datasets
from ssenet_jax.commands import verify
from ssenet_jax.config import paper_config

LIST, XML = "ImageSets/Segmentation/train.txt", "Annotations/b.xml"
ANNOTATION = "<annotation><object><name>{}</name></object></annotation>"
DOG = ANNOTATION.format("dog")


@pytest.fixture
def voc(tmp_path):
    """A devkit with two training photos in a folder of a long name, and a config that points at it."""
    root = tmp_path / "photos of the botanical garden, second spring" / "VOC2012"
    for name in ("JPEGImages", "Annotations", "SegmentationClass", "ImageSets/Segmentation"):
        (root / name).mkdir(parents=True)
    for name in ("a", "b"):
        pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
        Image.fromarray(pixels).save(root / f"JPEGImages/{name}.jpg")
        Image.new("L", (30, 20), 12).save(root / f"SegmentationClass/{name}.png")
        (root / f"Annotations/{name}.xml").write_text(DOG)
    (root / LIST).write_text("a\nb\n")
    data = paper_config().data
    data.root, data.cache, data.eval_split = str(root), str(tmp_path / "cache"), ""
    return data


def faults(data):
    """What verify-data prints below its head."""
    lines = verify.table(list(verify.faults(data))).splitlines()[1:]
    assert all(line.isprintable() and len(line) < 500 for line in lines)
    return lines


BROKEN = {
    "a class of 5 MB": (XML, ANNOTATION.format("x" * 5_000_000).encode(), "names the class 'xxxx"),
    "a class with escape codes": (XML, ANNOTATION.format("&#x9b;31m").encode(), r"names the class '\x9b31m'"),
    "an unknown encoding": (XML, b"<?xml version='1.0' encoding='x-none'?>" + DOG.encode(), "is not XML"),
    "an encoding that is no text": (XML, b"<?xml version='1.0' encoding='hex'?>" + DOG.encode(), "is not XML"),
    "an encoding of many bytes": (XML, b"<?xml version='1.0' encoding='utf-7'?>" + DOG.encode(), "is not XML"),
    "a laugh": (
        XML,
        b"<!DOCTYPE a [<!ENTITY b '"
        + b"x" * 9999
        + b"'>"
        + b"".join(b"<!ENTITY c%d '%s'>" % (i, (b"&c%d;" % (i - 1) if i else b"&b;") * 20) for i in range(12))
        + b"]><a>&c11;</a>",
        "is not XML",
    ),
    "a file from elsewhere": (XML, b"<!DOCTYPE a [<!ENTITY b SYSTEM 'file:///etc/passwd'>]><a>&b;</a>", "is not XML"),
    "100,000 elements deep": (XML, b"<a>" * 100_000 + b"</a>" * 100_000, "has no object"),
    "an empty annotation": (XML, b"", "is not XML"),
    "ids with labels of one class": (LIST, b"a  1\nb -1\n", "line 1: 'a 1' is more than an id"),
    "ids in one line": (LIST, b"a b\n", "line 1: 'a b' is more than an id"),
    "UTF-16": (LIST, "a\nb\n".encode("utf-16"), "is not text"),
    "UTF-16 without its mark": (LIST, "a\nb\n".encode("utf-16-le"), r"the id 'a\x00' holds"),
    "Latin-1": (LIST, b"a\n\xe9\n", "is not text"),
    "a NUL": (LIST, b"a\0\n", "holds characters that cannot be printed"),
    "escape codes": (LIST, b"\x1b[31ma\n", r"'\x1b[31ma' holds"),
    "an id out of the folder": (LIST, b"a\n../JPEGImages/b\n", "line 2: the id '../JPEGImages/b' is a path"),
    "an id far outside": (LIST, b"a\n../../../outside/a\n", "is a path"),
    "an absolute id": (LIST, b"/tmp/a\n", "is a path"),
    "an id below": (LIST, b"x/a\n", "is a path"),
    "a Windows path": (LIST, b"..\\a\n", "is a path"),
    "two dots": (LIST, b"..\n", "is a path"),
    "an id of 300 letters": (LIST, b"a\n" + b"n" * 300 + b"\n", "has 300 bytes"),
    "an id of 5 MB": (LIST, b"n" * 5_000_000, "has 5000000 bytes"),
    "an id twice": (LIST, b"a\nb\na\n", "line 3: the id 'a' is also that of"),
    "ids that differ in case": (LIST, b"a\nA\n", "line 2: the id 'A' is one file with 'a'"),
    "blank lines": (LIST, b"\n \n", "is empty"),
}


@pytest.mark.parametrize(("place", "content", "message"), BROKEN.values(), ids=[n.replace(" ", "-") for n in BROKEN])
def test_a_list_or_annotation_that_lies_is_one_line(voc, place, content, message):
    (Path(voc.root) / place).write_bytes(content)
    (line,) = faults(voc)
    assert message in line
    for voc.on_error in ("raise", "skip"):
        with pytest.raises(ValueError):
            datasets.load(voc, "train")


def test_a_byte_order_mark_and_blank_lines_are_no_part_of_an_id(voc):
    (Path(voc.root) / LIST).write_bytes(b"\xef\xbb\xbfa\r\n\r\nb  \r\n")
    assert datasets.load(voc, "train").ids == ["a", "b"]


@pytest.mark.parametrize("place", [LIST, XML, "JPEGImages/b.jpg", "SegmentationClass/b.png"])
def test_a_pipe_is_not_waited_for(voc, place):
    (Path(voc.root) / place).unlink()
    os.mkfifo(Path(voc.root) / place)
    if place.startswith("Seg"):  # as where there is no mask
        assert "mask" not in datasets.load(voc, "train")[1]
    else:
        (line,) = faults(voc)
        assert place in line


def test_a_missing_annotation_names_a_remedy_that_works_and_how_many_are_wrong(voc):
    for name in ("a", "b"):
        (Path(voc.root) / f"Annotations/{name}.xml").unlink()
    (line,) = faults(voc)
    assert "take its id off the list (1 more annotations are wrong)" in line and "on_error" not in line


def test_a_mask_in_postscript_starts_nothing(voc, tmp_path, monkeypatch):
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 30 20\n%%EndComments\n"
    (Path(voc.root) / "SegmentationClass/b.png").write_bytes(eps)
    (line,) = faults(voc)
    assert "is no whole JPEG" in line and not (tmp_path / "started").exists()


def prepared_files(voc):
    (folder,) = Path(voc.cache).iterdir()
    return folder, {path.name: path for path in folder.iterdir()}


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def fill(path):
    path.write_bytes(b"\xff" * path.stat().st_size)


@pytest.mark.parametrize("damage", [cut, fill, Path.unlink])
@pytest.mark.parametrize("kind", ["dataset_info.json", "features.json", "array_record"])
def test_damaged_prepared_records_name_a_remedy_that_works(voc, kind, damage):
    datasets.load(voc, "train")
    folder, files = prepared_files(voc)
    damage(next(path for name, path in files.items() if kind in name))
    for voc.on_error in ("raise", "skip"):
        with pytest.raises(OSError, match="are damaged .*; delete that folder") as error:
            list(datasets.problems(datasets.load(voc, "train")))
        assert str(folder) in str(error.value)
    shutil.rmtree(folder)
    assert not faults(voc)


def test_without_a_home_the_key_to_set_is_named(voc, monkeypatch):
    def no_home(path):
        raise RuntimeError("Could not determine home directory.")

    voc.cache = ""
    monkeypatch.setattr(Path, "expanduser", no_home)
    with pytest.raises(ValueError, match=r"home directory.*set config\.data\.cache"):
        datasets.load(voc, "train")
