"""YOLO's segmentation labels: one text a photo, a polygon a line."""

import json
from pathlib import Path

import numpy as np

from ssenet_jax.artifacts import write_text
from ssenet_jax.datasets.records import IGNORE
from ssenet_jax.export.labelled import Labelled
from ssenet_jax.export.regions import polygons

# Readers make whole numbers of the corners, ultralytics by cutting off and others by rounding, and paint the pixels of
# these numbers with OpenCV: so a border runs between the whole number of a pixel and the half beyond it.
_REACH, _SHIFT = 0.2, -0.25


def write(labelled: Labelled, folder: Path) -> None:
    """Writes labels/SPLIT/ID.txt, SPLIT.txt with the photos' places, and data.yaml; the photos go to images/SPLIT."""
    split, photos = labelled.split, []
    for item, mask in labelled.masks():
        write_text(folder / "labels" / split / f"{item.id}.txt", "".join(_lines(mask)))
        # ultralytics takes what starts with ./ from the list's folder, other places from where it runs
        photos.append(f"./images/{split}/{item.id}{Path(item.photo).suffix}\n")
    write_text(folder / f"{split}.txt", "".join(photos))
    names = "".join(f"  {index}: {json.dumps(name)}\n" for index, name in enumerate(labelled.class_names))
    write_text(folder / "data.yaml", f"train: {split}.txt\nval: {split}.txt\nnames:\n{names}")


def _lines(mask: np.ndarray) -> list[str]:
    """Class, then x and y of each corner in shares of width and height."""
    size = np.array(mask.shape[::-1], np.float64)
    return [
        f"{label - 1} {' '.join(f'{share:.6f}' for share in ((polygon + _SHIFT) / size).ravel())}\n"
        for label in np.setdiff1d(mask, (0, IGNORE))
        for polygon in polygons(mask == label, reach=_REACH)
    ]
