"""Dense CRF: the same call as pydensecrf's own, marginals, errors."""

import functools
import inspect

import numpy as np
import pytest
from pydensecrf import densecrf
from pydensecrf.utils import unary_from_softmax

from ssenet_jax.crf import dense_crf


@pytest.fixture(scope="module")
def example():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 60, (14, 19, 3)).astype(np.uint8)
    image[:, 8:] += 150  # an edge that the scores miss by two pixels
    scores = rng.uniform(0.3, 0.5, (14, 19, 3)).astype(np.float32)
    scores[:, :6, 0] += 0.3
    scores[:, 6:, 1] += 0.3
    return image, scores


def test_equals_a_direct_call_of_pydensecrf(example):
    image, scores = example
    crf = densecrf.DenseCRF2D(19, 14, 3)
    crf.setUnaryEnergy(np.ascontiguousarray(unary_from_softmax(scores.transpose(2, 0, 1))))
    crf.addPairwiseGaussian(sxy=3, compat=3)
    crf.addPairwiseBilateral(sxy=80, srgb=13, rgbim=image, compat=10)
    expected = np.array(crf.inference(10)).reshape(3, 14, 19).transpose(1, 2, 0)
    np.testing.assert_array_equal(dense_crf(image, scores), expected)


def test_marginals_sum_to_1_and_labels_move_to_the_edge(example):
    image, scores = example
    marginals = dense_crf(image, scores)
    assert marginals.dtype == np.float32 and marginals.flags.c_contiguous
    np.testing.assert_allclose(marginals.sum(-1), 1, atol=1e-5)
    assert (scores[:, 6:8].argmax(-1) == 1).all()
    assert (marginals[:, :8].argmax(-1) == 0).mean() > 0.95 and (marginals[:, 8:].argmax(-1) == 1).mean() > 0.95


def test_every_option_has_an_effect(example):
    image, scores = example
    default = dense_crf(image, scores)
    for option in ("iterations", "sxy_gaussian", "compat_gaussian", "sxy_bilateral", "srgb", "compat_bilateral"):
        assert np.abs(dense_crf(image, scores, **{option: 1}) - default).max() > 1e-6, option


def test_views_and_scores_of_zero_are_accepted(example):
    image, scores = example
    image.flags.writeable = False
    np.testing.assert_allclose(dense_crf(image, scores).sum(-1), 1, atol=1e-5)
    mirrored = dense_crf(image[:, ::-1], scores[:, ::-1])
    assert np.isfinite(mirrored).all()
    assert np.isfinite(dense_crf(image, np.zeros_like(scores))).all()
    np.testing.assert_array_equal(dense_crf(image, scores[..., :1]), 1)


def test_errors_name_the_backend_and_the_sizes(example):
    image, scores = example
    with pytest.raises(ValueError, match="backend must be one of auto, jax, pydensecrf, got 'gpu'"):
        dense_crf(image, scores, backend="gpu")
    with pytest.raises(ValueError, match=r"image is \(13, 19\) pixels, the scores \(14, 19\)"):
        inspect.unwrap(dense_crf)(image[1:], scores)  # users have no shape checker in front


@pytest.mark.parametrize("backend", ["jax", "pydensecrf"])
def test_what_would_give_other_marginals_or_end_the_process_is_refused(example, backend):
    image, scores = example
    dense = functools.partial(inspect.unwrap(dense_crf), backend=backend)
    for wrong in (image / 255, image[..., :1], image[..., 0]):
        with pytest.raises(ValueError, match=r"expected uint8 \(h, w, 3\), RGB"):
            dense(wrong, scores)
    with pytest.raises(ValueError, match=r"the scores are \(14, 19\); expected \(h, w, k\)"):
        dense(image, scores[..., 0])
    for name in ("sxy_gaussian", "sxy_bilateral", "srgb"):
        with pytest.raises(ValueError, match=f"{name} is 0; it must be above 0"):
            dense(image, scores, **{name: 0})
