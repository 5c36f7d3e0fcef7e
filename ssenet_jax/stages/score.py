"""Scores of what a stage wrote, against the masks of a split."""

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ssenet_jax import metrics
from ssenet_jax.artifacts import read_arrays


class Subject(NamedTuple):
    """What is scored: the results of one stage on one split."""

    stage: str
    split: str
    source: Any  # a datasets.Source; its records with a mask count
    mask_source: str
    config_hash: str


def score_labels(subject: Subject, labels_of: Callable[[str], np.ndarray]) -> dict | None:
    """Scores the (h, w) class indices that ``labels_of`` gives for an image id.

    Returns:
        The record of a metrics file, or None when no image of the split has a mask.
    """
    k = len(subject.source.class_names) + 1
    total, count = np.zeros((k, k), np.int64), 0
    for record in _with_masks(subject.source):
        total += metrics.confusion_matrix(record["mask"], labels_of(record["id"]), k)
        count += 1
    return _record(subject, total, count) if count else None


def score_cams(
    subject: Subject, path_of: Callable[[str], Path], alphas: Sequence[float], alpha: float | None
) -> dict | None:
    """Scores CAMs at one alpha and over a sweep, in one pass.

    Args:
        subject: whose CAMs.
        path_of: the .npz of an image id.
        alphas: of the sweep.
        alpha: the one to report; None takes that with the highest mIoU in the sweep.

    Returns:
        The record of a metrics file, or None when no image of the split has a mask.
    """
    asked = sorted({*alphas, *([] if alpha is None else [alpha])})
    k = len(subject.source.class_names) + 1
    total, count = np.zeros((len(asked), k, k), np.int64), 0
    for record in _with_masks(subject.source):
        cam, classes = read_arrays(path_of(record["id"]), "cam", "classes")
        winner = classes.astype(np.int64)[cam.argmax(-1)] + 1
        total += metrics.alpha_confusions(cam.max(-1), winner, record["mask"], asked, k)
        count += 1
    if not count:
        return None
    sweep = metrics.sweep_summary(total, asked)
    best = int(np.argmax(sweep.miou)) if alpha is None else asked.index(alpha)
    curves = {name: [_finite(value) for value in getattr(sweep, name)] for name in ("alphas", "miou", "m_fn", "m_fp")}
    return _record(subject, total[best], count) | {"alpha": asked[best], "alpha_sweep": curves}


def _with_masks(source: Any) -> Iterable[dict]:
    if not source.has_masks:
        return
    for index in range(len(source)):
        record = source[index]
        if "mask" in record:
            yield record


def _record(subject: Subject, confusion: np.ndarray, count: int) -> dict:
    names = ("background", *subject.source.class_names)
    return {
        "stage": subject.stage,
        "split": subject.split,
        "num_images": count,
        "mask_source": subject.mask_source,
        "config_hash": subject.config_hash,
        "alpha": None,
        "miou": _finite(metrics.mean_iou(confusion)),
        "m_fn": _finite(metrics.m_fn(confusion)),
        "m_fp": _finite(metrics.m_fp(confusion)),
        "undefined": len(metrics.undefined_classes(confusion)),
        "iou": {name: _finite(value) for name, value in zip(names, metrics.iou(confusion), strict=True)},
        "alpha_sweep": None,
    }


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
