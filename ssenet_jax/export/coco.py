"""COCO's instances: one annotation a class and photo, as run lengths, or as polygons."""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from ssenet_jax.artifacts import write_json
from ssenet_jax.datasets.records import IGNORE
from ssenet_jax.export.labelled import Labelled
from ssenet_jax.export.regions import polygons


def write(labelled: Labelled, folder: Path) -> None:
    """Writes SPLIT.json with run lengths, which are exact."""
    _write(labelled, folder, lambda mask: {"counts": run_lengths(mask), "size": list(mask.shape)})


def write_polygons(labelled: Labelled, folder: Path) -> None:
    """Writes SPLIT.json with polygons; a region with holes is cut in pieces without."""
    _write(labelled, folder, lambda mask: [polygon.ravel().tolist() for polygon in polygons(mask)])


def run_lengths(mask: Bool[np.ndarray, "h w"]) -> list[int]:
    """The lengths of the runs down the columns, those outside the mask first."""
    flat = np.concatenate([[False], mask.ravel(order="F")])
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    return np.diff(np.concatenate([[0], changes, [mask.size]])).tolist()


def _write(labelled: Labelled, folder: Path, segmentation) -> None:
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, (item, mask) in enumerate(labelled.masks(), 1):
        height, width = mask.shape
        images.append({"id": number, "file_name": item.photo, "height": height, "width": width})
        for label in np.setdiff1d(mask, (0, IGNORE)):
            found = {"id": len(annotations) + 1, "image_id": number, "category_id": int(label), "iscrowd": 0}
            annotations.append(found | _extent(mask == label) | {"segmentation": segmentation(mask == label)})
    categories = [{"id": label, "name": name} for label, name in enumerate(labelled.class_names, 1)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    write_json(folder / f"{labelled.split}.json", content)


def _extent(mask: np.ndarray) -> dict[str, Any]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    left, top = int(columns[0]), int(rows[0])
    return {"area": int(mask.sum()), "bbox": [left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1]}
