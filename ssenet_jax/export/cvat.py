"""CVAT's "Segmentation mask 1.1": the layout of VOC in a zip."""

import tempfile
import zipfile
from pathlib import Path

from ssenet_jax.export import voc
from ssenet_jax.export.labelled import Labelled

FILE = "segmentation_mask.zip"
_SUBSET = "default"  # what CVAT calls the images of a task


def write(labelled: Labelled, folder: Path) -> None:
    """Writes segmentation_mask.zip; CVAT finds a task's photos by their names without suffix, which are the ids."""
    with tempfile.TemporaryDirectory(dir=folder) as work, zipfile.ZipFile(folder / FILE, "w") as archive:
        voc.write(labelled._replace(split=_SUBSET), Path(work))
        for path in sorted(path for path in Path(work).rglob("*") if path.is_file()):
            archive.write(path, path.relative_to(work))
