"""One's own photos: a folder and a CSV."""

import os
import shutil

import numpy as np
import pytest
from PIL import Image

from ssenet_jax import datasets
from ssenet_jax.config import paper_config


@pytest.fixture
def own(tmp_path):
    """Three photos, one of them in a subfolder, two with a mask; and a config that points at them."""
    (tmp_path / "photos/trip").mkdir(parents=True)
    (tmp_path / "masks/trip").mkdir(parents=True)
    for number, name in enumerate(("one.jpg", "two.png", "trip/three.jpg", "held.jpg")):
        Image.new("RGB", (30, 20 + number), (50 * number, 90, 10)).save(tmp_path / "photos" / name)
    Image.new("L", (30, 20), 2).save(tmp_path / "masks/one.png")
    Image.new("L", (30, 22), 1).save(tmp_path / "masks/trip/three.png")
    (tmp_path / "train.csv").write_text("image,labels\none.jpg,oak; elm\ntwo.png,birch\ntrip/three.jpg,elm;\n")
    (tmp_path / "eval.csv").write_text("labels,image,note\nelm,held.jpg,x\n")
    data = paper_config().data
    data.name, data.root = "folder", str(tmp_path)
    data.folder.eval_csv, data.folder.images, data.folder.masks = "eval.csv", "photos", "masks"
    return data


def test_classes_ids_labels_and_masks_come_from_the_files(own):
    source = datasets.load(own, "train")
    assert source.class_names == ("birch", "elm", "oak")
    assert source.ids == ["one", "two", "trip_three"] and source.has_masks
    np.testing.assert_array_equal([source[index]["labels"] for index in range(3)], [[0, 1, 1], [1, 0, 0], [0, 1, 0]])
    assert source[0]["image"].shape == (20, 30, 3) and (source[0]["mask"] == 2).all()
    assert "mask" not in source[1]
    assert (source[2]["mask"] == 1).all()


def test_the_eval_list_has_the_classes_of_the_training_list(own):
    source = datasets.load(own, "eval")
    assert source.ids == ["held"] and source.class_names == ("birch", "elm", "oak") and not source.has_masks
    np.testing.assert_array_equal(source[0]["labels"], [0, 1, 0])


def test_masks_that_belong_to_no_photo_are_told_of(own, tmp_path, caplog):
    datasets.load(own, "train")
    assert not caplog.text
    shutil.move(tmp_path / "masks" / "one.png", tmp_path / "masks" / "one_mask.png")
    shutil.rmtree(tmp_path / "masks" / "trip")
    assert not datasets.load(own, "train").has_masks
    assert f"no photo of train has a mask; that of the first would be {tmp_path}/masks/one.png" in caplog.text


def test_masks_are_optional(own):
    own.folder.masks = ""
    assert not datasets.load(own, "train").has_masks


@pytest.mark.parametrize(
    "split, csv, text, message",
    [
        (
            "train",
            "train.csv",
            "image,tags\none.jpg,oak\n",
            r"train\.csv has no column 'labels' \(found: image, tags\)",
        ),
        ("train", "train.csv", "", r"train\.csv has no column 'image' \(found: none\)"),
        ("train", "train.csv", "image,labels\n", r"train\.csv has no row"),
        ("train", "train.csv", "image,labels\none.jpg, ;\n", r"train\.csv, row 2: no label for 'one\.jpg'"),
        ("train", "train.csv", "image,labels\none.jpg\n", r"train\.csv, row 2: no label for 'one\.jpg'"),
        ("train", "train.csv", "image,labels\n,oak\n", r"train\.csv, row 2: no image"),
        (
            "train",
            "train.csv",
            "image,labels\none.jpg,oak\none.png,elm\n",
            r"train\.csv, row 3: the id 'one' is also that of row 2; ",
        ),
        ("train", "train.csv", "image,labels\none.jpg,oak\nnil.jpg,elm\n", r"row 3: the image .*nil\.jpg is missing"),
        ("eval", "eval.csv", "image,labels\nheld.jpg,pine\n", r"eval\.csv, row 2: the class 'pine' is not one that"),
        (
            "eval",
            "eval.csv",
            "image,labels\none.jpg,oak\n",
            r"eval\.csv, row 2: the id 'one' is also that of .*train\.csv, row 2",
        ),
    ],
)
def test_a_fault_in_a_csv_names_the_file_and_the_row(own, split, csv, text, message):
    with open(f"{own.root}/{csv}", "w") as file:
        file.write(text)
    with pytest.raises(ValueError, match=message) as error:
        datasets.load(own, split)
    assert "\n" not in str(error.value)


def test_a_csv_that_is_not_text_is_an_error(own):
    with open(f"{own.root}/train.csv", "wb") as file:
        file.write(b"image,labels\n\xff\xfe\xfa.jpg,oak\n")
    with pytest.raises(ValueError, match=r"train\.csv is not a CSV in UTF-8"):
        datasets.load(own, "train")


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("csv", "nil.csv", r"cannot read .*nil\.csv \(No such file"),
        ("images", "nil", r"config\.data\.folder\.images: .*nil is not a folder"),
        ("masks", "nil", r"config\.data\.folder\.masks: .*nil is not a folder"),
    ],
)
def test_a_path_that_is_not_there_names_its_key(own, key, value, message):
    own.folder[key] = value
    with pytest.raises(ValueError, match=message):
        datasets.load(own, "train")


def test_an_unknown_split_and_a_missing_eval_list_are_errors(own):
    own.folder.eval_csv = ""
    with pytest.raises(ValueError, match=r"config\.data\.folder\.eval_csv is empty"):
        datasets.load(own, "eval")
    with pytest.raises(ValueError, match="a folder has no split 'val'; it has train, eval"):
        datasets.load(own, "val")


def test_broken_files_are_left_out_when_asked(own):
    with open(f"{own.root}/photos/two.png", "wb") as file:
        file.write(b"")
    Image.new("L", (30, 22), 9).save(f"{own.root}/masks/trip/three.png")
    with open(f"{own.root}/train.csv", "a") as file:
        file.write("gone.jpg,oak\n")
    own.on_error = "skip"
    assert datasets.load(own, "train").ids == ["one"]


def test_a_photo_with_none_of_the_classes_has_no_label(own):
    with open(f"{own.root}/train.csv", "a") as file:
        file.write("held.jpg,-\n")
    own.folder.eval_csv = ""
    source = datasets.load(own, "train")
    assert source.class_names == ("birch", "elm", "oak") and source.ids[3] == "held"
    np.testing.assert_array_equal(source[3]["labels"], [0, 0, 0])


@pytest.fixture
def sorted_photos(tmp_path):
    """Photos in one folder a class, some of none and some of two classes, and no CSV."""
    for name in ("cat/1.jpg", "dog/1.jpg", "dog/2.jpg", "-/1.jpg", "cat;dog/1.jpg", "dog/.DS_Store", "Thumbs.db"):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (30, 20)).save(path, "jpeg")
    (tmp_path / "masks/dog").mkdir(parents=True)
    Image.new("L", (30, 20), 2).save(tmp_path / "masks/dog/2.png")
    data = paper_config().data
    data.name, data.root, data.folder.csv, data.folder.masks = "folder", str(tmp_path), "", "masks"
    return data


def test_one_folder_a_class_needs_no_csv(sorted_photos):
    source = datasets.load(sorted_photos, "train")
    assert source.class_names == ("cat", "dog")
    assert source.ids == ["-_1", "cat_1", "cat;dog_1", "dog_1", "dog_2"]
    labels = [source[index]["labels"].tolist() for index in range(5)]
    assert labels == [[0, 0], [1, 0], [1, 1], [0, 1], [0, 1]]
    assert "mask" not in source[3] and (source[4]["mask"] == 2).all()


def test_photos_of_class_folders_that_the_eval_list_names_are_held_out(sorted_photos):
    with open(f"{sorted_photos.root}/eval.csv", "w") as file:
        file.write("image,labels\ndog/2.jpg,dog\n")
    sorted_photos.folder.eval_csv = "eval.csv"
    assert datasets.load(sorted_photos, "train").ids == ["-_1", "cat_1", "cat;dog_1", "dog_1"]
    assert datasets.load(sorted_photos, "eval").ids == ["dog_2"]


@pytest.mark.parametrize(
    "name, message",
    [
        ("loose.jpg", r"images/loose\.jpg lies in no class's folder"),
        ("empty/", r"images/empty holds no photo"),
        ("dog/more/1.jpg", r"images/dog/more is a folder"),
        ("Dog/1.jpg", r"the label dog differs from Dog .* letter case"),
        ("background/1.jpg", r"the label 'background' is the name of what no class covers"),
        ("cat,dog/1.jpg", r"separate labels by ;"),
        ("cat_1/1.jpg", None),
        ("cat/1_1.jpg", None),
        ("dog/1.png", r"dog/1\.png: the id 'dog_1' is also that of .*dog/1\.jpg"),
        ("dog/film.mp4", r"dog/film\.mp4 is no photo \(\.jpg"),
        ("dog/notes.txt", r"dog/notes\.txt is no photo"),
        ("\x1b[31m/1.jpg", r"the label '\\x1b\[31m' holds"),
        ("dog/\x1b.jpg", r"holds characters that cannot be printed"),
    ],
)
def test_a_class_folder_that_cannot_be_meant_is_an_error(sorted_photos, name, message):
    path = f"{sorted_photos.root}/images/{name}"
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if not name.endswith("/"):
        with open(path, "wb") as file:
            file.write(name.encode())
    if message is None:
        assert len(datasets.load(sorted_photos, "train")) == 6
        return
    with pytest.raises(ValueError, match=message) as error:
        datasets.load(sorted_photos, "train")
    assert str(error.value).isprintable()


@pytest.mark.parametrize("space", ["\u00a0", "\u202f", "\u3000", "\u200c", "\u200d"])
def test_the_spaces_and_joiners_of_all_scripts_may_be_in_names(sorted_photos, space):
    folder = f"{sorted_photos.root}/images/red{space}fox"
    os.makedirs(folder)
    with open(f"{folder}/at 10{space}AM.jpg", "wb") as file:
        file.write(b"fox")
    source = datasets.load(sorted_photos, "train")
    assert f"red{space}fox" in source.class_names and f"red{space}fox_at 10{space}AM" in source.ids


def test_masks_among_the_class_folders_are_an_error(sorted_photos):
    sorted_photos.folder.masks = "images/dog"
    with pytest.raises(ValueError, match="where each folder is a class"):
        datasets.load(sorted_photos, "train")


def test_a_missing_csv_says_that_class_folders_need_none(own):
    own.folder.csv = "nil.csv"
    with pytest.raises(ValueError, match=r"nil\.csv .*or csv to '' for one folder a class"):
        datasets.load(own, "train")
