"""The layout of PASCAL VOC: palette masks, a list, `labelmap.txt`; and the archive that its evaluation server takes."""

import io
import tarfile
from pathlib import Path

from ssenet_jax.artifacts import write_mask, write_text
from ssenet_jax.datasets.records import IGNORE
from ssenet_jax.export.labelled import Labelled
from ssenet_jax.palette import indexed, palette

RESULTS = "results/VOC2012/Segmentation/comp6_test_cls"


def write(labelled: Labelled, folder: Path) -> None:
    """Writes SegmentationClass/ID.png, ImageSets/Segmentation/SPLIT.txt and labelmap.txt."""
    for item, mask in labelled.masks():
        write_mask(folder / "SegmentationClass" / f"{item.id}.png", mask)
    ids = "".join(f"{item.id}\n" for item in labelled.items)
    write_text(folder / "ImageSets" / "Segmentation" / f"{labelled.split}.txt", ids)
    write_text(folder / "labelmap.txt", labelmap(labelled))


def labelmap(labelled: Labelled) -> str:
    """One line a label, with its colour.

    Raises:
        ValueError: a class name that would be read as more than a name.
    """
    names = {0: "background"} | dict(enumerate(labelled.class_names, 1))
    if labelled.ignored:
        names[IGNORE] = "ignored"
    colours = palette(256)
    for name in names.values():
        if ":" in name or "\n" in name or name.startswith("#"):
            raise ValueError(f"the class name {name!r} cannot stand in labelmap.txt; rename it without : and #")
    lines = [f"{name}:{','.join(map(str, colours[label]))}::\n" for label, name in names.items()]
    return "# label:color_rgb:parts:actions\n" + "".join(lines)


def write_results(labelled: Labelled, folder: Path) -> None:
    """Writes results.tgz, the submission of the competition comp6."""
    with tarfile.open(folder / "results.tgz", "w:gz") as archive:
        for item, mask in labelled.masks():
            stream = io.BytesIO()
            indexed(mask).save(stream, "png")
            entry = tarfile.TarInfo(f"{RESULTS}/{item.id}.png")
            entry.size = stream.tell()
            stream.seek(0)
            archive.addfile(entry, stream)
