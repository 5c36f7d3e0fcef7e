"""The label maps of a run with all that other tools want to know of them."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from ml_collections import ConfigDict

from ssenet_jax.artifacts import read_mask
from ssenet_jax.datasets.records import IGNORE
from ssenet_jax.stages.context import Place
from ssenet_jax.stages.facts import Facts, Split
from ssenet_jax.stages.reviewed import REJECTED, REVIEWED, read_decisions
from ssenet_jax.stages.table import LABELS, PREDICTIONS, TABLE

WHICH = ("pseudo_labels", "predictions", "reviewed")
_STAGE = {"pseudo_labels": LABELS, "predictions": PREDICTIONS}


class Item(NamedTuple):
    """One photo.

    Attributes:
        id: of the photo.
        photo: its path below the data's root, or where there is none the id as a PNG.
        path: of its label map.
    """

    id: str
    photo: str
    path: Path


class Labelled(NamedTuple):
    """Label maps of one split.

    Attributes:
        class_names: of the foreground classes.
        split: the name of the split.
        items: the photos that have a label map.
        ignored: whether pixels of the label 255 stay as they are; otherwise they are background.
    """

    class_names: tuple[str, ...]
    split: str
    items: tuple[Item, ...]
    ignored: bool

    def masks(self) -> Iterator[tuple[Item, UInt8[np.ndarray, "h w"]]]:
        """Each item with its label map.

        Raises:
            ValueError: a file is damaged, or holds a label that is no class.
        """
        for item in self.items:
            mask = read_mask(item.path, len(self.class_names))
            yield item, mask if self.ignored else np.where(mask == IGNORE, 0, mask).astype(np.uint8)


def collect(workdir: Path, config: ConfigDict, facts: Facts, which: str, *, ignored: bool = False) -> Labelled:
    """The label maps that a workdir holds; photos without one are left out.

    Args:
        workdir: of a run.
        config, facts: what it says of itself.
        which: one of WHICH.
        ignored: see `Labelled`.

    Raises:
        ValueError: there is none.
    """
    data = config.data
    split = data.eval_split if which == "predictions" and data.eval_split else data.train_split
    if split not in facts.splits:
        raise ValueError(f"{workdir}/data.json does not know the split {split!r}; run ssenet run again")
    place = Place(which, workdir, TABLE[_STAGE[which]].writes if which in _STAGE else f"{REVIEWED}/{{id}}.png")
    counted, decided = set(facts.splits[split].ids), read_decisions(workdir)
    if which == "reviewed":
        counted = set(decided)
    if which == "reviewed" or (which == "pseudo_labels" and config.labels.source == "reviewed"):
        # a rejected photo keeps a mask that does not count, and its label map says nothing
        counted -= {image_id for image_id, row in decided.items() if row.decision == REJECTED}
    found = [
        Item(image_id, photo, place.file(image_id, split))
        for image_id, photo in _photos(facts.splits[split])
        if image_id in counted and place.file(image_id, split).is_file()
    ]
    if not found:
        raise ValueError(f"{place.folder} holds no label map of {split}; {_REMEDY[which].format(workdir=workdir)}")
    return Labelled(facts.class_names, split, tuple(found), ignored)


_REMEDY = {
    "pseudo_labels": "run ssenet run --stages=label first",
    "predictions": "run ssenet run --stages=segment first",
    "reviewed": "run ssenet review --workdir={workdir} first",
}


def _photos(split: Split) -> list[tuple[str, str]]:
    return list(zip(split.ids, split.photos or [f"{image_id}.png" for image_id in split.ids], strict=True))
