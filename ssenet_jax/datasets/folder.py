"""One's own photos: a folder of images and a CSV `image,labels`; masks are optional."""

import csv as csv_reader
import os
from pathlib import Path
from typing import NamedTuple

from ssenet_jax.datasets.records import Record, decode_image, decode_mask, multi_hot, read_bytes

SPLITS = ("train", "eval")
COLUMNS = ("image", "labels")
MAX_CLASSES = 254  # masks hold 0 for the background and 255 for ignored pixels


class Row(NamedTuple):
    """A line of the CSV: where it stands, its image's path below the images folder, and its labels."""

    line: int
    image: str
    labels: tuple[str, ...]

    @property
    def id(self) -> str:
        return os.path.splitext(self.image)[0].replace("\\", "/").replace("/", "_")


class Folder:
    """One split of a folder of images; the classes are the labels of the training CSV, sorted.

    Relative paths are below `root`. A mask is the PNG in the masks folder with the image's name; an image without one
    has no mask. The id of `a/b.jpg` is `a_b`.

    Args:
        split: "train" reads `csv`, "eval" reads `eval_csv`, whose labels and ids are checked against `csv`.
        root: "" for the current folder.
        csv: a file with the columns `image` and `labels`, the labels separated by `;`.
        eval_csv: "" when there is none.
        images: the folder that the column `image` is relative to.
        masks: the folder of masks, "" when there is none.
        check_files: whether an image that is missing raises here rather than when its record is read.

    Raises:
        ValueError: a file, column, label or image is missing, a class is unknown, an id occurs twice; names the row.
    """

    def __init__(self, split: str, *, root: str, csv: str, eval_csv: str, images: str, masks: str, check_files: bool):
        if split not in SPLITS:
            raise ValueError(f"a folder has no split {split!r}; it has {', '.join(SPLITS)}")
        self._images = _folder(root, images, "images")
        self._masks = _folder(root, masks, "masks") if masks else None
        path = _path(root, csv, "csv")
        self._rows = read_csv(path)
        self.class_names = tuple(sorted({label for row in self._rows for label in row.labels}))
        if len(self.class_names) > MAX_CLASSES:
            raise ValueError(f"{path} has {len(self.class_names)} classes; at most {MAX_CLASSES} fit a mask")
        if split == "eval":
            train_path, train_rows = path, self._rows
            path = _path(root, eval_csv, "eval_csv")
            self._rows = read_csv(path)
            _check_eval(path, self._rows, train_path, train_rows, self.class_names)
        if check_files:
            _check_images(path, self._rows, self._images)
        self.ids = [row.id for row in self._rows]
        self.has_masks = any(path is not None for path in map(self._mask_path, self._rows))

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Record:
        row = self._rows[index]
        path = str(self._images / row.image)
        image = decode_image(read_bytes(path), path)
        labels = multi_hot([self.class_names.index(label) for label in row.labels], len(self.class_names))
        record: Record = {"id": row.id, "image": image, "labels": labels}
        mask = self._mask_path(row)
        if mask is not None:
            data = read_bytes(str(mask))
            record["mask"] = decode_mask(data, str(mask), size=image.shape[:2], num_classes=len(self.class_names))
        return record

    def _mask_path(self, row: Row) -> Path | None:
        if self._masks is None:
            return None
        path = (self._masks / row.image).with_suffix(".png")
        return path if path.exists() else None


def read_csv(path: Path) -> list[Row]:
    """The rows of a CSV with the columns `image` and `labels`; other columns are passed over.

    Raises:
        ValueError: the file or a column is missing, it has no row, a row has no image or label, or an id occurs twice.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = _parse(path, csv_reader.DictReader(file))
    except OSError as error:
        remedy = "set config.data.folder.csv and eval_csv to the lists of images"
        raise ValueError(f"cannot read {path} ({error.strerror}); {remedy}") from error
    except (UnicodeDecodeError, csv_reader.Error) as error:
        raise ValueError(f"{path} is not a CSV in UTF-8 ({error}); save it as one") from error
    if not rows:
        raise ValueError(f"{path} has no row below its header; add a line image,labels for each image")
    first: dict[str, Row] = {}
    for row in rows:
        other = first.setdefault(row.id, row)
        if other is not row:
            raise ValueError(
                f"{path}, row {row.line}: the id {row.id!r} of {row.image!r} is that of {other.image!r} in row"
                f" {other.line}; rename or remove one"
            )
    return rows


def _parse(path: Path, reader: csv_reader.DictReader) -> list[Row]:
    columns = reader.fieldnames or ()
    for column in COLUMNS:
        if column not in columns:
            found = ", ".join(columns) or "none"
            raise ValueError(f"{path} has no column {column!r} (found: {found}); its first line must be image,labels")
    return [_read_row(path, reader.line_num, entry) for entry in reader]


def _read_row(path: Path, line: int, entry: dict) -> Row:
    image = (entry["image"] or "").strip()
    labels = tuple(label.strip() for label in (entry["labels"] or "").split(";") if label.strip())
    if not image:
        raise ValueError(f"{path}, row {line}: no image; name a file, or remove the row")
    if not labels:
        raise ValueError(f"{path}, row {line}: no label for {image!r}; give at least one, separated by ;")
    return Row(line, image, labels)


def _check_eval(path: Path, rows: list[Row], train_path: Path, train_rows: list[Row], class_names) -> None:
    seen = {row.id: row.line for row in train_rows}
    for row in rows:
        for label in row.labels:
            if label not in class_names:
                known = ", ".join(class_names)
                raise ValueError(f"{path}, row {row.line}: the class {label!r} is not in {train_path}; it has {known}")
        if row.id in seen:
            raise ValueError(
                f"{path}, row {row.line}: the id {row.id!r} is also in row {seen[row.id]} of {train_path};"
                " an image is either trained on or held out"
            )


def _check_images(path: Path, rows: list[Row], images: Path) -> None:
    for row in rows:
        if not (images / row.image).is_file():
            raise ValueError(
                f"{path}, row {row.line}: the image {images / row.image} is missing; correct the row, or set"
                " config.data.on_error=skip"
            )


def _path(root: str, name: str, key: str) -> Path:
    if not name:
        raise ValueError(f"config.data.folder.{key} is empty; set it to a CSV with the columns image,labels")
    return Path(root) / name


def _folder(root: str, name: str, key: str) -> Path:
    path = Path(root) / name
    if not path.is_dir():
        raise ValueError(f"config.data.folder.{key}: {path} is not a folder; set it to the folder of {key}")
    return path
