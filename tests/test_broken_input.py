"""Every kind of broken or odd input that a run may meet, and what each gives: a line that names it, or a record."""

import errno
import io
import os
import shutil
import struct
import zlib
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from ssenet_jax import artifacts, datasets
from ssenet_jax.checkpoint import Checkpoints, load_variables
from ssenet_jax.config import paper_config
from ssenet_jax.main import main
from ssenet_jax.stages import manifest

CONFIGS = Path(__file__).parents[1] / "configs"
HEIGHT, WIDTH = 20, 30
RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
GREY = PIXELS[..., 0]


def encoded(image, kind="png", **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


PHOTO = Image.fromarray(PIXELS)
JPEG, PNG = encoded(PHOTO, "jpeg"), encoded(PHOTO)
PALETTE = PHOTO.quantize(16)
CLEAR = Image.merge("RGBA", (*PHOTO.split(), Image.new("L", PHOTO.size, 0)))


def rgb(grey):
    return np.stack([grey] * 3, -1)


def rotated():
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(PHOTO, "jpeg", exif=exif)


def huge_png():
    """A header that claims 60,000 x 60,000 pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return PNG[:8] + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header)) + PNG[33:]


def flipped(data, place):
    return data[:place] + bytes([data[place] ^ 255]) + data[place + 1 :]


BAD_IMAGES = {
    "truncated JPEG": (JPEG[: len(JPEG) // 2], "does not decode"),
    "truncated PNG": (PNG[: len(PNG) // 2], "does not decode"),
    "PNG cut in its header": (PNG[:20], "does not decode"),
    "JPEG cut in its header": (JPEG[:4], "does not decode"),
    "empty file": (b"", "is missing or empty"),
    "text": (b"not found\n", "does not decode"),
    "PNG with a wrong check sum": (flipped(PNG, 30), "does not decode"),
    "PNG with broken pixels": (flipped(PNG, 45), "does not decode"),
    "PNG that claims to be huge": (huge_png(), "does not decode"),
    "floating point TIFF": (encoded(Image.fromarray(GREY.astype(np.float32)), "tiff"), "8 bits a channel"),
    "NumPy file": (b"\x93NUMPY\x01\x00", "does not decode"),
}

ODD_IMAGES = {  # bytes -> the shape, and the pixels where they are known
    "CMYK JPEG": (encoded(PHOTO.convert("CMYK"), "jpeg"), (20, 30, 3), None),
    "grey JPEG": (encoded(PHOTO.convert("L"), "jpeg"), (20, 30, 3), None),
    "grey PNG": (encoded(Image.fromarray(GREY)), (20, 30, 3), rgb(GREY)),
    "16-bit grey PNG": (encoded(Image.fromarray(GREY.astype(np.uint16) * 256 + 9)), (20, 30, 3), rgb(GREY)),
    "one-bit PNG": (encoded(Image.fromarray(GREY > 99)), (20, 30, 3), rgb(np.uint8(255) * (GREY > 99))),
    "palette PNG": (encoded(PALETTE), (20, 30, 3), np.asarray(PALETTE.convert("RGB"))),
    "palette PNG with a clear colour": (encoded(PALETTE, transparency=0), (20, 30, 3), None),
    "clear PNG": (encoded(CLEAR), (20, 30, 3), np.full_like(PIXELS, 255)),
    "grey PNG with transparency": (encoded(CLEAR.convert("LA")), (20, 30, 3), np.full_like(PIXELS, 255)),
    "EXIF-rotated JPEG": (rotated(), (30, 20, 3), None),
    "1 x 1": (encoded(Image.fromarray(PIXELS[:1, :1])), (1, 1, 3), PIXELS[:1, :1]),
    "very wide": (encoded(Image.fromarray(np.tile(PIXELS[:1], (1, 100, 1)))), (1, 3000, 3), None),
    "very tall": (encoded(Image.fromarray(np.tile(PIXELS[:, :1], (150, 1, 1)))), (3000, 1, 3), None),
    "BMP under another name": (encoded(PHOTO, "bmp"), (20, 30, 3), PIXELS),
    "animated GIF": (encoded(PHOTO, "gif", save_all=True, append_images=[PHOTO.rotate(180)]), (20, 30, 3), None),
}

CLASSES = GREY % 3  # two foreground classes
BAD_MASKS = {
    "truncated mask": (encoded(Image.fromarray(GREY))[:60], "does not decode"),
    "empty mask": (b"", "is empty"),
    "text for a mask": (b"mask", "does not decode"),
    "coloured mask": (PNG, "has mode RGB"),
    "coloured mask with transparency": (encoded(CLEAR), "has mode RGBA"),
    "grey mask with transparency": (encoded(CLEAR.convert("LA")), "has mode LA"),
    "floating point mask": (encoded(Image.fromarray(CLASSES.astype(np.float32)), "tiff"), "has mode F"),
    "mask of another size": (encoded(Image.fromarray(CLASSES[:-1])), "is 30 x 19 pixels but its image is 30 x 20"),
    "mask lying on its side": (encoded(Image.fromarray(CLASSES.T)), "is 20 x 30 pixels but its image is 30 x 20"),
    "mask with a class too many": (encoded(Image.fromarray(CLASSES + 1)), "holds the value 3"),
    "16-bit mask out of range": (encoded(Image.fromarray(CLASSES.astype(np.uint16) * 500)), "holds the value"),
    "mask of 0 and 254": (encoded(Image.fromarray(np.uint8(254) * (CLASSES > 0))), "holds the value 254"),
}
ODD_MASKS = {
    "palette mask": (encoded(Image.fromarray(CLASSES).convert("P")), None),
    "16-bit mask": (encoded(Image.fromarray(CLASSES.astype(np.uint16))), CLASSES),
    "one-bit mask": (encoded(Image.fromarray(CLASSES > 0)), (CLASSES > 0).astype(np.uint8)),
    "mask with ignored pixels": (encoded(Image.fromarray(np.where(CLASSES, CLASSES, 255).astype(np.uint8))), None),
}

BAD_LISTS = {
    "empty CSV": (b"", "has no column 'image'"),
    "CSV without the column image": (b"file,labels\na.png,elm\n", "has no column 'image'"),
    "CSV without the column labels": (b"image,tags\na.png,elm\n", "has no column 'labels'"),
    "CSV without rows": (b"image,labels\n", "has no row below its header"),
    "row without an image": (b"image,labels\n,elm\n", "row 2: no image"),
    "row without a label": (b"image,labels\na.png,\n", "row 2: no label for 'a.png'"),
    "row cut short": (b"image,labels\na.png\n", "row 2: no label for 'a.png'"),
    "the same image twice": (b"image,labels\na.png,elm\na.png,oak\n", "row 3: the id 'a'"),
    "the same id twice": (b"image,labels\na.png,elm\na.jpg,oak\n", "row 3: the id 'a'"),
    "missing image": (b"image,labels\nnil.png,elm\n", "nil.png is missing"),
    "CSV in Latin-1": ("image,labels\na.png,ch\xeane\n".encode("latin-1"), "is not a CSV in UTF-8"),
    "CSV in UTF-16": ("image,labels\na.png,elm\n".encode("utf-16"), "is not a CSV in UTF-8"),
    "255 classes": (b"image,labels\na.png," + b";".join(b"c%d" % i for i in range(255)), "255 classes; at most 254"),
}


@pytest.fixture
def own(tmp_path):
    """Two photos with masks and a config that points at them; the second is the one to break."""
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for name in ("a", "b"):
        (tmp_path / f"images/{name}.png").write_bytes(PNG)
        (tmp_path / f"masks/{name}.png").write_bytes(encoded(Image.fromarray(CLASSES)))
    (tmp_path / "train.csv").write_text("image,labels\na.png,elm\nb.png,oak\n")
    data = paper_config().data
    data.name, data.root, data.eval_split, data.folder.masks = "folder", str(tmp_path), "", "masks"
    return data


def ids(table):
    return [name.replace(" ", "-") for name in table]


def check_broken(own, place, data, message):
    """A broken file is named in one line, found by a full reading, and left out when that is asked for."""
    path = Path(own.root) / place
    path.write_bytes(data)
    source = datasets.load(own, "train")
    with pytest.raises(ValueError, match=message) as error:
        source[1]
    assert str(path) in str(error.value) and "\n" not in str(error.value)
    assert [image_id for image_id, problem in datasets.problems(source) if problem] == ["b"]
    own.on_error = "skip"
    assert datasets.load(own, "train").ids == ["a"]


@pytest.mark.parametrize(("data", "message"), BAD_IMAGES.values(), ids=ids(BAD_IMAGES))
def test_a_broken_image_is_named_or_left_out(own, data, message):
    check_broken(own, "images/b.png", data, message)


@pytest.mark.parametrize(("data", "message"), BAD_MASKS.values(), ids=ids(BAD_MASKS))
def test_a_broken_mask_is_named_or_left_out(own, data, message):
    check_broken(own, "masks/b.png", data, message)


@pytest.mark.parametrize(("data", "shape", "pixels"), ODD_IMAGES.values(), ids=ids(ODD_IMAGES))
def test_an_odd_image_is_read_as_rgb_and_upright(own, data, shape, pixels):
    (Path(own.root) / "images/b.png").write_bytes(data)
    own.folder.masks = ""
    image = datasets.load(own, "train")[1]["image"]
    assert image.shape == shape and image.dtype == np.uint8
    if pixels is not None:
        np.testing.assert_array_equal(image, pixels)


@pytest.mark.parametrize(("data", "classes"), ODD_MASKS.values(), ids=ids(ODD_MASKS))
def test_an_odd_mask_gives_its_class_numbers(own, data, classes):
    (Path(own.root) / "masks/b.png").write_bytes(data)
    mask = datasets.load(own, "train")[1]["mask"]
    assert mask.shape == (HEIGHT, WIDTH) and mask.dtype == np.uint8
    if classes is not None:
        np.testing.assert_array_equal(mask, classes)


@pytest.mark.parametrize(("data", "message"), BAD_LISTS.values(), ids=ids(BAD_LISTS))
def test_a_broken_list_is_named(own, data, message):
    (Path(own.root) / "train.csv").write_bytes(data)
    with pytest.raises(ValueError, match=message) as error:
        datasets.load(own, "train")
    assert "train.csv" in str(error.value) and "\n" not in str(error.value)


def run(workdir, *arguments, capsys):
    code = main(["run", f"--config={CONFIGS}/scenes.py:tiny", f"--workdir={workdir}", *arguments])
    lines = capsys.readouterr().err.strip().splitlines()
    assert code == 2 and lines[-1].startswith("ssenet: ")
    return lines[-1]


def no_space(*arguments, **keywords):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_stops_a_run_and_leaves_nothing_half_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(os, "replace", no_space)
    assert "No space left on device" in run(tmp_path / "full", capsys=capsys)
    assert {path.name for path in (tmp_path / "full").rglob("*")} == {".lock0"}


def test_arrays_that_do_not_fit_the_disk_leave_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    artifacts.write_arrays(path, cam=np.zeros(3))

    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(np.lib.format, "write_array", full)
    with pytest.raises(OSError, match="No space left.*a.npz"):
        artifacts.write_arrays(path, cam=np.ones(3))
    assert list(tmp_path.iterdir()) == [path]
    monkeypatch.undo()
    assert artifacts.read_arrays(path, "cam")[0].tolist() == [0, 0, 0]


def test_a_workdir_that_cannot_be_written_is_named(tmp_path, monkeypatch, capsys):
    def denied(path, *arguments, **keywords):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "mkdir", denied)
    assert f"Permission denied: '{tmp_path / 'closed'}'" in run(tmp_path / "closed", capsys=capsys)


def test_a_file_for_a_workdir_is_named(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert str(tmp_path / "file") in run(tmp_path / "file", capsys=capsys)


def test_a_workdir_in_use_is_named(tmp_path, capsys):
    with artifacts.locked(tmp_path):
        assert f"another run is using {tmp_path}" in run(tmp_path, capsys=capsys)


def test_a_workdir_of_another_config_names_the_key(tmp_path, capsys):
    config = paper_config()
    settings = manifest.result_settings(config, ("seed", "dtype", "data", "model", "init", "classifier"))
    manifest.write_manifest(tmp_path / "manifests/train_baseline.json", settings, complete=True)
    message = run(tmp_path, "--stages=train_baseline", capsys=capsys)
    assert "holds results of train_baseline with" in message and "use another --workdir" in message


@pytest.mark.parametrize("text", ["", "{", "[1, 2", "\x00"])
def test_a_damaged_manifest_is_named(tmp_path, text, capsys):
    path = tmp_path / "manifests/train_baseline.json"
    path.parent.mkdir()
    path.write_text(text)
    assert f"{path} is not readable JSON" in run(tmp_path, "--stages=train_baseline", capsys=capsys)


@pytest.mark.parametrize("damage", ["cut", "emptied", "a part removed"])
def test_no_stage_takes_an_older_model_for_a_damaged_newest_one(tmp_path, damage):
    variables = {"params": {"a": jax.numpy.arange(4.0)}, "batch_stats": {}}
    with Checkpoints(tmp_path / "run", keep=2) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, variables, {"a": jax.numpy.zeros(4)}, {})
    if damage == "a part removed":
        shutil.rmtree(tmp_path / "run" / "2" / "variables")
    else:
        for file in (tmp_path / "run" / "2").rglob("*"):
            if file.is_file():
                file.write_bytes(file.read_bytes()[: file.stat().st_size // 2 if damage == "cut" else 0])
    newest = tmp_path / "run" / "2"
    with pytest.raises(ValueError, match="delete .* and run the stage x again, which goes on") as error:
        load_variables(tmp_path / "run", "x")
    assert f"{newest} is damaged" in str(error.value)
    shutil.rmtree(newest)  # as it says
    assert load_variables(tmp_path / "run", "x")["params"]["a"].tolist() == [0, 1, 2, 3]
