"""Metrics: the authors' figures, additivity over shards, the sweep over alpha against one threshold at a time."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ssenet_jax import metrics

GOLDEN = Path(__file__).parent / "golden"
K = 4
labels = hnp.arrays(np.uint8, (5, 6), elements=st.sampled_from([0, 1, 2, 3, 255]))
predictions = hnp.arrays(np.uint8, (5, 6), elements=st.integers(0, 3))


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN / "pure_evaluation.npz") as file:
        values = dict(zip(file["names"].tolist(), file["values"], strict=True))
        images = [(file[f"gt{i}"], file[f"pred{i}"]) for i in range(6)]
    return values, sum(metrics.confusion_matrix(gt, pred, 21) for gt, pred in images)


def test_iou_equals_the_authors_code(golden):
    values, confusion = golden
    iou = metrics.iou(confusion)
    names = list(values)[:21]
    for name, ours in zip(names, iou, strict=True):
        # absent classes: 0 there, left out of the mean here
        assert values[name] == 0 if np.isnan(ours) else abs(values[name] / 100 - ours) < 1e-9
    assert abs(np.nansum(iou) / 21 - values["mIoU"] / 100) < 1e-9
    assert abs(metrics.mean_iou(confusion) - np.nanmean(iou)) < 1e-12


def test_fn_and_fp_over_tp_equal_the_authors_code_where_defined(golden):
    values, confusion = golden
    # They print means over 20 classes of T/TP and P/TP with 1e-10 added to TP, absent classes as 0. In this set the
    # last class is only ever predicted: TP = 0, their P/TP is P * 1e10, ours is undefined.
    assert metrics.undefined_classes(confusion) == (20,)
    assert np.isnan(metrics.m_fn(confusion)) and np.isnan(metrics.m_fp(confusion))
    defined = confusion[:20, :20].copy()
    defined[:, 0] += confusion[:20, 20]  # their FN stays FN
    present = np.flatnonzero(np.diag(defined)[1:]).size
    assert abs((metrics.m_fn(defined) + 1) * present / 20 - values["t_tp"]) < 1e-9
    of_the_last = confusion[:, 20].sum() * 1e10 / 20
    ours = (metrics.m_fp(defined) + 1) * present / 20 + of_the_last
    assert abs(ours / values["p_tp"] - 1) < 1e-9
    assert abs(ours - values["p_tp"]) < 1e-4  # what float64 leaves of the other classes beside 1e11


def test_shares_of_the_union_equal_the_authors_code(golden):
    values, confusion = golden
    assert abs(np.nansum(metrics.fp_share(confusion)[1:]) / 20 - values["fp_all"]) < 1e-9
    assert abs(np.nansum(metrics.fn_share(confusion)[1:]) / 20 - values["fn_all"]) < 1e-9
    assert abs(np.nansum(metrics.iou(confusion)[1:]) / 20 - values["miou_foreground"]) < 1e-9


@settings(max_examples=15, deadline=None)
@given(label=labels, prediction=predictions)
def test_iou_and_the_two_shares_make_a_whole_and_shards_add_up(label, prediction):
    whole = metrics.confusion_matrix(label, prediction, K)
    shards = [metrics.confusion_matrix(a, b, K) for a, b in zip(label, prediction, strict=True)]
    np.testing.assert_array_equal(whole, sum(shards))
    assert whole.dtype == np.int64 and whole.sum() == (label != 255).sum()
    total = metrics.iou(whole) + metrics.fn_share(whole) + metrics.fp_share(whole)
    np.testing.assert_allclose(total[~np.isnan(total)], 1)
    np.testing.assert_array_equal(np.isnan(total), whole.sum(0) + whole.sum(1) == 0)


def test_figures_of_a_matrix_by_hand():
    confusion = np.array([[5, 1, 0], [2, 4, 0], [0, 0, 0]])
    np.testing.assert_allclose(metrics.iou(confusion), [5 / 8, 4 / 7, np.nan])
    np.testing.assert_allclose(metrics.mean_iou(confusion), (5 / 8 + 4 / 7) / 2)
    np.testing.assert_allclose([metrics.m_fn(confusion), metrics.m_fp(confusion)], [2 / 4, 1 / 4])
    assert metrics.undefined_classes(confusion) == ()


def test_a_class_without_a_hit_is_counted_and_makes_the_ratios_nan():
    confusion = np.array([[5, 0, 0], [3, 0, 0], [0, 0, 2]])
    assert metrics.undefined_classes(confusion) == (1,)
    assert np.isnan(metrics.m_fn(confusion)) and np.isnan(metrics.m_fp(confusion))
    assert np.isnan(metrics.mean_iou(np.zeros((3, 3), np.int64)))


@settings(max_examples=15, deadline=None)
@given(
    cams=hnp.arrays(np.float32, (2, 5, 6, 3), elements=st.sampled_from([0.0, 0.1, 0.2, 0.25, 0.7, 1.0])),
    present=hnp.arrays(np.float32, (2, 3), elements=st.sampled_from([0.0, 1.0])),
    masks=hnp.arrays(np.uint8, (2, 5, 6), elements=st.sampled_from([0, 1, 2, 3, 255])),
)
def test_the_sweep_equals_one_threshold_at_a_time(cams, present, masks):
    alphas = [0.7, 0.0, 0.2, 0.3, 0.1, 1.0]
    sweep = metrics.alpha_sweep(iter(cams), iter(present), iter(masks), alphas)
    for i, alpha in enumerate(alphas):
        expected = 0
        for cam, label, mask in zip(cams, present, masks, strict=True):
            scores = cam * label
            winner = np.where(scores.max(-1) <= np.float32(alpha), 0, scores.argmax(-1) + 1)
            expected = expected + metrics.confusion_matrix(mask, winner, K)
        np.testing.assert_array_equal(sweep.confusions[i], expected)
        np.testing.assert_equal(sweep.miou[i], metrics.mean_iou(expected))
        np.testing.assert_equal(sweep.m_fp[i], metrics.m_fp(expected))
    assert sweep.alphas == alphas


def test_errors_name_the_wrong_class_and_shape():
    zeros = np.zeros((2, 2), np.uint8)
    with pytest.raises(ValueError, match=r"label 7 is not in 0\.\.3 \(ignored: 255\)"):
        metrics.confusion_matrix(zeros + np.uint8(7), zeros, K)
    with pytest.raises(ValueError, match="prediction 255 is not in"):
        metrics.confusion_matrix(zeros, zeros + np.uint8(255), K)
    with pytest.raises(ValueError, match="thresholds >= 0"):
        metrics.alpha_sweep([], [], [], [-0.1])
    with pytest.raises(ValueError, match="no image"):
        metrics.alpha_sweep([], [], [], [0.1])
