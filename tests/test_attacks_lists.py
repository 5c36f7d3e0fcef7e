"""Lists of photos that lie: one line that names the row, before a training; no label is dropped, no photo doubled."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssenet_jax import datasets
from ssenet_jax.commands import verify
from ssenet_jax.config import paper_config
from ssenet_jax.datasets.records import decode_image, read_bytes

ANSI = "\x1b[31m"
PHOTO = Image.fromarray(np.full((20, 30, 3), 90, np.uint8))


def encoded(image):
    stream = io.BytesIO()
    image.save(stream, "png")
    return stream.getvalue()


@pytest.fixture
def own(tmp_path):
    """Two photos and a config that points at them."""
    (tmp_path / "images").mkdir()
    for name in ("a", "b"):
        (tmp_path / f"images/{name}.png").write_bytes(encoded(PHOTO))
    data = paper_config().data
    data.name, data.root, data.eval_split = "folder", str(tmp_path), ""
    return data


def faults(data):
    """What verify-data prints below its head."""
    lines = verify.table(list(verify.faults(data))).splitlines()[1:]
    assert all(line.isprintable() and len(line) < 500 for line in lines)
    return lines


HEAD = "image,labels\n"
LONG = "n" * 250
LISTS = {
    "a NUL": (HEAD + "a.png,el\0m\n", "row 2: the label 'el\\x00m' holds"),
    "a NUL in a name": (HEAD + "a\0.png,elm\n", "row 2: the image 'a\\x00.png' holds"),
    "labels separated by commas": (HEAD + "a.png,elm,oak\n", "row 2: more values than"),
    "labels separated by commas below empty columns": ("image,labels,,\na.png,elm,oak,\n", "row 2: more values than"),
    "labels in quotes separated by commas": (HEAD + 'a.png,"elm,oak"\n', "separate labels by ;"),
    "labels separated by |": (HEAD + "a.png,elm|oak\n", "separate labels by ;"),
    "labels separated by a wide semicolon": (HEAD + "a.png,elm\uff1boak\n", "separate labels by ;"),
    "labels on two lines": (HEAD + 'a.png,"elm\noak"\n', "row 3: the label 'elm\\noak' holds"),
    "a quote that is not closed": (HEAD + 'a.png,"elm\nb.png,oak\n', "quote that is not closed"),
    "a quote that the next row closes": (HEAD + 'a.png,"elm\nb.png,"oak\n', "quote"),
    "20,000 labels": (HEAD + "a.png," + ";".join(map(str, range(20_000))) + "\n", "20000 classes"),
    "a field of 140,000 letters": (HEAD + "a.png," + "x" * 140_000 + "\n", "row 2: not a CSV"),
    "a label of 5,000 letters": (HEAD + "a.png," + "x" * 5000 + "\n", "has 5000 letters"),
    "labels that differ in case": (HEAD + "a.png,elm\nb.png,Elm\n", "the label Elm differs from elm"),
    "labels that differ in Unicode form": (
        HEAD + "a.png,ch\u00eane\nb.png,che\u0302ne\n",
        r"the label 'che\u0302ne' differs from 'ch\xeane'",
    ),
    "labels that differ in width": (HEAD + "a.png,elm\nb.png,\uff45lm\n", "differs from"),
    "labels that differ in spaces": (HEAD + "a.png,big elm\nb.png,big  elm\n", "differs from"),
    "a label with what is not seen": (HEAD + "a.png,e\u200blm\n", "holds a line break or control"),
    "a label that turns the line round": (HEAD + "a.png,\u202eelm\n", "holds a line break or control"),
    "a class named background": (HEAD + "a.png,elm\nb.png,Background\n", "row 3: the label 'Background' is the name"),
    "none of the classes, and one": (HEAD + "a.png,-;elm\n", "says that no class is shown"),
    "no class at all": (HEAD + "a.png,-\nb.png,-\n", "names no class at all"),
    "a blank cell": (HEAD + "a.png,elm\nb.png, \n", "row 3: no label for 'b.png'; give labels separated by ;, or -"),
    "ids that differ in case": (HEAD + "a.png,elm\nA.png,elm\n", "row 3: the id 'A' is one file with 'a'"),
    "ids that differ in Unicode form": (HEAD + "\u00e9.png,elm\ne\u0301.png,elm\n", "is one file with"),
    "a photo twice": (HEAD + "a.png,elm\n./a.png,elm\n", "row 3: the id 'a' is also that of"),
    "a photo under another name": (HEAD + "a.png,elm\nlink.png,elm\n", "is the file 'a.png' of"),
    "a photo by two paths": (HEAD + "a.png,elm\n.//a.png,elm\n", "row 3: the id 'a' is also"),
    "a path out of the folder": (HEAD + "../images/a.png,elm\n", "leaves the images folder"),
    "a path out and in": (HEAD + "x/../a.png,elm\n", "leaves the images folder"),
    "a Windows path out": (HEAD + "..\\a.png,elm\n", "leaves the images folder"),
    "an absolute path": (HEAD + "/etc/passwd,elm\n", "leaves the images folder"),
    "a drive": (HEAD + "C:\\a.png,elm\n", "leaves the images folder"),
    "a name of 250 letters": (HEAD + LONG + ".png,elm\n", "has 250 bytes"),
    "a name of 110 letters and 330 bytes": (HEAD + "\u4e09" * 110 + ".png,elm\n", "has 330 bytes"),
    "a path of 400 letters": (HEAD + "/".join(["d" * 99] * 4) + ".png,elm\n", "has 399 bytes"),
    "an ending of 300 letters": (HEAD + "a.png,elm\nc." + "x" * 300 + ",elm\n", "cannot read"),
    "escape codes in a name": (HEAD + f"{ANSI}a.png,elm\n", "holds control characters"),
    "escape codes in a column": (f"image,{ANSI}labels\n", "no column 'labels' (found: image, \\x1b[31mlabels)"),
    "a column twice": ("image,labels,labels\na.png,elm,oak\n", "more than one column 'labels'"),
    "the column image of 5 MB": ("x" * 5_000_000 + "\n", "row"),
    "a header alone in quotes": ('"image,labels"\na.png,elm\n', "has no column 'image'"),
}


@pytest.mark.parametrize(("text", "message"), LISTS.values(), ids=[name.replace(" ", "-") for name in LISTS])
def test_a_list_that_lies_is_one_line_before_a_training(own, text, message):
    root = Path(own.root)
    (root / "images/link.png").symlink_to("a.png")
    for name in ("A.png", "\u00e9.png", "e\u0301.png"):
        (root / "images" / name).write_bytes(encoded(PHOTO))
    (root / "train.csv").write_text(text, newline="")
    (line,) = faults(own)
    assert message in line and "train.csv" in line or "xxx" in line
    with pytest.raises(ValueError):
        datasets.load(own, "train")


def test_a_byte_order_mark_is_no_part_of_a_column(own):
    (Path(own.root) / "train.csv").write_text("\ufeffimage,labels\na.png,elm\n", encoding="utf-8")
    assert datasets.load(own, "train").ids == ["a"]


def test_thousands_of_missing_photos_are_counted_not_printed(own, caplog):
    rows = "".join(f"missing{i}.png,elm\n" for i in range(3000)) + f"{'x' * 150}.png,elm\n"
    (Path(own.root) / "train.csv").write_text(HEAD + "a.png,elm\n" + rows)
    (Path(own.root) / "images/a.png").write_bytes(b"cut")
    lines = faults(own)
    assert len(lines) == 22 and "(2981 more)" in lines[-1] and any("does not decode" in line for line in lines)

    own.on_error = "skip"
    (Path(own.root) / "images/a.png").write_bytes(encoded(PHOTO))
    assert datasets.load(own, "train").ids == ["a"]
    assert len(caplog.messages) == 21 and caplog.messages[-1].startswith("left out: 2981 more")


def test_a_name_in_a_message_cannot_reach_the_terminal():
    with pytest.raises(ValueError) as error:
        read_bytes(f"/nowhere/{ANSI}\n\u202e{'x' * 5000}")
    assert str(error.value).isprintable() and len(str(error.value)) < 400 and r"\x1b[31m\n\u202e" in str(error.value)
    with pytest.raises(ValueError) as error:
        decode_image(b"x", ANSI)
    assert str(error.value).isprintable()
