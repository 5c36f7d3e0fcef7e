"""What an experiment is: changes of a config, which stages they are run through, and what is shown of them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ml_collections import ConfigDict

TRAIN, EVAL = "train_split", "eval_split"  # keys of the config's section data

BASELINE = {"classifier.regulariser": "none"}


class Variant(NamedTuple):
    """One row of an experiment.

    Attributes:
        name: as people read it; its folder too.
        changes: of the config, by dotted key.
        group, x: for a figure with one line a group, over x.
    """

    name: str
    changes: Mapping[str, Any]
    group: str = ""
    x: float = 0.0

    @property
    def folder(self) -> str:
        """A name for a folder."""
        return "".join(letter if letter.isalnum() or letter in ".-" else "_" for letter in self.name)

    def config(self, base: ConfigDict, stages: Sequence[str], seed: int) -> ConfigDict:
        """The config of one seed; scenes are drawn by the seed too."""
        config = base.copy_and_resolve_references()
        changes = {**self.changes, "seed": seed, "stages": tuple(stages), "baseline": False}
        if config.data.name == "scenes":
            changes["data.scenes.seed"] = seed
        for key, value in changes.items():
            *sections, name = key.split(".")
            section = config
            for part in sections:
                section = section[part]
            section[name] = value
        return config


class Column(NamedTuple):
    """One figure of every variant.

    Attributes:
        title: of the column.
        stage: whose metrics it is in.
        split: TRAIN or EVAL.
        key: in the metrics file, with slashes.
        percent: whether it is a fraction to be shown in percent.
        published: by variant, the paper's figure on VOC 2012 in percent.
    """

    title: str
    stage: str
    split: str
    key: str = "miou"
    percent: bool = True
    published: Mapping[str, float] = {}


class Curve(NamedTuple):
    """A figure with one line a variant: two lists of a metrics file against each other."""

    stage: str
    split: str
    x: str
    y: str
    x_label: str
    y_label: str


class Pictures(NamedTuple):
    """A figure of examples: the image, the ground truth, and what a stage made of it in each variant."""

    stage: str
    split: str
    images: int = 4


class Experiment(NamedTuple):
    """One experiment.

    Attributes:
        title: of its page.
        about: what it asks.
        stages: what every variant is run through, with all that they read.
        variants: from a config to the rows.
        columns: of the table.
        figure: "columns" draws the table, "groups" one line a group of variants and column over the variants' x.
        predicts: a split beyond those of the config that the segmentation network is applied to; "" for none.
    """

    title: str
    about: str
    stages: tuple[str, ...]
    variants: Callable[[ConfigDict], list[Variant]]
    columns: tuple[Column, ...]
    figure: str | Curve | Pictures = "columns"
    predicts: str = ""


def at_scales(config: ConfigDict, *, together: bool) -> list[Variant]:
    """Baseline and regularised classifier, their CAMs at each test scale alone, and with `together` at all of them."""
    found = []
    for name, changes in (("baseline", BASELINE), (ours(config), {})):
        for scale in config.cam.scales:
            found.append(Variant(f"{name}, scale {scale:g}", {**changes, "cam.scales": (scale,)}, name, scale))
        if together:
            found.append(Variant(f"{name}, all scales", changes, name))
    return found


def ours(config: ConfigDict) -> str:
    """What the config's own classifier is called beside the baseline."""
    names = {"ser": "SSENet", "seam": "SEAM"}
    return names.get(config.classifier.regulariser, "the config's")
