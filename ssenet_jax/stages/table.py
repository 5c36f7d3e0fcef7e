"""The stages of an experiment, one row each: everything else that depends on what a stage is follows from its row."""

from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from ssenet_jax.artifacts import read_cam, read_mask
from ssenet_jax.report import pictures
from ssenet_jax.stages import apply, labels, measure, train
from ssenet_jax.stages.context import Context, Job, Place, Sources
from ssenet_jax.stages.score import Score, score_cams, score_masks, score_seeds, score_walks
from ssenet_jax.training import recipes

# the stages that other modules name; everything else about a stage is in its row
BASELINE_CAMS, CAMS, MEASURES, SEEDS = "infer_baseline_cams", "infer_cams", "measure_cams", "refine_seeds"
WALKS, LABELS, PREDICTIONS = "propagate", "label", "segment"
TRAIN_CLASSIFIER = "train_classifier"

COMMON = ("seed", "dtype", "data", "model")  # sections that decide every result

Picture = Callable[[np.ndarray, Place, str, str, float | None], np.ndarray]  # image, place, id, split, alpha -> RGB
Names = tuple[str, ...] | Callable[[ConfigDict], tuple[str, ...]]


class Stage(NamedTuple):
    """One row.

    Attributes:
        title: as people read it, in the report and the progress.
        run: does what is missing.
        needs: the stages whose results it reads; they may depend on the config.
        sections: the parts of the config that decide its result, beside those of the stages it needs.
        writes: a path below the workdir: a folder of checkpoints, or with `{id}` and `{split}` one file an image.
        images: for stages with one file an image, which images they are.
        score: how its results are scored; None for no score.
        picture: how the report shows its result for one image; None for no picture.
        stale: for stages with one file an image, the ids whose file is to be written again; None: never one.
        training: for stages that train, which of ``recipes.TRAININGS``.
        check: raises, at the start of a run, what it would find out after a training; None: nothing.
    """

    title: str
    run: Callable[[Context, Job], None]
    needs: Names
    sections: Names
    writes: str
    images: Callable[[Context], Sources] | None = None
    score: Score | None = None
    picture: Picture | None = None
    stale: Callable[[Context, Place], Collection[str]] | None = None
    training: str = ""
    check: Callable[[Context], None] | None = None


def _cam_picture(image: np.ndarray, place: Place, image_id: str, split: str, alpha: float | None) -> np.ndarray:
    return pictures.cam_picture(image, read_cam(place.file(image_id, split)).maps, alpha=alpha)


def _label_picture(image: np.ndarray, place: Place, image_id: str, split: str, alpha: float | None) -> np.ndarray:
    return pictures.overlay_labels(image, read_mask(place.file(image_id, split)))


def _started_from(section: str, *needs: str) -> Callable[[ConfigDict], tuple[str, ...]]:
    """The stages that a training reads, with the classifier's where its backbone starts from that."""
    return lambda config: (*needs, "train_classifier") if config[section].init == "classifier" else needs


def _segmenter_sections(config: ConfigDict) -> tuple[str, ...]:
    return ("init", "segmenter") if config.segmenter.init == "weights" else ("segmenter",)


def final_training(config: ConfigDict) -> str:
    """The stage that trains the network which predicts."""
    return "retrain_segmenter" if config.segmenter.rounds else "train_segmenter"


def walk_training(config: ConfigDict) -> str:
    """The stage that trains the network whose features the walk takes."""
    return {"affinity": "train_affinity", "classifier": "train_classifier"}[config.random_walk.features]


LABEL_NEEDS = {"walk": ("propagate",), "cam": ("infer_cams",), "seeds": ("refine_seeds",), "masks": ()}


def _label_needs(config: ConfigDict) -> tuple[str, ...]:
    source = config.labels.source
    if source == "reviewed":
        source = config.labels.unreviewed
    if source not in LABEL_NEEDS:
        raise ValueError(f"labels.source is {source!r}; it must be one of {', '.join((*LABEL_NEEDS, 'reviewed'))}")
    if config.labels.crf and source in labels.LABELS:
        raise ValueError(f"labels.crf needs scores, which labels.source={source!r} has not; set it False")
    return LABEL_NEEDS[source]


TABLE = {
    "train_baseline": Stage(
        "Baseline classifier", train.train_baseline, (), ("init", "classifier"), "checkpoints/baseline",
        training="baseline",
    ),
    "infer_baseline_cams": Stage(
        "Baseline CAM", apply.infer_cams, ("train_baseline",), ("cam",), "baseline/cams/{id}.npz",
        Context.training_and_scored_images, score_cams, _cam_picture,
    ),
    "train_classifier": Stage(
        "Classifier", train.train_classifier, lambda config: ("train_baseline",) if config.finetune.steps else (),
        lambda config: ("init", "classifier", "finetune", *recipes.regulariser(config).sections),
        "checkpoints/classifier",
        training="classifier",
    ),
    "infer_cams": Stage(
        "CAM", apply.infer_cams, ("train_classifier",), ("cam",), "cams/{id}.npz",
        Context.training_and_scored_images, score_cams, _cam_picture,
    ),
    "measure_baseline_cams": Stage(
        "Baseline CAM, measures", measure.measure_cams, ("train_baseline",), ("cam", "measure"),
        "baseline/measures/{id}.npz", Context.measured_images, measure.score_measures, check=measure.check_measured,
    ),
    "measure_cams": Stage(
        "CAM, measures", measure.measure_cams, ("train_classifier",), ("cam", "measure"), "measures/{id}.npz",
        Context.measured_images, measure.score_measures, check=measure.check_measured,
    ),
    "refine_seeds": Stage(
        "CRF seeds", labels.refine_seeds, ("infer_cams",), ("crf",), "seeds/{id}.npz",
        Context.training_images, score_seeds, check=labels.check_seeds,
    ),
    "train_affinity": Stage(
        "AffinityNet", train.train_affinity, _started_from("affinity", "refine_seeds"), ("affinity",),
        "checkpoints/affinity", training="affinity",
    ),
    "propagate": Stage(
        "Random walk", apply.propagate, lambda config: ("infer_cams", walk_training(config)),
        ("affinity", "random_walk"), "walks/{id}.npz", Context.training_images, score_walks, _cam_picture,
    ),
    "label": Stage(
        "Label", labels.label, _label_needs, lambda config: ("labels", *(("crf",) if config.labels.crf else ())),
        "pseudo_labels/{id}.png", Context.training_images, score_masks, _label_picture, labels.made_otherwise,
        check=labels.check_labels,
    ),
    "train_segmenter": Stage(
        "DeepLab", train.train_segmenter, _started_from("segmenter", "label"), _segmenter_sections,
        "checkpoints/segmenter", training="segmenter",
    ),
    "relabel": Stage(
        "Labels, second round", labels.relabel, ("train_segmenter",),
        lambda config: ("segment", *(("crf",) if config.segment.crf else ())), "relabelled/{id}.png",
        Context.training_images, score_masks, _label_picture, labels.made_otherwise,
    ),
    "retrain_segmenter": Stage(
        "DeepLab, second round", train.train_segmenter, _started_from("segmenter", "relabel"), _segmenter_sections,
        "checkpoints/segmenter_2", training="segmenter",
    ),
    "segment": Stage(
        "Prediction", apply.segment, lambda config: (final_training(config),),
        lambda config: ("segment", *(("crf",) if config.segment.crf else ())), "predictions/{split}/{id}.png",
        Context.images_to_segment, score_masks, _label_picture,
    ),
}  # fmt: skip


def needs_of(name: str, config: ConfigDict) -> tuple[str, ...]:
    """The stages whose results a stage reads, under a config."""
    needs = TABLE[name].needs
    return needs(config) if callable(needs) else needs


def asked_for(config: ConfigDict) -> tuple[str, ...]:
    """The stages that a config asks for and all that they read, in the order of the data flow.

    Raises:
        ValueError: it names a stage that there is not.
    """
    unknown = [name for name in config.stages if name not in TABLE]
    if unknown:
        raise ValueError(f"config.stages names {unknown[0]!r}; the stages are {', '.join(TABLE)}")
    measured = config.measure.images > 0
    names = list(config.stages) or [list(TABLE)[-1], *(["measure_cams"] if measured else [])]
    if config.baseline:
        names += ["infer_baseline_cams", *(["measure_baseline_cams"] if measured else [])]
    return with_needs(names, config)


def with_needs(names: Iterable[str], config: ConfigDict) -> tuple[str, ...]:
    """Stages and all that they read, in the order of the data flow."""
    wanted, waiting = set(), list(names)
    while waiting:
        name = waiting.pop()
        if name not in wanted:
            wanted.add(name)
            waiting.extend(needs_of(name, config))
    return tuple(name for name in TABLE if name in wanted)


def sections_of(name: str, config: ConfigDict) -> tuple[str, ...]:
    """The sections of the config that decide a stage's result, those of every stage before it included."""
    sections = TABLE[name].sections
    own = sections(config) if callable(sections) else sections
    before = [section for need in needs_of(name, config) for section in sections_of(need, config)]
    return tuple(dict.fromkeys((*COMMON, *before, *own)))


def place_of(name: str, workdir: Path) -> Place:
    """Where a stage writes."""
    row = TABLE[name]
    return Place(name, workdir, row.writes, row.training)
