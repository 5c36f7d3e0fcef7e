"""What a folder of photos says of its labels: the rows of a CSV, or one folder a class."""

import csv as csv_reader
import io
import itertools
import ntpath
import os
import posixpath
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from ssenet_jax.datasets.records import read_bytes
from ssenet_jax.messages import is_printable, quoted, shown

COLUMNS = ("image", "labels")
NONE = "-"  # the label of a photo that shows none of the classes
MAX_CLASSES = 254  # masks hold 0 for the background and 255 for ignored pixels

_LONGEST_LABEL = 100
_OTHER_SEPARATORS = ",|\uff0c\uff1b\u3001\u060c\u061b"
_CSV_REMEDY = "set config.data.folder.csv and eval_csv to the lists of images, or csv to '' for one folder a class"
_CLUTTER = ("thumbs.db", "desktop.ini")


class Row(NamedTuple):
    """A photo: the place that lists it, for errors, its path below the images folder, and its labels."""

    place: str
    image: str
    labels: tuple[str, ...]

    @property
    def id(self) -> str:
        return os.path.splitext(self.image)[0].replace("\\", "/").replace("/", "_")


def read_csv(path: Path, data: bytes) -> list[Row]:
    """The rows of a CSV with the columns `image` and `labels`; other named columns are passed over.

    Raises:
        ValueError: not a CSV in UTF-8, a column is missing, there is no row, or a row has no image, no label, more
            values than there are columns, or a path that leaves the folder; names the row.
    """
    try:
        text = data.decode("utf-8-sig")
        rows = _parse(path, csv_reader.reader(io.StringIO(text, newline=""), strict=True))
    except UnicodeDecodeError as error:
        raise ValueError(f"{shown(path)} is not a CSV in UTF-8 ({error}); save it as one") from error
    if not rows:
        raise ValueError(f"{shown(path)} has no row below its header; add a line image,labels for each image")
    return rows


def read_csv_bytes(path: Path) -> bytes:
    """Raises ValueError that names the keys of the config when the CSV cannot be read."""
    return read_bytes(path, _CSV_REMEDY)


def _parse(path: Path, reader) -> list[Row]:
    try:
        columns = [column.strip() for column in next(reader, ())]
        for column in COLUMNS:
            if columns.count(column) != 1:
                how_many, found = "more than one" if column in columns else "no", shown(", ".join(columns)) or "none"
                raise ValueError(
                    f"{shown(path)} has {how_many} column {column!r} (found: {found}); its first line must be"
                    " image,labels"
                )
        return [_read_row(f"{shown(path)}, row {reader.line_num}", columns, values) for values in reader if values]
    except csv_reader.Error as error:
        place = f"{shown(path)}, row {reader.line_num}"
        raise ValueError(f"{place}: not a CSV ({error}); look for a quote that is not closed") from error


def _read_row(place: str, columns: list[str], values: list[str]) -> Row:
    cells = dict(zip(columns, values, strict=False))
    image = _inside(cells.get("image", "").strip(), place)
    named = [bool(column) for column in columns]
    if any(value.strip() for value, is_named in itertools.zip_longest(values, named, fillvalue="") if not is_named):
        raise ValueError(f"{place}: more values than the header has columns; separate the labels of a photo by ;")
    return Row(place, image, read_labels(cells.get("labels", ""), image, place))


def _inside(image: str, place: str) -> str:
    if not image:
        raise ValueError(f"{place}: no image; name a file, or remove the row")
    if not is_printable(image):
        raise ValueError(f"{place}: the image {quoted(image)} holds control characters; look for a quote left open")
    if posixpath.isabs(image) or ntpath.splitdrive(image)[0] or ".." in image.replace("\\", "/").split("/"):
        raise ValueError(
            f"{place}: the image {quoted(image)} leaves the images folder; give its path below"
            " config.data.folder.images"
        )
    return posixpath.normpath(image)


def read_labels(text: str, image: str, place: str) -> tuple[str, ...]:
    """The labels of a photo, separated by `;`; none for `-`.

    Raises:
        ValueError: no label, another separator, or a label that cannot be a class; names the place.
    """
    labels = tuple(label.strip() for label in text.split(";") if label.strip())
    if not labels:
        raise ValueError(
            f"{place}: no label for {quoted(image)}; give labels separated by ;, or {NONE} for a photo with none of the"
            " classes"
        )
    for label in labels:
        if problem := _unfit(label, is_alone=len(labels) == 1):
            raise ValueError(f"{place}: the label {quoted(label)} {problem}")
    return () if labels == (NONE,) else labels


def _unfit(label: str, *, is_alone: bool) -> str:
    if not is_printable(label):
        return "holds a line break or control character; look for a quote that is not closed"
    if any(separator in label for separator in _OTHER_SEPARATORS):
        return "looks like several; separate labels by ;"
    if len(label) > _LONGEST_LABEL:
        return f"has {len(label)} letters; at most {_LONGEST_LABEL} are taken"
    if label.casefold() == "background":
        return f"is the name of what no class covers; give the class another name, or {NONE} to a photo without any"
    if label == NONE and not is_alone:
        return "says that no class is shown, beside others; remove one or the other"
    return ""


def read_class_folders(images: Path) -> list[Row]:
    """The photos of a folder with one folder a class; those in the folder `-` have none of the classes.

    A folder's name is read as a cell of the CSV is: photos in `cat;dog` show both. Hidden files are passed over.

    Raises:
        ValueError: a photo in no folder, a folder in a folder, one without photos, or a name that cannot be a class.
    """
    rows = []
    for folder in _entries(images):
        if not folder.is_dir():
            raise ValueError(
                f"{shown(folder)} lies in no class's folder; move it into one, or into a folder {NONE}, or name a CSV"
            )
        labels = read_labels(folder.name, folder.name, shown(folder))
        photos = _entries(folder)
        if not photos:
            raise ValueError(f"{shown(folder)} holds no photo; remove the folder, or put photos of the class there")
        rows += [Row(shown(photo), f"{folder.name}/{photo.name}", labels) for photo in photos]
    if not rows:
        raise ValueError(f"{shown(images)} is empty; put a folder of photos there for each class, or name a CSV")
    nested = [row.place for row in rows if (images / row.image).is_dir()]
    if nested:
        raise ValueError(f"{nested[0]} is a folder; photos lie directly in the folder of their class")
    return rows


def _entries(folder: Path) -> list[Path]:
    names = sorted(os.listdir(folder))
    return [folder / name for name in names if not name.startswith(".") and name.casefold() not in _CLUTTER]


def classes_of(rows: Iterable[Row], place: str) -> tuple[str, ...]:
    """The classes that the rows' labels name, sorted.

    Raises:
        ValueError: no class, more than a mask can hold, or two that differ in letter case or Unicode form alone.
    """
    first: dict[str, tuple[str, Row]] = {}
    for row in rows:
        for label in row.labels:
            other, where = first.setdefault(_class_key(label), (label, row))
            if other != label:
                names = (label, other) if label.casefold() == other.casefold() else (ascii(label), ascii(other))
                raise ValueError(
                    f"{row.place}: the label {shown(names[0])} differs from {shown(names[1])} of {where.place} in"
                    " letter case, spaces or Unicode form alone; write both the same way"
                )
    if not first:
        raise ValueError(f"{place} names no class at all; label the photos that show one")
    if len(first) > MAX_CLASSES:
        raise ValueError(f"{place} has {len(first)} classes; at most {MAX_CLASSES} fit a mask")
    return tuple(sorted(label for label, _ in first.values()))


def _class_key(label: str) -> str:
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", label).casefold())
    return " ".join("".join(letter for letter in folded if unicodedata.category(letter) != "Cf").split())
