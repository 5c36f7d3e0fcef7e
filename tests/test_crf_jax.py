"""The CRF in jax against pydensecrf; batches, padding, gradients, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssenet_jax.crf import dense_crf, jax_backend, lattice, pick_backend
from ssenet_jax.stages import seeds
from ssenet_jax.stages.batching import Photos
from ssenet_jax.stages.seeds import Background

WIDTHS = {"sxy_gaussian": 2.0, "sxy_bilateral": 8.0, "srgb": 13.0}
OPTIONS = {"iterations": 5, **WIDTHS, "compat_gaussian": 3.0, "compat_bilateral": 6.0}


@pytest.fixture(scope="module")
def examples():
    """Two pictures with an edge, 14 x 19 and 11 x 15, padded to 14 x 20 with rubbish, and scores that miss the edge."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 60, (2, 14, 20, 3)).astype(np.uint8)
    images[:, :, 8:] += 150
    scores = rng.uniform(0.3, 0.5, (2, 14, 20, 3)).astype(np.float32)
    scores[:, :, :6, 0] += 0.3
    scores[:, :, 6:, 1] += 0.3
    return images, scores, np.array([[14, 19], [11, 15]], np.int32)


@pytest.fixture(scope="module")
def batch(examples):
    return np.asarray(jax_backend.mean_field(*examples, **OPTIONS))


def test_a_padded_batch_equals_pydensecrf_on_each_image(examples, batch):
    for image, scores, (h, w), marginals in zip(*examples, batch, strict=True):
        theirs = dense_crf(image[:h, :w], scores[:h, :w], backend="pydensecrf", **OPTIONS)
        # both round in float32, in another order
        np.testing.assert_allclose(marginals[:h, :w], theirs, atol=2e-4)
        assert not marginals[h:].any() and not marginals[:, w:].any()


@pytest.mark.parametrize("k", [1, 2])
def test_one_image_with_the_default_kernels_equals_pydensecrf(examples, k):
    image, scores = examples[0][0], examples[1][0][..., :k]
    theirs = dense_crf(image, scores, backend="pydensecrf")
    ours = dense_crf(image, scores, backend="jax")
    assert isinstance(ours, np.ndarray) and ours.dtype == np.float32
    np.testing.assert_allclose(ours, theirs, atol=2e-4)


def test_absent_classes_are_as_if_they_were_not_there(examples, batch):
    images, scores, sizes = examples
    more = np.concatenate([scores, np.full_like(scores[..., :1], 0.9)], axis=-1)
    present = np.array([[True, True, True, False]] * 2)
    marginals = jax_backend.mean_field(images, more, sizes, present, **OPTIONS)
    np.testing.assert_allclose(marginals[..., :3], batch, atol=1e-6)
    assert not np.asarray(marginals[..., 3]).any()


def test_seeds_of_a_padded_batch_equal_those_of_each_image(examples):
    images, scores, sizes = examples
    cams, present = scores[..., :2].copy(), np.array([[True, True], [True, False]])
    cams[1, :, :, 1] = 0
    backgrounds = (Background("power", 4.0), Background("power", 24.0))
    found = np.asarray(seeds.refine_batch(Photos(images, sizes), cams, present, backgrounds, OPTIONS))
    for row, (h, w) in enumerate(sizes):
        m = present[row].sum()
        options = {**OPTIONS, "backend": "pydensecrf"}
        alone = seeds.refine(images[row, :h, :w], cams[row, :h, :w, :m], backgrounds, options)
        np.testing.assert_allclose(found[row, :, :h, :w, : m + 1], np.stack(alone), atol=5e-4)
        assert not found[row, ..., m + 1 :].any()


def test_the_gradient_in_the_scores_is_the_slope(examples):
    images, scores, sizes = examples
    scores = jnp.asarray(scores)
    kernels = jax_backend.kernels(images, sizes, **WIDTHS)
    weights = jnp.asarray(np.random.default_rng(1).standard_normal(scores.shape), jnp.float32)
    present, compat = jnp.ones((2, 3), bool), jnp.array([0.3, 0.6])

    @jax.jit
    def loss(scores):
        marginals = jax_backend.infer(kernels, scores, present, compat, iterations=5)
        return jnp.sum(marginals * weights)

    gradient = jax.grad(loss)(scores)
    direction = jnp.asarray(np.random.default_rng(2).uniform(-1, 1, scores.shape), jnp.float32)
    step = 2e-3
    slope = (loss(scores + step * direction) - loss(scores - step * direction)) / (2 * step)
    np.testing.assert_allclose(jnp.sum(gradient * direction), slope, rtol=0.02)
    assert not np.asarray(gradient[:, :, 19]).any()  # outside the valid area


def test_dense_crf_has_a_gradient_too(examples):
    images, scores, _ = examples
    gradient = jax.grad(lambda s: dense_crf(images[0], s, backend="jax", iterations=2)[3, 7, 0])(jnp.asarray(scores[0]))
    assert np.isfinite(gradient).all() and np.abs(gradient).max() > 1e-4


def test_the_reversed_filter_is_the_transpose():
    features = jnp.asarray(np.random.default_rng(3).uniform(0, 4, (1, 30, 2)), jnp.float32)
    built = lattice.build(features, jnp.ones((1, 30), bool), (4.0, 4.0))
    one = jax.tree.map(lambda x: x[0], built)
    matrix, transposed = (lattice.gaussian_filter(one, jnp.eye(30), reverse) for reverse in (False, True))
    np.testing.assert_allclose(matrix, transposed.T, atol=1e-6)
    # the kernel at a distance, against exp(-d^2 / 2): a lattice gives it to about a tenth of its peak
    distance = np.square(np.asarray(features[0])[:, None] - np.asarray(features[0])[None]).sum(-1)
    assert np.corrcoef(np.asarray(matrix).ravel(), np.exp(-distance / 2).ravel())[0, 1] > 0.97


def test_corners_lie_in_the_lattice_and_their_weights_sum_to_1():
    features = jnp.asarray(np.random.default_rng(4).uniform(-9, 9, (200, 5)), jnp.float32)
    coordinates, weight = lattice._simplex(features)
    np.testing.assert_allclose(weight.sum(1), 1, atol=1e-5)
    assert float(weight.min()) > -1e-5
    corners = np.asarray(coordinates) * 6 + np.arange(6)[None, :, None]
    elevated = np.asarray(features) @ lattice._elevation(5)[:5].T
    # barycentric: the corners' weighted mean is the point
    np.testing.assert_allclose((corners * np.asarray(weight)[..., None]).sum(1), elevated, atol=1e-3)


def test_few_shapes_are_compiled():
    counts = range(2, 5000)
    rounded = [lattice.round_up(count) for count in counts]
    assert len(set(rounded)) < 28
    assert all(count <= size <= 1.5 * count for count, size in zip(counts, rounded, strict=True))


def test_kernels_too_narrow_for_the_keys_are_refused(examples):
    images, scores, sizes = examples
    with pytest.raises(ValueError, match="kernels are too narrow for backend 'jax'"):
        jax_backend.mean_field(images, scores, sizes, **{**OPTIONS, "sxy_bilateral": 1e-3, "srgb": 1e-3})


def test_auto_is_pydensecrf_on_a_cpu():
    assert pick_backend("auto") == "pydensecrf"
    assert pick_backend("jax") == "jax"
