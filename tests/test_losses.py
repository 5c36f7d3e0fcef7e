"""Losses: parity with the authors' numbers, finite gradients at the extremes, options that do what they say."""

import inspect
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssenet_jax import losses
from ssenet_jax.affinity import affinity_labels

GOLDEN = Path(__file__).parent / "golden"


def random(seed: int, *shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


LABELS = jnp.array([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
EXTREMES = {
    "zeros": jnp.zeros((2, 4, 5, 3)),
    "negative": jnp.full((2, 4, 5, 3), -1e4),
    "huge": jnp.full((2, 4, 5, 3), 1e4),
    "tiny": jnp.full((2, 4, 5, 3), 1e-20),
    "random": random(0, 2, 4, 5, 3),
}


def test_soft_margin_is_the_mean_binary_cross_entropy_and_survives_large_logits():
    logits = jnp.array([[2.0, -1.0, 0.0], [1e4, -1e4, 1e4]])
    labels = jnp.array([[1.0, 0.0, 1.0], [1.0, 1.0, 0.0]])
    loss, gradient = jax.value_and_grad(lambda x: losses.multilabel_soft_margin_loss(x, labels).sum())(logits)
    per_example = losses.multilabel_soft_margin_loss(logits, labels)
    expected = np.log1p(np.exp([-2.0, -1.0, 0.0])).mean()
    np.testing.assert_allclose(per_example, [expected, 2e4 / 3], rtol=1e-6)
    assert np.isfinite(loss) and np.isfinite(gradient).all()


def test_the_mean_of_the_largest_is_that_of_a_sort_with_its_gradient():
    values = np.asarray(random(3, 3, 200)).copy()
    values[1, :150] = 0  # the last of the largest is one of many zeros
    values[2] = -np.abs(values[2])

    def by_sort(values):
        return jnp.mean(jnp.sort(values, axis=-1)[:, -70:], axis=-1)

    def by_counting(values):
        return losses.mean_of_largest(values, 70)

    for rows in (values, values[1:2], values[2:], -values):
        weights = jnp.where(rows == 0, 0.0, 1.0)  # which of equal values a sort takes is its own affair
        (expected, of_sort), (found, of_counting) = (jax.vjp(f, jnp.asarray(rows)) for f in (by_sort, by_counting))
        np.testing.assert_allclose(found, expected, rtol=1e-6)
        gradients = [weights * pull_back(jnp.ones(len(rows)))[0] for pull_back in (of_sort, of_counting)]
        np.testing.assert_allclose(gradients[1], gradients[0], rtol=1e-6)


def test_equal_values_share_the_gradient_and_a_nan_shows():
    gradient = jax.grad(lambda values: losses.mean_of_largest(values, 2).sum())(jnp.array([[1.0, 3.0, 1.0, 0.0]]))
    np.testing.assert_allclose(gradient, [[0.25, 0.5, 0.25, 0.0]])
    assert np.isnan(losses.mean_of_largest(jnp.array([[1.0, jnp.nan, 2.0]]), 2)).all()


@pytest.mark.parametrize("normalize", ["max", "none"])
@pytest.mark.parametrize("classes", ["all", "present"])
def test_every_option_of_ser_loss_has_finite_gradients_through_both_arguments(normalize, classes):
    @jax.jit
    def gradients(a, b):
        def loss(a, b, p):
            return losses.ser_loss(a, b, LABELS, normalize=normalize, classes=classes, p=p).sum()

        return [jax.grad(loss, argnums=(0, 1))(a, b, p) for p in (1, 2)]

    for name, x in EXTREMES.items():
        for g in jax.tree.leaves(gradients(x, EXTREMES["random"])):
            assert np.isfinite(g).all(), name


def test_ser_loss_flows_through_both_branches_and_not_into_absent_classes():
    a, b = random(1, 2, 4, 5, 3), random(2, 2, 4, 5, 3)
    for g in jax.jit(jax.grad(lambda a, b: losses.ser_loss(a, b, LABELS).sum(), argnums=(0, 1)))(a, b):
        assert np.abs(g[0, ..., 0]).max() > 0 and np.abs(g[0, ..., 2]).max() > 0
        assert not g[0, ..., 1].any() and not g[1].any()


def test_ser_loss_over_present_classes_is_the_mean_over_all_times_their_ratio():
    a, b = random(3, 2, 4, 5, 3), random(4, 2, 4, 5, 3)
    everything, present = losses.ser_loss(a, b, LABELS), losses.ser_loss(a, b, LABELS, classes="present")
    np.testing.assert_allclose(present, everything * np.array([3 / 2, 1]), rtol=1e-6)
    assert everything[0] > 0 and everything[1] == 0


def test_ser_loss_of_raw_maps_in_half_precision_stays_in_range():
    far = jnp.full((1, 2, 2, 1), 300, jnp.float16)
    assert losses.ser_loss(far, 0 * far, jnp.ones((1, 1)), normalize="none") == 300.0**2


def test_ser_loss_ignores_the_scale_of_a_cam_only_when_normalised():
    a = random(5, 2, 4, 5, 3) + 3
    np.testing.assert_allclose(losses.ser_loss(a, 10 * a, LABELS), 0, atol=1e-9)
    raw = losses.ser_loss(a, 2 * a, LABELS, normalize="none", p=1)
    np.testing.assert_allclose(raw, jnp.mean(jnp.abs(a), axis=(1, 2, 3)), rtol=1e-6)


def test_affinity_loss_equals_the_authors_code():
    with np.load(GOLDEN / "pure_affinity_labels.npz") as file:
        pairs = [jnp.asarray(kind)[None] for kind in affinity_labels(file["label"], border="reference")]
        ours = losses.affinity_loss(jnp.asarray(file["aff"])[None], *pairs)
        theirs = dict(zip(("loss_bg", "loss_fg", "loss_neg", "loss"), file["losses"], strict=True))
    for name, value in theirs.items():
        assert abs(float(ours[name]) - value) < 1e-6, name


@pytest.mark.parametrize("affinity", [0.0, 1.0, 0.5])
@pytest.mark.parametrize("kind", [0, 1, 2, None])
def test_affinity_loss_is_finite_where_a_kind_of_pair_is_missing(affinity, kind):
    pairs = [jnp.full((1, 2, 3), 1.0 if i == kind else 0.0) for i in range(3)]
    value_and_grad = jax.value_and_grad(lambda a: losses.affinity_loss(a, *pairs)["loss"])
    loss, gradient = value_and_grad(jnp.full((1, 2, 3), affinity))
    assert np.isfinite(loss) and np.isfinite(gradient).all()
    assert (loss == 0) == (kind is None)


def test_affinity_loss_in_half_precision_is_finite_for_like_features():
    affinity = jnp.ones((1, 2, 3), jnp.bfloat16)
    loss = losses.affinity_loss(affinity, affinity, affinity * 0, affinity * 0)["loss"]
    assert abs(float(loss)) < 1e-4


def test_cross_entropy_is_the_mean_over_valid_pixels_only():
    logits, labels = random(6, 1, 2, 2, 3), jnp.array([[[0, 2], [255, 255]]], jnp.uint8)
    log_p = np.asarray(jax.nn.log_softmax(logits))
    expected = -(log_p[0, 0, 0, 0] + log_p[0, 0, 1, 2]) / 2
    np.testing.assert_allclose(losses.softmax_cross_entropy_ignore(logits, labels), expected, rtol=1e-6)
    gradient = jax.grad(losses.softmax_cross_entropy_ignore)(logits, labels)
    assert not gradient[0, 1].any() and gradient[0, 0].any()


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_losses_of_half_precision_are_summed_in_float32(dtype):
    logits, labels = random(9, 2, 192, 192, 4).astype(dtype), jnp.ones((2, 192, 192), jnp.int32)
    expected = losses.softmax_cross_entropy_ignore(logits.astype(jnp.float32), labels)
    assert abs(float(losses.softmax_cross_entropy_ignore(logits, labels)) - float(expected)) < 1e-5
    scores, present = logits[0, 0], jnp.ones((192, 4))
    exact = losses.multilabel_soft_margin_loss(scores.astype(jnp.float32), present)
    np.testing.assert_allclose(losses.multilabel_soft_margin_loss(scores, present), exact, rtol=1e-6)


@pytest.mark.parametrize("value", [0.0, 1e4, -1e4])
def test_cross_entropy_survives_large_logits_and_an_image_without_labels(value):
    logits = jnp.zeros((1, 2, 2, 3)).at[..., 0].set(value)
    for label in (1, 255):
        labels = jnp.full((1, 2, 2), label, jnp.int32)
        loss, gradient = jax.value_and_grad(losses.softmax_cross_entropy_ignore)(logits, labels)
        assert np.isfinite(loss) and np.isfinite(gradient).all()
    assert loss == 0


def test_a_class_that_is_ruled_out_takes_no_part_in_the_cross_entropy():
    logits = random(7, 1, 1, 1, 3).at[..., 2].set(-jnp.inf)
    labels = jnp.ones((1, 1, 1), jnp.int32)
    loss, gradient = jax.value_and_grad(losses.softmax_cross_entropy_ignore)(logits, labels)
    np.testing.assert_allclose(loss, losses.softmax_cross_entropy_ignore(logits[..., :2], labels), rtol=1e-6)
    assert np.isfinite(gradient).all()


def test_wrong_options_and_shapes_are_named():
    a, b = random(7, 1, 4, 5, 3), random(8, 1, 4, 5, 3)
    labels = jnp.ones((1, 3))
    with pytest.raises(ValueError, match="normalize must be .*, got 'softmax'"):
        losses.ser_loss(a, b, labels, normalize="softmax")
    with pytest.raises(ValueError, match="classes must be"):
        losses.ser_loss(a, b, labels, classes="some")
    with pytest.raises(ValueError, match="p must be at least 1, got 0.5"):
        losses.ser_loss(a, b, labels, p=0.5)
    with pytest.raises(ValueError, match="resize one to the other first"):
        inspect.unwrap(losses.ser_loss)(a, b[:, 1:], labels)  # users have no shape checker in front
    pairs = jnp.ones((2, 3))
    with pytest.raises(ValueError, match=r"expected one shape \(n, d, p\)"):  # not a loss of n times the size
        inspect.unwrap(losses.affinity_loss)(jnp.ones((4, 2, 3)), pairs, pairs, pairs)


def test_a_loss_brings_in_no_network_library_and_no_input_pipeline():
    heavy = ("flax", "grain", "tensorflow_datasets", "optax")
    code = f"import sys, ssenet_jax.losses; print([m for m in {heavy} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_a_class_that_is_left_out_may_have_a_logit_of_minus_infinity():
    logits = jnp.array([[[[-jnp.inf, 1.0, 2.0], [0.0, 1.0, 2.0]]]])
    loss, gradient = jax.value_and_grad(losses.softmax_cross_entropy_ignore)(logits, jnp.array([[[0, 1]]]), ignore=0)
    expected = losses.softmax_cross_entropy_ignore(logits[..., 1:, :], jnp.array([[[1]]]))
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    assert np.isfinite(gradient).all()


def test_labels_of_eight_bits_are_told_from_classes_beyond():
    labels = jnp.array([[[3]]], jnp.uint8)
    loss = losses.softmax_cross_entropy_ignore(jnp.zeros((1, 1, 1, 300)), labels)
    np.testing.assert_allclose(loss, np.log(300), rtol=1e-6)
