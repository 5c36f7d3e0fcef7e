"""Class activation maps: range, absent classes, background, labels."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ssenet_jax import cam

GOLDEN = Path(__file__).parent / "golden"
raw_cams = hnp.arrays(np.float32, (2, 3, 4, 3), elements=st.floats(-1e6, 1e6, width=32))


@settings(max_examples=15, deadline=None)
@given(raw=raw_cams, labels=hnp.arrays(np.float32, (2, 3), elements=st.sampled_from([0.0, 1.0])))
def test_a_normalised_cam_lies_in_0_1_and_is_0_for_absent_classes(raw, labels):
    result = np.asarray(cam.normalize_cam(jnp.asarray(raw), jnp.asarray(labels)))
    assert result.min() >= 0 and result.max() <= 1
    assert not result[np.broadcast_to(labels[:, None, None] == 0, result.shape)].any()


def test_each_class_of_each_image_is_scaled_by_its_own_maximum():
    raw = jnp.asarray(np.random.default_rng(0).uniform(1, 5, (2, 4, 4, 3)), jnp.float32)
    result = cam.normalize_cam(raw)
    np.testing.assert_allclose(result.max((1, 2)), 1.0, atol=1e-4)
    np.testing.assert_allclose(result, raw / raw.max((1, 2), keepdims=True), atol=1e-4)


def test_normalisation_subtracts_eps_before_the_relu_only():
    raw = jnp.array([[[[0.5e-5], [2e-5], [-1.0]]]])
    np.testing.assert_allclose(cam.normalize_cam(raw)[0, 0, :, 0], [0, 1 / 3, 0], rtol=1e-4)  # Eq. 3 by hand


@pytest.mark.parametrize("value", [0.0, 60_000.0])
def test_maps_of_half_precision_are_scaled_in_float32(value):
    maps = jnp.full((3, 1, 2, 2, 1), value, jnp.float16)
    for found in (cam.normalize_cam(maps[0]), cam.fuse_scales(maps)):
        np.testing.assert_allclose(found, float(value > 0), atol=1e-4)


@pytest.mark.parametrize("value", [0.0, -1e30, 1e30, 1e-30])
def test_gradients_of_a_constant_cam_are_finite(value):
    gradient = jax.jit(jax.grad(lambda x: cam.normalize_cam(x).sum()))(jnp.full((1, 2, 2, 1), value))
    assert np.isfinite(gradient).all()


def test_background_is_in_front_and_where_the_paper_puts_it():
    scores = jnp.asarray(np.random.default_rng(1).uniform(0, 1, (1, 2, 3, 2)), jnp.float32)
    constant, power = cam.add_background(scores, 0.2), cam.add_background_power(scores, 4.0)
    np.testing.assert_allclose(constant[..., 0], 0.2)
    np.testing.assert_allclose(power[..., 0], (1 - scores.max(-1)) ** 4, rtol=1e-6)
    for with_background in (constant, power):
        np.testing.assert_array_equal(with_background[..., 1:], scores)


def test_a_cam_a_rounding_above_1_has_no_nan_background():
    power = cam.add_background_power(jnp.full((1, 1, 1, 1), 1.0000001), 0.5)
    assert np.isfinite(power).all()


def test_a_score_equal_to_alpha_is_background():
    scores = jnp.array([[[[0.2, 0.1], [0.2000001, 0.1], [0.0, 0.9]]]])
    np.testing.assert_array_equal(cam.cam_to_labels(scores, 0.2), [[[0, 1, 2]]])


def test_labels_equal_the_authors_code():
    with np.load(GOLDEN / "pure_cam.npz") as file:  # every third row and column of the fused CAM of two classes
        scores = np.zeros((1, *file["pred"].shape, len(file["labels"])), np.float32)
        scores[0][..., np.flatnonzero(file["labels"])] = file["cam"].transpose(1, 2, 0)
        np.testing.assert_array_equal(cam.cam_to_labels(jnp.asarray(scores), 0.2)[0], file["pred"])
        assert set(np.unique(file["pred"])) == {0, 5, 10}


def test_more_classes_than_a_mask_can_hold_are_refused():
    with pytest.raises(ValueError, match="255 classes.*at most 254"):
        cam.cam_to_labels(jnp.zeros((1, 1, 1, 255)), 0.2)


@pytest.mark.parametrize("shape", [(3, 2, 4, 5, 2), (3, 4, 5, 2)])
def test_fused_scales_are_the_sum_over_its_maximum(shape):
    views = np.random.default_rng(2).uniform(0, 3, shape).astype(np.float32)
    views[..., 1] = 0  # an absent class
    fused = np.asarray(cam.fuse_scales(jnp.asarray(views)))
    total = views.sum(0)
    np.testing.assert_allclose(fused, total / (total.max((-3, -2), keepdims=True) + 1e-5), rtol=1e-5)
    assert not fused[..., 1].any() and fused.max() < 1


def test_without_a_class_all_is_background():
    none = jnp.zeros((1, 2, 3, 0))
    assert cam.add_background(none, 0.2).shape == cam.add_background_power(none, 2).shape == (1, 2, 3, 1)
    assert (cam.cam_to_labels(none, 0.2) == 0).all()
