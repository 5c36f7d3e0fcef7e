"""VOC 2012 from a devkit made here: lists, annotations, masks, the prepared records."""

import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssenet_jax import datasets
from ssenet_jax.config import paper_config
from ssenet_jax.datasets import devkit, voc12

OBJECT = "<object><name>{}</name><difficult>1</difficult><part><name>head</name></part></object>"
SHARED = Path(os.environ.get("SSENET_DATA", Path(__file__).parents[2] / "shared")) / "VOCdevkit"


def write_example(root, image_id, classes, mask=True):
    shape = (20 + len(classes), 30)
    rng = np.random.default_rng(len(image_id))
    Image.fromarray(rng.integers(0, 256, (*shape, 3), np.uint8)).save(root / f"JPEGImages/{image_id}.jpg")
    objects = "".join(map(OBJECT.format, classes))
    (root / f"Annotations/{image_id}.xml").write_text(f"<annotation>{objects}</annotation>")
    if mask:
        image = Image.new("P", shape[::-1])
        image.putdata([0, 1, 20, 255] + [15] * (shape[0] * shape[1] - 4))
        image.putpalette([level for colour in range(256) for level in (255 - colour, colour, 7)])
        image.save(root / f"SegmentationClass/{image_id}.png")


@pytest.fixture
def voc(tmp_path):
    """A devkit with three training photos and one held out; and a config that points at it."""
    root = tmp_path / "VOCdevkit" / "VOC2012"
    for name in ("JPEGImages", "Annotations", "SegmentationClass", "ImageSets/Segmentation"):
        (root / name).mkdir(parents=True)
    write_example(root, "2007_b", ["person", "dog", "person"])
    write_example(root, "2007_a", ["cat"])
    write_example(root, "2007_v", ["cow"])
    write_example(root, "2008_s", ["bus"], mask=False)
    (root / "ImageSets/Segmentation/train.txt").write_text("2007_b\n2007_a\n")
    (root / "ImageSets/Segmentation/val.txt").write_text("2007_v\n")
    sbd = tmp_path / "sbd" / "dataset"
    sbd.mkdir(parents=True)
    (sbd / "train.txt").write_text("2008_s\n2007_a\n")
    (sbd / "val.txt").write_text("2007_v\n")
    data = paper_config().data
    data.root, data.sbd_root, data.cache = str(root.parent), str(sbd.parent), str(tmp_path / "cache")
    return data


def test_records_hold_photo_labels_and_mask_in_the_order_of_the_list(voc):
    source = datasets.load(voc, "train")
    assert source.ids == ["2007_b", "2007_a"] == [source[index]["id"] for index in range(2)]
    assert source.has_masks and len(source.class_names) == 20
    record = source[0]
    assert {source.class_names[index] for index in np.flatnonzero(record["labels"])} == {"dog", "person"}
    original = Image.open(Path(voc.root) / "VOC2012/JPEGImages/2007_b.jpg")
    np.testing.assert_array_equal(record["image"], np.asarray(original))
    assert record["mask"].shape == record["image"].shape[:2]
    assert record["mask"].ravel()[:5].tolist() == [0, 1, 20, 255, 15]
    assert "tensorflow" not in sys.modules


def test_the_folder_voc2012_itself_may_be_the_root(voc):
    voc.root = f"{voc.root}/VOC2012"
    assert datasets.load(voc, "val").ids == ["2007_v"]


def test_the_augmented_list_adds_sbd_without_voc_val_and_a_missing_mask_is_no_mask(voc):
    source = datasets.load(voc, "train_aug")
    assert source.ids == ["2007_b", "2007_a", "2008_s"] and source.has_masks
    assert "mask" in source[1] and "mask" not in source[2]
    assert source[2]["labels"][source.class_names.index("bus")] == 1


def test_test_photos_need_no_annotation(voc):
    root = Path(voc.root) / "VOC2012"
    write_example(root, "2008_t", ["sofa"], mask=False)
    (root / "Annotations/2008_t.xml").unlink()
    (root / "ImageSets/Segmentation/test.txt").write_text("2008_t\n")
    source = datasets.load(voc, "test")
    assert not source.has_masks and source[0]["labels"].sum() == 0


def test_records_are_prepared_once_and_anew_when_a_file_changed(voc):
    datasets.load(voc, "train")
    first = {path: path.stat().st_mtime_ns for path in Path(voc.cache).rglob("*")}
    datasets.load(voc, "train")
    assert {path: path.stat().st_mtime_ns for path in Path(voc.cache).rglob("*")} == first
    write_example(Path(voc.root) / "VOC2012", "2007_a", ["horse", "sheep"])
    source = datasets.load(voc, "train")
    assert {source.class_names[index] for index in np.flatnonzero(source[1]["labels"])} == {"horse", "sheep"}
    assert len(list(Path(voc.cache).iterdir())) == 2


def test_preparing_leaves_nothing_in_the_systems_temporary_folder(voc, tmp_path, monkeypatch):
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    datasets.load(voc, "train")
    assert not list(temporary.iterdir())


def test_a_broken_photo_raises_when_read_or_is_left_out(voc):
    (Path(voc.root) / "VOC2012/JPEGImages/2007_b.jpg").write_bytes(b"\xff\xd8 not a photo")
    with pytest.raises(ValueError, match=r"image .*2007_b\.jpg does not decode"):
        datasets.load(voc, "train")[0]
    voc.on_error = "skip"
    assert datasets.load(voc, "train").ids == ["2007_a"]


def test_a_missing_photo_raises_at_once_or_is_left_out(voc):
    (Path(voc.root) / "VOC2012/JPEGImages/2007_a.jpg").unlink()
    with pytest.raises(ValueError, match=r"2007_a\.jpg, listed for split train, is missing"):
        datasets.load(voc, "train")
    voc.on_error = "skip"
    assert datasets.load(voc, "train").ids == ["2007_b"]


def break_annotation(root, voc):
    (root / "Annotations/2007_a.xml").write_text("<annotation>")


def name_unknown_class(root, voc):
    (root / "Annotations/2007_a.xml").write_text(f"<annotation>{OBJECT.format('unicorn')}</annotation>")


def take_objects_away(root, voc):
    (root / "Annotations/2007_a.xml").write_text("<annotation></annotation>")


def list_twice(root, voc):
    (root / "ImageSets/Segmentation/train.txt").write_text("2007_a\n2007_a\n")


def empty_list(root, voc):
    (root / "ImageSets/Segmentation/train.txt").write_text("")


def lose_root(root, voc):
    voc.root = "/nowhere/VOCdevkit"


def block_cache(root, voc):
    voc.cache = str(root / "ImageSets/Segmentation/train.txt")


@pytest.mark.parametrize(
    "damage, message",
    [
        (break_annotation, r"2007_a\.xml is not XML"),
        (name_unknown_class, r"2007_a\.xml names the class 'unicorn'; expected one of aeroplane"),
        (take_objects_away, r"2007_a\.xml has no object"),
        (list_twice, r"train\.txt, line 2: the id '2007_a' is also that of line 1; "),
        (empty_list, r"train\.txt is empty"),
        (lose_root, r"no VOC 2012 at /nowhere/VOCdevkit .*set config\.data\.root"),
        (block_cache, r"cannot write prepared records to .*set config\.data\.cache"),
    ],
)
def test_each_fault_is_one_line_that_names_the_file(voc, damage, message):
    damage(Path(voc.root) / "VOC2012", voc)
    with pytest.raises(ValueError, match=message) as error:
        datasets.load(voc, "train")
    assert "\n" not in str(error.value)
    assert not list(Path(voc.cache).glob("*"))


def test_a_disk_that_is_full_is_told_in_one_line(voc, monkeypatch):
    def fails(builder):
        raise RuntimeError('Failed to finalize writing of split "train":\nwrite() failed: No space left on device')

    monkeypatch.setattr(voc12.Voc12, "download_and_prepare", fails)
    with pytest.raises(
        ValueError, match="cannot write prepared records .*No space left.*set config.data.cache"
    ) as error:
        datasets.load(voc, "train")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "split, sbd_root, message",
    [
        ("test", "", r"cannot read .*Segmentation/test\.txt"),
        ("train_aug", "", r"sbd_root is empty and split train_aug needs it"),
        ("train_aug", "/nowhere", r"cannot read /nowhere/dataset/train\.txt .*config\.data\.sbd_root"),
        ("trainval", "", "voc12 has no split 'trainval'; it has train, val, train_aug, test"),
    ],
)
def test_a_split_that_is_not_there_says_what_to_set(voc, split, sbd_root, message):
    voc.sbd_root = sbd_root
    with pytest.raises(ValueError, match=message):
        datasets.load(voc, split)


@pytest.mark.skipif(not SHARED.exists(), reason="the VOC photos are not here")
def test_the_real_devkit_has_its_lists_and_annotations():
    folder = devkit.find_devkit(str(SHARED))
    ids = devkit.read_ids(folder, "val", "")
    assert all(devkit.image_path(folder, image_id).exists() for image_id in ids)
    assert devkit.read_classes(folder, devkit.read_ids(folder, "train", "")[0], required=True) == [
        "aeroplane",
        "person",
    ]
