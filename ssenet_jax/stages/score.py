"""Scores of what a stage wrote, against the masks of a split."""

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from ssenet_jax import metrics
from ssenet_jax.artifacts import Cam, read_cam, read_mask, read_seeds
from ssenet_jax.datasets.augment import resize_mask
from ssenet_jax.datasets.records import IGNORE
from ssenet_jax.stages.context import Context, Place, Sources
from ssenet_jax.stages.labels import cam_scores, seed_labels, walk_scores
from ssenet_jax.training import hosts


class Subject(NamedTuple):
    """What is scored: the results of one stage on one split."""

    place: Place
    split: str
    source: Any  # a datasets.Source; its records with a mask count
    mask_source: str
    config_hash: str


Score = Callable[[Context, Sequence[Subject]], list[dict]]  # the records of the metrics files of one stage


def subjects(context: Context, place: Place, sources: Sources, config_hash: str) -> list[Subject]:
    """What a stage wrote, split by split."""
    name = context.config.data.name
    return [Subject(place, split, source, f"masks of {name} {split}", config_hash) for split, source in sources.items()]


def _with_masks_of(subjects: Sequence[Subject]) -> list[Subject]:
    return [subject for subject in subjects if subject.source.has_masks]


def score_cams(context: Context, subjects: Sequence[Subject]) -> list[dict]:
    """CAMs at one alpha and over a sweep."""
    return _score_scores(context, subjects, cam_scores)


def score_walks(context: Context, subjects: Sequence[Subject]) -> list[dict]:
    """The walk's scores in the same way: a background of constant score stays constant when it walks along."""
    return _score_scores(context, subjects, walk_scores)


def score_seeds(context: Context, subjects: Sequence[Subject]) -> list[dict]:
    """The labels of the CRF that leaves most to the background."""
    of_low = _with_masks_of(subjects)
    return [_score_labels(subject, lambda path, size: seed_labels(read_seeds(path)[0])) for subject in of_low]


def score_masks(context: Context, subjects: Sequence[Subject]) -> list[dict]:
    """Label maps."""
    num_classes, scored = len(context.train_source.class_names), _with_masks_of(subjects)
    return [_score_labels(subject, lambda path, size: read_mask(path, num_classes, size)) for subject in scored]


def _score_labels(subject: Subject, read: Callable) -> dict:
    """The pixels that a label map leaves open, as that of a rejected photo does, are not scored."""
    k = len(subject.source.class_names) + 1
    total, count = np.zeros((k, k), np.int64), 0
    for record in _with_masks(subject):
        labels = read(subject.place.file(record["id"], subject.split), record["size"])
        mask = np.where(labels == IGNORE, IGNORE, resize_mask(record["mask"], labels.shape))
        total += metrics.confusion_matrix(mask, np.where(labels == IGNORE, 0, labels), k)
        count += 1
    return _record(subject, total, count)


def _score_scores(context: Context, subjects: Sequence[Subject], bring: Callable) -> list[dict]:
    """The training split first: with ``evaluate.best_alpha`` it settles the alpha of the others too."""
    settings, records = context.config.evaluate, []
    at_size = functools.partial(bring, stride=context.config.affinity.stride)
    alpha = settings.alpha
    for subject in _with_masks_of(subjects):
        choose = settings.best_alpha and subject.split == context.config.data.train_split
        records.append(_sweep(subject, at_size, settings.alphas, alpha, choose=choose))
        alpha = records[-1]["alpha"]
    return records


def _sweep(subject: Subject, bring: Callable, alphas: Sequence[float], alpha: float, *, choose: bool) -> dict:
    """Scores maps at one alpha, or at that with the highest mIoU where there is one, and over all, in one pass."""
    asked = sorted({*alphas, alpha})
    k = len(subject.source.class_names) + 1
    total, count = np.zeros((len(asked), k, k), np.int64), 0
    for record in _with_masks(subject):
        cam = bring(read_cam(subject.place.file(record["id"], subject.split)), record["image"].shape[:2])
        mask = resize_mask(record["mask"], cam.maps.shape[:2])
        total += metrics.alpha_confusions(*best_of(cam), mask, asked, k)
        count += 1
    sweep = metrics.sweep_summary(total, asked)
    choose = choose and not np.isnan(sweep.miou).all()
    best = int(np.nanargmax(sweep.miou)) if choose else asked.index(alpha)
    curves = {name: [finite(value) for value in getattr(sweep, name)] for name in ("alphas", "miou", "m_fn", "m_fp")}
    return _record(subject, total[best], count) | {"alpha": asked[best], "alpha_sweep": curves}


def best_of(cam: Cam) -> tuple[np.ndarray, np.ndarray]:
    """The score of each pixel's best class, and that class as a label; both 0 where an image has no class."""
    if not len(cam.classes):
        return np.zeros(cam.maps.shape[:2], np.float32), np.zeros(cam.maps.shape[:2], np.int64)
    return cam.maps.max(-1), cam.classes.astype(np.int64)[cam.maps.argmax(-1)] + 1


def records_of(subject: Subject) -> Iterator[dict]:
    """The records of what is scored, until the run is told to stop."""
    for index in range(len(subject.source)):
        hosts.leave_if_told(f"the scoring of {subject.place.stage}", subject.place.root)
        yield subject.source[index]


def _with_masks(subject: Subject) -> Iterator[dict]:
    return (record for record in records_of(subject) if "mask" in record)


def _record(subject: Subject, confusion: np.ndarray, count: int) -> dict:
    names = ("background", *subject.source.class_names)
    return {
        "stage": subject.place.stage,
        "split": subject.split,
        "num_images": count,
        "mask_source": subject.mask_source,
        "config_hash": subject.config_hash,
        "alpha": None,
        "miou": finite(metrics.mean_iou(confusion)),
        "m_fn": finite(metrics.m_fn(confusion)),
        "m_fp": finite(metrics.m_fp(confusion)),
        "undefined": len(metrics.undefined_classes(confusion)),
        "iou": {name: finite(value) for name, value in zip(names, metrics.iou(confusion), strict=True)},
        "alpha_sweep": None,
    }


def finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
