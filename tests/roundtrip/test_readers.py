"""Exported label maps as each tool's own reader takes them.

Not part of the main run: `pip install . -r tests/roundtrip/requirements.txt`, then `pytest tests/roundtrip`.
"""

import json
import shutil
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from ssenet_jax.artifacts import write_mask
from ssenet_jax.export import coco, cvat, labelstudio, voc, yolo
from ssenet_jax.export.labelled import Item, Labelled

warnings.filterwarnings("ignore", category=DeprecationWarning)  # of the readers
CLASSES = ("bird", "dog & cat", "sofa")
POLYGON_IOU = 0.98


def drawn(size, seed):
    """Ellipses, some with holes or cut by the border, thin lines and single pixels."""
    rng = np.random.default_rng(seed)
    image = Image.new("L", size[::-1])
    draw = ImageDraw.Draw(image)
    for label in (1, 2, 3, 0, 2):
        x, y = rng.integers(0, size[1]), rng.integers(0, size[0])
        draw.ellipse((x - 20, y - 14, x + 20, y + 14), fill=label)
    draw.line((3, 3, size[1] - 9, size[0] - 5), fill=3, width=2)
    draw.point([(1, size[0] - 2), (size[1] - 1, 0)], fill=1)
    return np.asarray(image).copy()


@pytest.fixture
def labelled(tmp_path):
    masks = {"a": drawn((60, 91), 0), "b_c": drawn((120, 77), 1), "empty": np.zeros((20, 30), np.uint8)}
    for name, mask in masks.items():
        write_mask(tmp_path / "masks" / f"{name}.png", mask)
        (tmp_path / "photos").mkdir(exist_ok=True)
        Image.new("RGB", mask.shape[::-1]).save(tmp_path / "photos" / f"{name}.jpg")
    items = tuple(Item(name, f"photos/{name}.jpg", tmp_path / "masks" / f"{name}.png") for name in masks)
    return Labelled(CLASSES, "train", items, ignored=False), masks


def assert_close(found, wanted):
    for label in np.unique(wanted)[1:]:
        both, either = (found == label) & (wanted == label), (found == label) | (wanted == label)
        assert both.sum() / either.sum() > POLYGON_IOU, label


@pytest.mark.parametrize("write", [coco.write, coco.write_polygons])
def test_coco(labelled, tmp_path, write):
    reader = pytest.importorskip("pycocotools.coco", reason="pycocotools is not installed")
    (given, masks), out = labelled, tmp_path / "out"
    write(given, out)
    read = reader.COCO(str(out / "train.json"))
    assert [read.cats[number]["name"] for number in sorted(read.cats)] == list(CLASSES)
    for entry in read.imgs.values():
        wanted = masks[entry["file_name"].split("/")[1].removesuffix(".jpg")]
        found = np.zeros_like(wanted)
        for annotation in read.loadAnns(read.getAnnIds(entry["id"])):
            found[read.annToMask(annotation) > 0] = annotation["category_id"]
        if write is coco.write:
            np.testing.assert_array_equal(found, wanted)
        assert_close(found, wanted)


def test_label_studio(labelled, tmp_path):
    brush = pytest.importorskip("label_studio_sdk.converter.brush", reason="label-studio-sdk is not installed")
    interface = pytest.importorskip("label_studio_sdk._extensions.label_studio_tools.core.label_config")
    (given, masks), out = labelled, tmp_path / "out"
    labelstudio.write(given, out)
    control = interface.parse_config((out / "interface.xml").read_text())["label"]
    assert control["type"] == "BrushLabels" and set(control["labels"]) == set(CLASSES)
    for task, (name, wanted) in zip(json.loads((out / "tasks.json").read_text()), masks.items(), strict=True):
        assert task["data"]["image"].endswith(f"?d=photos/{name}.jpg")
        found = np.zeros_like(wanted)
        for result in task["predictions"][0]["result"]:
            picture = brush.decode_rle(result["value"]["rle"])
            picture = np.reshape(picture, (result["original_height"], result["original_width"], 4))
            found[picture[..., 3] > 0] = CLASSES.index(result["value"]["brushlabels"][0]) + 1
        np.testing.assert_array_equal(found, wanted)


def painted(item, names, size):
    """The label map of an item of datumaro, which knows labels by name."""
    found = np.zeros(size, np.uint8)
    for shape in item.annotations:
        if names[shape.label].name != "background":
            found[shape.image > 0] = CLASSES.index(names[shape.label].name) + 1
    return found


@pytest.mark.parametrize("tool", ["voc", "cvat"])
def test_voc_and_cvat(labelled, tmp_path, tool):
    datumaro = pytest.importorskip("datumaro", reason="datumaro is not installed")
    (given, masks), out = labelled, tmp_path / "out"
    if tool == "voc":
        voc.write(given, out)
    else:
        out.mkdir()
        cvat.write(given, out)
        zipfile.ZipFile(out / cvat.FILE).extractall(out)
    read = datumaro.Dataset.import_from(str(out), "voc_segmentation")
    names = read.categories()[datumaro.AnnotationType.label]
    assert {item.id for item in read} == masks.keys()
    for item in read:
        wanted = masks[item.id]
        np.testing.assert_array_equal(painted(item, names, wanted.shape), wanted)


def test_yolo(labelled, tmp_path):
    # datumaro reads boxes alone, and ultralytics brings PyTorch
    supervision = pytest.importorskip("supervision", reason="supervision is not installed")
    (given, masks), out = labelled, tmp_path / "out"
    yolo.write(given, out)
    folders = out / "images" / "train", out / "labels" / "train"
    shutil.copytree(tmp_path / "photos", folders[0])
    paths = [str(path) for path in (*folders, out / "data.yaml")]
    read = supervision.DetectionDataset.from_yolo(*paths, force_masks=True)
    assert read.classes == list(CLASSES) and len(read) == len(masks)
    for path, _, found in read:
        wanted = masks[Path(path).stem]
        painted = np.zeros_like(wanted)
        for inside, index in zip(found.mask if len(found) else (), found.class_id, strict=True):
            painted[inside] = index + 1
        assert_close(painted, wanted)
