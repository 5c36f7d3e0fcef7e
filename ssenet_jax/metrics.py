"""Segmentation metrics from confusion matrices; numpy, exact integers, additive over images and hosts."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Integer, Num


def confusion_matrix(
    label: Integer[np.ndarray, "*n"], prediction: Integer[np.ndarray, "*n"], num_classes: int, ignore: int = 255
) -> Int[np.ndarray, "k k"]:
    """Counts of pixels by true class (rows) and predicted class (columns).

    Args:
        label: true class of each pixel, `ignore` where it does not count.
        prediction: predicted class, of the same shape.
        num_classes: k, the background included.
        ignore: label of the pixels left out.

    Returns:
        int64 (k, k); matrices of several images add up.

    Raises:
        ValueError: the shapes differ, or a class is not in 0 .. k - 1.

    Examples:
        >>> import numpy as np
        >>> confusion_matrix(np.array([0, 0, 1, 255]), np.array([0, 1, 1, 1]), num_classes=2).tolist()
        [[1, 1], [0, 1]]
    """
    return _joint_counts(label, prediction, np.zeros(np.shape(label), np.int64), 1, num_classes, ignore)[0]


def _joint_counts(
    label: np.ndarray, prediction: np.ndarray, group: np.ndarray, num_groups: int, num_classes: int, ignore: int
) -> np.ndarray:
    """Confusion matrices of several groups of pixels: (num_groups, k, k)."""
    label, prediction = np.asarray(label), np.asarray(prediction)
    if not label.shape == prediction.shape == group.shape:
        raise ValueError(f"confusion matrix: the label is {label.shape}, the prediction {prediction.shape}")
    valid = label != ignore
    label, prediction, group = (x[valid].astype(np.int64) for x in (label, prediction, group))
    for name, values in (("label", label), ("prediction", prediction)):
        if values.size and not 0 <= values.min() <= values.max() < num_classes:
            wrong = values[(values < 0) | (values >= num_classes)][0]
            raise ValueError(f"confusion matrix: {name} {wrong} is not in 0..{num_classes - 1} (ignored: {ignore})")
    index = (group * num_classes + label) * num_classes + prediction
    counts = np.bincount(index, minlength=num_groups * num_classes**2)
    return counts.reshape(num_groups, num_classes, num_classes).astype(np.int64)


def _counts(confusion: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    confusion = np.asarray(confusion, np.float64)
    tp = np.diagonal(confusion)
    return tp, confusion.sum(1) - tp, confusion.sum(0) - tp


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return np.divide(numerator, denominator, out=np.full(numerator.shape, np.nan), where=denominator > 0)


def iou(confusion: Num[np.ndarray, "k k"]) -> Float[np.ndarray, " k"]:
    """TP / (TP + FN + FP) of each class, nan for a class with no pixel in labels and predictions. Source: Eq. 4.

    Examples:
        >>> import numpy as np
        >>> iou(np.array([[6, 2], [0, 2]]))
        array([0.75, 0.5 ])
    """
    tp, fn, fp = _counts(confusion)
    return _ratio(tp, tp + fn + fp)


def fn_share(confusion: Num[np.ndarray, "k k"]) -> Float[np.ndarray, " k"]:
    """FN / (TP + FN + FP) of each class; with `iou` and `fp_share` it sums to 1."""
    tp, fn, fp = _counts(confusion)
    return _ratio(fn, tp + fn + fp)


def fp_share(confusion: Num[np.ndarray, "k k"]) -> Float[np.ndarray, " k"]:
    """FP / (TP + FN + FP) of each class; with `iou` and `fn_share` it sums to 1."""
    tp, fn, fp = _counts(confusion)
    return _ratio(fp, tp + fn + fp)


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else float("nan")


def mean_iou(confusion: Num[np.ndarray, "k k"]) -> float:
    """Mean IoU over the classes that occur, background included; nan when nothing was counted.

    Examples:
        >>> import numpy as np
        >>> mean_iou(np.array([[6, 2], [0, 2]]))
        0.625
    """
    values = iou(confusion)
    return _mean(values[~np.isnan(values)])


def _mean_over_tp(wrong: np.ndarray, tp: np.ndarray, union: np.ndarray) -> float:
    occurs = union[1:] > 0
    return _mean(_ratio(wrong[1:], tp[1:])[occurs])


def m_fn(confusion: Num[np.ndarray, "k k"]) -> float:
    """Mean over the foreground classes of FN / TP; nan when a class that occurs has TP = 0. Source: Eq. 5.

    Examples:
        >>> import numpy as np
        >>> m_fn(np.array([[6, 2], [1, 2]]))
        0.5
    """
    tp, fn, fp = _counts(confusion)
    return _mean_over_tp(fn, tp, tp + fn + fp)


def m_fp(confusion: Num[np.ndarray, "k k"]) -> float:
    """Mean over the foreground classes of FP / TP; nan when a class that occurs has TP = 0. Source: Eq. 6.

    Examples:
        >>> import numpy as np
        >>> m_fp(np.array([[6, 2], [1, 2]]))
        1.0
    """
    tp, fn, fp = _counts(confusion)
    return _mean_over_tp(fp, tp, tp + fn + fp)


def undefined_classes(confusion: Num[np.ndarray, "k k"]) -> tuple[int, ...]:
    """Foreground classes that occur but have TP = 0: they leave `m_fn` and `m_fp` undefined."""
    tp, fn, fp = _counts(confusion)
    return tuple(int(i) for i in np.flatnonzero((tp == 0) & (fn + fp > 0)) if i > 0)


def average_precision(labels: Num[np.ndarray, "n c"], scores: Float[np.ndarray, "n c"]) -> Float[np.ndarray, " c"]:
    """Average precision of each class over images: the area under its precision over recall, as steps.

    Args:
        labels: 1 for present, 0 for absent.
        scores: higher is more likely present; of equal scores the absent ones come first.

    Returns:
        In [0, 1]; nan for a class that no image has.
    """
    order = np.lexsort((labels, -scores), axis=0)
    found = np.take_along_axis(np.asarray(labels, np.float64), order, axis=0)
    precision = np.cumsum(found, axis=0) / np.arange(1, len(found) + 1)[:, None]
    return _ratio((precision * found).sum(axis=0), found.sum(axis=0))


def mean_average_precision(labels: Num[np.ndarray, "n c"], scores: Float[np.ndarray, "n c"]) -> float:
    """The mean of `average_precision` over the classes that occur; nan when none does."""
    values = average_precision(labels, scores)
    return _mean(values[~np.isnan(values)])


class AlphaSweep(NamedTuple):
    """One value per alpha, in the order asked; `confusions` is (number of alphas, k, k)."""

    alphas: list[float]
    miou: list[float]
    m_fn: list[float]
    m_fp: list[float]
    confusions: np.ndarray


def alpha_confusions(
    best: Float[np.ndarray, "*n"],
    winner: Integer[np.ndarray, "*n"],
    mask: Integer[np.ndarray, "*n"],
    alphas: Sequence[int | float],
    num_classes: int,
    ignore: int = 255,
) -> Int[np.ndarray, "a k k"]:
    """Confusion matrix at every alpha from one pass over the pixels of an image; matrices of several images add up.

    Args:
        best: score of each pixel's best class.
        winner: that class, 1 .. k - 1.
        mask: true class, `ignore` where it does not count.
        alphas: thresholds in any order; the prediction is background where best <= alpha.
        num_classes: k, the background included.
        ignore: label of the pixels left out.
    """
    thresholds = np.asarray(alphas, np.float32)
    order = np.argsort(thresholds, kind="stable")
    # `level` is the number of alphas below the score: the pixel is foreground at the first `level` of them.
    level = np.searchsorted(thresholds[order], np.asarray(best, np.float32), side="left")
    joint = _joint_counts(mask, winner, level, len(alphas) + 1, num_classes, ignore)
    sorted_confusions = np.cumsum(joint[::-1], axis=0)[::-1][1:].copy()
    sorted_confusions[:, :, 0] += np.cumsum(joint, axis=0)[:-1].sum(axis=2)
    confusions = np.empty_like(sorted_confusions)
    confusions[order] = sorted_confusions
    return confusions


def sweep_summary(confusions: Int[np.ndarray, "a k k"], alphas: Sequence[int | float]) -> AlphaSweep:
    """mIoU, mFN and mFP at every alpha from summed `alpha_confusions`."""
    miou, missed, invented = ([figure(c) for c in confusions] for figure in (mean_iou, m_fn, m_fp))
    return AlphaSweep([float(a) for a in alphas], miou, missed, invented, confusions)


def alpha_sweep(
    cams: Iterable[np.ndarray], labels: Iterable[np.ndarray], masks: Iterable[np.ndarray], alphas: Sequence[int | float]
) -> AlphaSweep:
    """Metrics of CAM labels at every background threshold, in one pass over the data.

    Args:
        cams: normalised CAMs (h, w, c) in [0, 1]; any iterable, read once.
        labels: image-level labels (c,) of the same images; absent classes never win.
        masks: true classes (h, w), 255 ignored.
        alphas: background thresholds, >= 0.

    Raises:
        ValueError: no alpha, a negative one, no image, or iterables of different lengths.

    Examples:
        >>> import numpy as np
        >>> cam, mask = np.array([[[0.1], [0.6]]]), np.array([[0, 1]])
        >>> alpha_sweep([cam], [np.array([1])], [mask], alphas=[0.05, 0.3]).miou
        [0.25, 1.0]
    """
    if len(alphas) == 0 or min(alphas) < 0:
        raise ValueError(f"alpha_sweep: expected thresholds >= 0, got {list(alphas)}")
    total: int | np.ndarray = 0
    for cam, label, mask in zip(cams, labels, masks, strict=True):
        scores = np.asarray(cam, np.float32) * np.asarray(label, np.float32)[None, None, :]
        winner = scores.argmax(-1) + 1
        total = total + alpha_confusions(scores.max(-1), winner, np.asarray(mask), alphas, scores.shape[-1] + 1)
    if isinstance(total, int):
        raise ValueError("alpha_sweep: no image was given")
    return sweep_summary(total, alphas)
