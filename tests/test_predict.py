"""`ssenet predict`: what it writes, what it refuses to write over, and what one bad photo does to the others."""

import os
import re
import shutil
import signal

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ssenet_jax.artifacts import read_mask
from ssenet_jax.commands.predict import writable
from ssenet_jax.main import main
from ssenet_jax.training import stop


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(3)
    for name, size in (("a", (30, 21)), ("b", (16, 32)), ("c", (25, 25))):
        Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(tmp_path / f"{name}.png")
    return tmp_path


@pytest.fixture
def predict(drawn_run, photos, capsys, monkeypatch):
    """Runs the command in the folder of the photos; gives the exit code, what was printed, and the line of an error."""
    monkeypatch.chdir(photos)

    def run(*words):
        code = main(["predict", f"--workdir={drawn_run}", *words])
        return code, *capsys.readouterr()

    return run


def test_masks_overlays_and_a_page_are_written_and_written_again(predict, photos):
    for _ in range(2):
        code, out, error = predict("--out=new", "--html", "a.png", "b.png")
        assert (code, out, error) == (0, "2 of 2 photos segmented into new\n", "")
    names = {"a.png", "a_overlay.jpg", "b.png", "b_overlay.jpg", "predictions.html"}
    assert {path.name for path in (photos / "new").iterdir()} == names
    assert read_mask(photos / "new" / "a.png").shape == (30, 21)
    with Image.open(photos / "new" / "b.png") as mask, Image.open(photos / "new" / "b_overlay.jpg") as overlay:
        assert mask.mode == "P" and overlay.size == (32, 16)
    page = (photos / "new" / "predictions.html").read_text(encoding="utf-8")
    assert page.count("data:image/jpeg") == 4 and not re.search(r'(src|href)="http', page)


def test_a_name_that_is_not_utf8_stands_on_the_page(predict, photos):
    name = os.fsdecode(b"caf\xe9.png")
    shutil.copy(photos / "a.png", photos / name)
    assert predict("--out=new", "--html", name)[0] == 0
    assert b"caf\xe9" in (photos / "new" / "predictions.html").read_bytes()


def test_neither_config_nor_data_are_needed(drawn_run, photos, capsys, tmp_path_factory):
    alone = tmp_path_factory.mktemp("alone") / "run"
    shutil.copytree(drawn_run, alone)
    text = (alone / "config.json").read_text()
    (alone / "config.json").write_text(re.sub(r'"root": "[^"]*"', '"root": "/gone"', text))
    assert main(["predict", f"--workdir={alone}", f"--out={photos / 'new'}", str(photos / "a.png")]) == 0


def test_a_photo_on_its_side_gets_an_upright_mask(predict, photos):
    exif = Image.Exif()
    exif[274] = 6  # a quarter turn
    Image.open(photos / "b.png").save(photos / "turned.jpg", exif=exif)
    assert predict("--out=new", "turned.jpg")[0] == 0
    assert read_mask(photos / "new" / "turned.png").shape == (32, 16)


def test_a_broken_photo_does_not_stop_the_others(predict, photos):
    (photos / "bad.jpg").write_bytes(b"nothing")
    code, out, error = predict("--out=new", "a.png", "bad.jpg", "cat; dog/gone.jpg", "b.png")
    assert (code, out) == (1, "2 of 4 photos segmented into new\n")
    assert [line.partition(" (")[0] for line in error.splitlines()] == [
        "ssenet: image bad.jpg does not decode",
        "ssenet: cannot read cat; dog/gone.jpg",
    ]
    assert {path.name for path in (photos / "new").glob("*.png")} == {"a.png", "b.png"}
    code, _, error = predict("--out=none", "bad.jpg")
    assert code == 2 and "none of the 1 photos could be read" in error and not (photos / "none").exists()


def test_a_picture_with_a_comment_of_its_own_is_not_taken_for_a_result(tmp_path):
    comment = PngInfo()
    comment.add_text("comment", "holiday")
    Image.new("RGB", (2, 2)).save(tmp_path / "a.png", pnginfo=comment)
    with pytest.raises(ValueError, match="was not written by ssenet predict"):
        writable([tmp_path / "a.png"], tmp_path, page=False)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--out=.", "a.png"), "a.png is there and was not written by ssenet predict"),
        (("--out={folder}", "a.png"), "a.png is there and was not written by"),
        (("--out=", "a.png"), "--out is empty"),
        (("--out=held", "b.png"), "b_overlay.jpg is there and was not written by"),
        (("--out=held", "--html", "c.png"), "predictions.html is there and was not written by"),
        (("--out=a.png", "b.png"), "--out=a.png is a file"),
        (("--out=new", "a.png", "sub/A.jpg"), "are of one name"),
        (("--out=new", "a.png", "a.png"), "are of one name"),
        (("--out=links", "a.png"), "a.png is there and was not written by"),
        (("--out=new", "--config.data.max_side=8", "a.png"), "--config.data.max_side=8 is not an option"),
    ],
)
def test_nothing_of_the_users_is_written_over(predict, photos, words, message):
    for path in (photos / "held" / "b_overlay.jpg", photos / "held" / "predictions.html"):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"mine")
    (photos / "links").mkdir()
    (photos / "links" / "a.png").symlink_to(photos / "a.png")
    before = {path: path.read_bytes() for path in photos.rglob("*") if path.is_file()}
    code, out, error = predict(*(word.format(folder=photos) for word in words))
    assert (code, out) == (2, "") and message in error and error.count("\n") == 1
    assert {path: path.read_bytes() for path in photos.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda run: (run / "data.json").unlink(), "data.json is missing"),
        (lambda run: (run / "data.json").write_text('{"class_names": 3}'), "data.json is damaged"),
        (lambda run: (run / "config.json").write_text("[]"), "config.json lacks the key"),
        (lambda run: shutil.rmtree(run / "checkpoints"), "run the stage train_segmenter first"),
        (
            lambda run: (run / "manifests/train_segmenter.json").write_text(
                (run / "manifests/train_segmenter.json").read_text().replace('"complete": true', '"complete": false')
            ),
            "holds a segmentation network that is not trained to its end; run ssenet run again",
        ),
        (
            lambda run: (run / "config.json").write_text(
                (run / "config.json").read_text().replace('"resnet38"', '"efficientnet_lite0"')
            ),
            "train_segmenter with model.backbone='resnet38', but the config says 'efficientnet_lite0'",
        ),
        (
            lambda run: (run / "data.json").write_text('{"class_names": ["a", "b", "c"], "splits": {}}'),
            "holds another network than its settings say",
        ),
    ],
)
def test_a_damaged_workdir_is_named_in_one_line(drawn_run, photos, tmp_path_factory, capsys, damage, message):
    run = shutil.copytree(drawn_run, tmp_path_factory.mktemp("damaged") / "run")
    damage(run)
    assert main(["predict", f"--workdir={run}", f"--out={photos / 'new'}", str(photos / "a.png")]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and not (photos / "new").exists()


def test_a_signal_ends_it_between_photos_with_one_line(predict, photos, monkeypatch):
    monkeypatch.setattr(stop, "_came", [signal.SIGINT])
    code, out, error = predict("--out=new", "a.png", "b.png")
    assert (code, out) == (130, "0 of 2 photos segmented into new\n") and error.startswith("ssenet: stopped; ")


def test_an_overlay_that_finds_no_room_is_told_and_not_there(predict, photos, longest_file):
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (90, 90, 3), np.uint8)).save(photos / "noise.png")
    assert predict("--out=before", "noise.png")[0] == 0  # what is compiled is kept in files, too
    with longest_file(4096):  # enough for the mask, and not for the overlay
        code, _, error = predict("--out=new", "noise.png")
    assert code == 2 and "noise_overlay.jpg" in error
    assert [path.name for path in (photos / "new").iterdir()] == ["noise.png"]
