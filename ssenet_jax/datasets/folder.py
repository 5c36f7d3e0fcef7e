"""One's own photos: a folder of images with a CSV `image,labels`, or with one folder a class; masks are optional."""

import logging
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from ssenet_jax.datasets.fingerprints import contents, fingerprint
from ssenet_jax.datasets.formats import SUFFIXES
from ssenet_jax.datasets.ids import check_ids
from ssenet_jax.datasets.listing import Row, classes_of, read_class_folders, read_csv, read_csv_bytes
from ssenet_jax.datasets.records import Record, decode_image, decode_mask, multi_hot, read_bytes
from ssenet_jax.messages import quoted, shown

SPLITS = ("train", "eval")


def open_split(data_config, split: str, *, check_files: bool) -> "Folder":
    """The split that the section `data` of a config describes."""
    places = {name: data_config.folder[name] for name in ("csv", "eval_csv", "images", "masks")}
    return Folder(split, root=data_config.root, **places, check_files=check_files)


class Folder:
    """One split of a folder of images; the classes are the labels of the training photos, sorted.

    Relative paths are below `root`. The mask of `a/b.jpg` is `a/b.png` in the masks folder; an image without one
    has no mask. The id of `a/b.jpg` is `a_b`.

    Args:
        split: "train" reads `csv`, "eval" reads `eval_csv`, whose labels and ids are checked against `csv`.
        root: "" for the current folder.
        csv: a file with the columns `image` and `labels`, the labels separated by `;`; "" when each class is a folder
            of images: those that eval_csv names are then not trained on.
        eval_csv: "" when there is none.
        images: the folder that the column `image` is relative to.
        masks: the folder of masks, "" when there is none.
        check_files: whether an image that is missing raises here rather than when its record is read.

    Raises:
        ValueError: a file, column, label or image is missing, a class is unknown or cannot be told from another, an id
            cannot name a file or occurs twice, a photo is listed twice; names the row.
    """

    def __init__(self, split: str, *, root: str, csv: str, eval_csv: str, images: str, masks: str, check_files: bool):
        if split not in SPLITS:
            raise ValueError(f"a folder has no split {split!r}; it has {', '.join(SPLITS)}")
        self._images = _folder(root, images, "images")
        self._masks = _folder(root, masks, "masks") if masks else None
        if self._masks and not csv and self._images.resolve() in self._masks.resolve().parents:
            raise ValueError(
                "config.data.folder.masks lies in the images folder, where each folder is a class; move it"
            )
        lists: dict[str, str] = {}
        held_out = _read_list(root, eval_csv, lists) if eval_csv and (split == "eval" or not csv) else []
        trained = _read_list(root, csv, lists) if csv else _without(read_class_folders(self._images), held_out)
        self.class_names = classes_of(trained, shown(Path(root) / csv if csv else self._images))
        _check_listed([*trained, *held_out], self._images, self.class_names)
        if split == "eval" and not held_out:
            raise ValueError("config.data.folder.eval_csv is empty; set it to a CSV with the columns image,labels")
        self._rows = held_out if split == "eval" else trained
        self._by_suffix = not csv  # what else lies in the folders of photos was not listed by a person
        if check_files:
            for row in self._rows:
                _check_image(row, self._images)
                self._check_suffix(row)
        self.ids = [row.id for row in self._rows]
        self.photos = [str(self._images / row.image) for row in self._rows]
        self.has_masks = any(path is not None for path in map(self._mask_path, self._rows))
        if self._masks and not self.has_masks:
            first = (self._masks / self._rows[0].image).with_suffix(".png")
            logging.warning("no photo of %s has a mask; that of the first would be %s", split, shown(first))
        self.identity = {"name": "folder", "classes": list(self.class_names), "lists": lists}

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Record:
        row = self._rows[index]
        self._check_suffix(row)
        path = self._images / row.image
        image = decode_image(read_bytes(path), str(path))
        size = image.shape[0], image.shape[1]
        labels = multi_hot([self.class_names.index(label) for label in row.labels], len(self.class_names))
        record: Record = {"id": row.id, "image": image, "size": size, "labels": labels}
        mask = self._mask_path(row)
        if mask is not None:
            if os.path.samefile(mask, path):
                raise ValueError(f"image {shown(path)} is its own mask; set config.data.folder.masks to another folder")
            record["mask"] = decode_mask(read_bytes(mask), str(mask), size=size, num_classes=len(self.class_names))
        return record

    def fingerprints(self) -> dict[str, str]:
        held = contents(self._images / row.image for row in self._rows)
        return {row.id: fingerprint(sorted(row.labels), held[self._images / row.image]) for row in self._rows}

    def mask_fingerprints(self) -> dict[str, str]:
        files = {row.id: path for row in self._rows if (path := self._mask_path(row))}
        held = contents(files.values())
        return {image_id: held[path] or "" for image_id, path in files.items()}

    def _check_suffix(self, row: Row) -> None:
        if self._by_suffix and not row.image.lower().endswith(SUFFIXES):
            raise ValueError(
                f"{row.place} is no photo ({' '.join(SUFFIXES)}); remove it, or set config.data.on_error=skip"
            )

    def _mask_path(self, row: Row) -> Path | None:
        if self._masks is None:
            return None
        path = (self._masks / row.image).with_suffix(".png")
        return path if path.exists() else None


def _read_list(root: str, csv: str, lists: dict[str, str]) -> list[Row]:
    """The rows of a CSV, whose content is noted in `lists`."""
    path = Path(root) / csv
    data = read_csv_bytes(path)
    lists[path.name] = fingerprint(data)
    return read_csv(path, data)


def _without(rows: Sequence[Row], held_out: Sequence[Row]) -> list[Row]:
    images = {row.image for row in held_out}
    return [row for row in rows if row.image not in images]


def _check_listed(rows: Sequence[Row], images: Path, class_names: Sequence[str]) -> None:
    check_ids(
        ((row.id, row.place) for row in rows),
        remedy="rename or remove one; an image is listed once, either to train on or held out",
    )
    known = set(class_names)
    seen: dict[tuple[int, int], Row] = {}
    for row in rows:
        for label in row.labels:
            if label not in known:
                names = shown(", ".join(class_names))
                raise ValueError(
                    f"{row.place}: the class {quoted(label)} is not one that is trained on; those are {names}"
                )
        state = _stat(images / row.image)
        other = seen.setdefault((state.st_dev, state.st_ino), row) if state and state.st_ino else row
        if other is not row:
            raise ValueError(
                f"{row.place}: the image {quoted(row.image)} is the file {quoted(other.image)} of {other.place} under"
                " another name; remove one"
            )


def _check_image(row: Row, images: Path) -> None:
    state = _stat(images / row.image)
    remedy = "correct the row, or set config.data.on_error=skip"
    if state is None or not stat.S_ISREG(state.st_mode):
        what = "is missing" if state is None else "is not a file"
        raise ValueError(f"{row.place}: the image {shown(images / row.image)} {what}; {remedy}")


def _stat(path: Path) -> os.stat_result | None:
    try:
        return os.stat(path)
    except (OSError, ValueError):
        return None


def _folder(root: str, name: str, key: str) -> Path:
    path = Path(root) / name
    if not path.is_dir():
        raise ValueError(f"config.data.folder.{key}: {shown(path)} is not a folder; set it to the folder of {key}")
    return path
