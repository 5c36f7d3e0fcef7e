"""`ssenet export labels`: each format holds the label maps to the pixel, by decoders written here."""

import json
import os
import shutil
import tarfile
import xml.etree.ElementTree as ElementTree
import zipfile
from pathlib import Path

import numpy as np
import pytest
from matplotlib.path import Path as Outline
from PIL import Image, ImageDraw

from ssenet_jax.artifacts import read_mask, write_mask, write_text
from ssenet_jax.commands.export import new_folder
from ssenet_jax.datasets.devkit import CLASS_NAMES
from ssenet_jax.export.regions import polygons
from ssenet_jax.main import main

CLASSES = ("cat", "dog")


@pytest.fixture
def export(drawn_run, tmp_path, capsys):
    """Exports into a new folder; gives the exit code, what was printed, the error, and the folder."""

    def run(*words, workdir=drawn_run, out=tmp_path / "out"):
        code = main(["export", "labels", f"--workdir={workdir}", f"--out={out}", *words])
        return code, *capsys.readouterr(), out

    return run


@pytest.fixture
def masks(drawn_run):
    """The label maps of the run, ignored pixels as background."""
    read = {path.stem: read_mask(path) for path in sorted((drawn_run / "pseudo_labels").glob("*.png"))}
    return {name: np.where(mask == 255, 0, mask) for name, mask in read.items()}


def assert_same(found, masks):
    assert found.keys() == masks.keys()
    for name, mask in masks.items():
        np.testing.assert_array_equal(found[name], mask, err_msg=name)


def test_voc_has_palette_masks_a_list_and_a_labelmap(export, masks):
    code, out, _, folder = export("--format=voc")
    assert (code, out) == (0, f"{folder}: pseudo_labels of 3 photos of train\n")
    assert_same({path.stem: read_mask(path) for path in (folder / "SegmentationClass").iterdir()}, masks)
    assert (folder / "ImageSets" / "Segmentation" / "train.txt").read_text().split() == list(masks)
    lines = (folder / "labelmap.txt").read_text().splitlines()
    assert lines[1:] == ["background:0,0,0::", "cat:128,0,0::", "dog:0,128,0::"]


def test_ignored_pixels_stay_when_asked_for(export, drawn_run, masks):
    *_, folder = export("--format=voc", "--ignored")
    masks = {name: read_mask(drawn_run / "pseudo_labels" / f"{name}.png") for name in masks}
    assert all((mask == 255).any() for mask in masks.values())
    assert_same({path.stem: read_mask(path) for path in (folder / "SegmentationClass").iterdir()}, masks)
    assert "ignored:224,224,192::" in (folder / "labelmap.txt").read_text()


def test_cvat_is_the_layout_of_voc_in_a_zip(export, masks):
    *_, folder = export("--format=cvat")
    assert [path.name for path in folder.iterdir()] == ["segmentation_mask.zip"]
    with zipfile.ZipFile(folder / "segmentation_mask.zip") as archive:
        names = {name for name in archive.namelist() if name.startswith("SegmentationClass/")}
        found = {name[18:-4]: np.asarray(Image.open(archive.open(name))) for name in names}
        assert {"labelmap.txt", "ImageSets/Segmentation/default.txt"} == set(archive.namelist()) - names
    assert_same(found, masks)


def painted(content, paint):
    """The label maps of a COCO file."""
    found = {image["id"]: np.zeros((image["height"], image["width"]), np.uint8) for image in content["images"]}
    for annotation in content["annotations"]:
        mask = found[annotation["image_id"]]
        inside = paint(annotation["segmentation"], mask.shape)
        assert annotation["area"] == inside.sum()
        left, top, width, height = annotation["bbox"]
        assert inside[top : top + height, left : left + width].sum() == inside.sum()
        mask[inside] = annotation["category_id"]
    names = {image["id"]: image["file_name"] for image in content["images"]}
    assert all(name.startswith("images/") for name in names.values())
    return {names[number].removeprefix("images/").removesuffix(".png"): mask for number, mask in found.items()}


def from_runs(segmentation, shape):
    assert tuple(segmentation["size"]) == shape
    values = [np.full(length, index % 2) for index, length in enumerate(segmentation["counts"])]
    return np.concatenate(values).reshape(shape, order="F").astype(bool)


def from_polygons(segmentation, shape):
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
    centres = np.stack([x.ravel(), y.ravel()], axis=-1)
    inside = np.zeros(shape, bool)
    for points in segmentation:
        inside |= Outline(np.reshape(points, (-1, 2))).contains_points(centres).reshape(shape)
    return inside


@pytest.mark.parametrize(("name", "paint"), [("coco", from_runs), ("coco-polygons", from_polygons)])
def test_coco_gives_the_masks_back(export, masks, name, paint):
    *_, folder = export(f"--format={name}")
    content = json.loads((folder / "train.json").read_text())
    assert [(entry["id"], entry["name"]) for entry in content["categories"]] == [(1, "cat"), (2, "dog")]
    assert_same(painted(content, paint), masks)


class Bits:
    """Numbers out of a stream of bits, the highest first."""

    def __init__(self, data):
        self.value, self.left = int.from_bytes(bytes(data), "big"), 8 * len(data)

    def read(self, count):
        self.left -= count
        return (self.value >> self.left) & ((1 << count) - 1)


def unpacked(packed):
    """thi.ng's run length format, as its page describes it."""
    bits, values = Bits(packed), []
    count, word, sizes = bits.read(32), bits.read(5) + 1, [bits.read(4) + 1 for _ in range(4)]
    while len(values) < count:
        is_run, size = bits.read(1), sizes[bits.read(2)]
        length = bits.read(size) + 1
        values += [bits.read(word)] * length if is_run else [bits.read(word) for _ in range(length)]
    assert len(values) == count
    return values


def test_label_studio_gets_brush_masks_that_its_interface_knows(export, masks):
    *_, folder = export("--format=labelstudio")
    interface = ElementTree.parse(folder / "interface.xml").find("BrushLabels")
    assert [label.get("value") for label in interface] == list(CLASSES)
    found = {}
    for task in json.loads((folder / "tasks.json").read_text()):
        name = task["data"]["image"].removeprefix("/data/local-files/?d=images/").removesuffix(".png")
        found[name] = np.zeros_like(masks[name])
        for result in task["predictions"][0]["result"]:
            assert (result["from_name"], result["to_name"]) == (interface.get("name"), interface.get("toName"))
            size = result["original_height"], result["original_width"]
            inside = np.reshape(unpacked(result["value"]["rle"]), (*size, 4))
            assert set(np.unique(inside)) <= {0, 255} and (inside == inside[..., :1]).all()
            found[name][inside[..., 0] > 0] = 1 + CLASSES.index(*result["value"]["brushlabels"])
    assert_same(found, masks)


@pytest.mark.parametrize("whole", [int, round], ids=["cut", "rounded"])
def test_yolo_has_a_polygon_a_line_in_shares_of_the_photo(export, masks, whole):
    *_, folder = export("--format=yolo")
    found = {}
    for name, mask in masks.items():
        found[name] = np.zeros_like(mask)
        for line in (folder / "labels" / "train" / f"{name}.txt").read_text().splitlines():
            index, *shares = line.split()
            points = np.reshape(np.array(shares, float), (-1, 2)) * mask.shape[::-1]
            painted = Image.new("L", mask.shape[::-1])
            ImageDraw.Draw(painted).polygon([tuple(map(whole, point)) for point in points], fill=1)
            found[name][np.asarray(painted) > 0] = 1 + int(index)
    assert_same(found, masks)
    assert (folder / "train.txt").read_text().split()[0] == "./images/train/a.png"
    assert '  0: "cat"\n  1: "dog"\n' in (folder / "data.yaml").read_text()


def test_polygons_of_rings_in_rings_have_no_holes_and_are_few():
    y, x = np.mgrid[:41, :41] - 20
    mask = (np.hypot(y, x).astype(int) // 4) % 2 == 0
    found = polygons(mask)
    np.testing.assert_array_equal(from_polygons(found, mask.shape), mask)
    assert sum(from_polygons([polygon], mask.shape).sum() for polygon in found) == mask.sum()
    (square,) = polygons(np.ones((50, 60), bool))
    assert len(square) == 8


def test_a_mask_with_a_thousand_holes_in_a_row_has_polygons():
    mask = np.ones((3, 2401), bool)
    mask[1, 1::2] = False
    np.testing.assert_array_equal(from_polygons(polygons(mask), mask.shape), mask)


@pytest.fixture
def voc_run(drawn_run, tmp_path):
    """The same workdir as that of a network of the classes of VOC, with predictions of the test split."""
    run = shutil.copytree(drawn_run, tmp_path / "run")
    data = json.loads((run / "data.json").read_text())
    data |= {"class_names": CLASS_NAMES, "splits": {**data["splits"], "test": data["splits"]["train"]}}
    (run / "data.json").write_text(json.dumps(data))
    text = (run / "config.json").read_text()
    (run / "config.json").write_text(text.replace('"eval_split": ""', '"eval_split": "test"'))
    shutil.copytree(run / "pseudo_labels", run / "predictions" / "test")
    return run


def test_the_evaluation_server_of_voc_gets_its_archive(export, voc_run, masks):
    code, out, error, folder = export("--format=voc-test", workdir=voc_run)
    assert code == 0, error
    with tarfile.open(folder / "results.tgz") as archive:
        prefix = "results/VOC2012/Segmentation/comp6_test_cls/"
        assert all(name.startswith(prefix) and name.endswith(".png") for name in archive.getnames())
        images = {name[len(prefix) : -4]: Image.open(archive.extractfile(name)) for name in archive.getnames()}
        assert {image.mode for image in images.values()} == {"P"}
        assert_same({name: np.asarray(image) for name, image in images.items()}, masks)


def test_reviewed_masks_are_those_that_were_accepted_or_corrected(export, drawn_run, tmp_path):
    run = shutil.copytree(drawn_run, tmp_path / "run")
    for name in "abc":
        write_mask(run / "reviewed" / f"{name}.png", np.full((4, 5), 1))
    rows = "a,accepted,0.2,1\nb,rejected,0.2,2\nc,corrected,,3\n"
    (run / "reviewed" / "reviewed.csv").write_text("id,decision,alpha,time\n" + rows)
    code, out, _, folder = export("--format=voc", "--from=reviewed", workdir=run)
    assert (code, out) == (0, f"{folder}: reviewed of 2 photos of train; 1 have none\n")
    assert {path.stem for path in (folder / "SegmentationClass").iterdir()} == {"a", "c"}


def test_a_photo_that_was_rejected_is_no_example_of_background(export, drawn_run, tmp_path):
    run = shutil.copytree(drawn_run, tmp_path / "run")
    write_text(run / "reviewed" / "reviewed.csv", "id,decision,alpha,time\nb,rejected,0.2,2\n")
    assert "3 photos" in export("--format=yolo", workdir=run)[1]  # these label maps were made before the review
    config = json.loads((run / "config.json").read_text())
    config["labels"]["source"] = "reviewed"
    write_text(run / "config.json", json.dumps(config))
    code, out, _, folder = export("--format=yolo", workdir=run, out=tmp_path / "of_the_review")
    assert (code, out) == (0, f"{folder}: pseudo_labels of 2 photos of train; 1 have none\n")
    assert {path.stem for path in (folder / "labels" / "train").iterdir()} == {"a", "c"}


def remove(name):
    return lambda run, out: shutil.rmtree(run / name) if (run / name).is_dir() else (run / name).unlink()


def write(name, text):
    return lambda run, out: (run / name).write_text(text)


def rename_class(run, out):
    path = run / "data.json"
    path.write_text(path.read_text().replace('"dog"', '"dog: big"'))


def keep_something(run, out):
    out.mkdir()
    (out / "mine.txt").write_text("mine")


def predict_train(run, out):
    shutil.copytree(run / "pseudo_labels", run / "predictions" / "train")


BROKEN = {
    "no workdir": (["--format=voc"], lambda run, out: shutil.rmtree(run), "data.json is missing"),
    "no data": (["--format=voc"], remove("data.json"), "data.json is missing"),
    "no config": (["--format=coco"], remove("config.json"), "config.json is missing"),
    "data are no JSON": (["--format=voc"], write("data.json", "{"), "data.json is not readable JSON"),
    "data are a list": (["--format=voc"], write("data.json", "[]"), "data.json is damaged"),
    "ids are numbers": (
        ["--format=voc"],
        write("data.json", '{"class_names": ["cat"], "splits": {"train": {"ids": [1], "photos": []}}}'),
        "data.json is damaged",
    ),
    "an id leaves its folder": (
        ["--format=voc"],
        write("data.json", '{"class_names": ["cat"], "splits": {"train": {"ids": ["../a"], "photos": []}}}'),
        "the id '../a' is a path",
    ),
    "photos and ids differ in number": (
        ["--format=voc"],
        write("data.json", '{"class_names": ["cat"], "splits": {"train": {"ids": ["a"], "photos": ["b", "c"]}}}'),
        "data.json is damaged",
    ),
    "no label maps": (["--format=voc"], remove("pseudo_labels"), "run ssenet run --stages=label first"),
    "no predictions": (["--format=voc", "--from=predictions"], None, "run ssenet run --stages=segment first"),
    "nothing reviewed": (["--format=voc", "--from=reviewed"], None, "run ssenet review --workdir="),
    "a mask is damaged": (["--format=yolo"], write("pseudo_labels/b.png", "x"), "b.png is damaged"),
    "a mask has colours": (
        ["--format=coco"],
        lambda run, out: Image.new("RGB", (4, 4)).save(run / "pseudo_labels" / "b.png"),
        "b.png is damaged (its mode is RGB",
    ),
    "a mask holds another class": (
        ["--format=cvat"],
        lambda run, out: write_mask(run / "pseudo_labels" / "b.png", np.full((4, 4), 9)),
        "b.png holds the class 9",
    ),
    "a name that a labelmap cannot hold": (["--format=voc"], rename_class, "cannot stand in labelmap.txt"),
    "the folder is not empty": (["--format=voc"], keep_something, "is there and not an empty folder"),
    "no network of VOC": (["--format=voc-test", "--from=predictions"], predict_train, "is for the 20 classes of VOC"),
}


@pytest.mark.parametrize(("words", "damage", "message"), BROKEN.values(), ids=BROKEN)
def test_what_is_broken_is_one_line_and_nothing_is_half_written(export, drawn_run, tmp_path, words, damage, message):
    run, out = shutil.copytree(drawn_run, tmp_path / "run"), tmp_path / "out"
    if damage:
        damage(run, out)
    before = sorted(tmp_path.rglob("*"))
    code, printed, error, _ = export(*words, workdir=run)
    assert (code, printed) == (2, "") and message in error and error.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_what_a_killed_export_of_the_same_process_number_left_is_no_hindrance(tmp_path):
    (tmp_path / f".{os.getpid()}.ssenet-part").mkdir()
    with new_folder(tmp_path / "out") as work:
        (work / "file").touch()
    assert (tmp_path / "out" / "file").exists()


def test_a_mount_point_is_refused_before_anything_is_made(tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    monkeypatch.setattr(Path, "is_mount", lambda path: path.name == "out")
    with (
        pytest.raises(FileExistsError, match="where a disk is mounted; name a new folder in it"),
        new_folder(tmp_path / "out"),
    ):
        pytest.fail("work was begun")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
