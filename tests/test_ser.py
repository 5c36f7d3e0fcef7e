"""The two-branch forward: equal to the authors' code written out, zero on an equivariant pair, finite everywhere."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssenet_jax import equivariance as eq
from ssenet_jax.losses import multilabel_soft_margin_loss, ser_loss
from ssenet_jax.ser import resized_mean, two_branch_loss

LABELS = jnp.array([[1.0, 0.0, 1.0, 0.0], [0.0, 1.0, 0.0, 0.0]])
MIX = jnp.asarray(np.random.default_rng(0).standard_normal((3, 4)), jnp.float32)


def images(h: int = 24, w: int = 32) -> jax.Array:
    return jnp.asarray(np.random.default_rng(1).standard_normal((2, h, w, 3)), jnp.float32)


def pointwise(x: jax.Array) -> jax.Array:
    """A network of stride 1 and linear: it commutes with every linear operator."""
    return x @ MIX


def strided(x: jax.Array) -> jax.Array:
    """A network of stride 8 that rounds sizes up, as ResNet-38 does."""
    return jax.nn.relu(x[:, ::8, ::8] @ MIX + 0.3)


@pytest.mark.parametrize("operator", [eq.resize(0.5), eq.hflip(), eq.rotate(15.0)])
@pytest.mark.parametrize("cam_size", ["image", "feature"])
def test_an_equivariant_network_has_no_ser_loss(operator, cam_size):
    @jax.jit
    def both(x):
        terms = [two_branch_loss(f, x, LABELS, operator, cam_size=cam_size)[1] for f in (pointwise, strided)]
        return terms[0]["loss_ser"], terms[1]["loss_ser"]

    equivariant, other = both(images())
    assert equivariant < 1e-9 and other > 1e-5


@pytest.mark.parametrize("shape", [(24, 32), (35, 45)])
@pytest.mark.parametrize("operator", [eq.resize(0.6), eq.rotate(15.0), eq.compose(eq.resize(0.6), eq.hflip())])
def test_small_matrices_give_what_the_full_size_cams_give(shape, operator):
    @jax.jit
    def at_full_size(x):
        # the authors' order of steps, with every array at the size of its image
        small = operator(x)
        cam, cam_s = eq.resize_to(strided(x), x.shape[1:3]), eq.resize_to(strided(small), small.shape[1:3])
        cls, cls_s = (multilabel_soft_margin_loss(c.mean((1, 2)), LABELS).mean() for c in (cam, cam_s))
        return cls, cls_s, ser_loss(cam_s, operator(cam), LABELS).mean()

    cls, cls_s, ser = at_full_size(images(*shape))
    loss, terms = jax.jit(lambda x: two_branch_loss(strided, x, LABELS, operator, eta=2.0))(images(*shape))
    ours = [terms["loss_cls"], terms["loss_cls_s"], terms["loss_ser"]]
    np.testing.assert_allclose(ours, [cls, cls_s, ser], rtol=1e-4)
    np.testing.assert_allclose(loss, (cls + cls_s) / 2 + 2 * ser, rtol=1e-5)


def test_the_mean_of_an_enlarged_cam_needs_no_enlarged_cam():
    cam = jnp.asarray(np.random.default_rng(2).standard_normal((2, 3, 4, 5)), jnp.float32)
    np.testing.assert_allclose(resized_mean(cam, (24, 32)), cam.mean((1, 2)), atol=1e-6)
    np.testing.assert_allclose(resized_mean(cam, (19, 30)), eq.resize_to(cam, (19, 30)).mean((1, 2)), atol=1e-6)


@pytest.mark.parametrize("cam_size", ["image", "feature"])
def test_gradients_are_finite_when_nothing_is_present_and_cams_are_zero(cam_size):
    @jax.jit
    def gradients(scale, eta, labels):
        def loss(scale, normalize):
            options = {"eta": eta, "cam_size": cam_size, "normalize": normalize}
            return two_branch_loss(lambda x: scale * strided(x), images(), labels, eq.resize(0.5), **options)[0]

        return [jax.value_and_grad(loss)(scale, normalize) for normalize in ("max", "none")]

    for scale, labels in ((0.0, LABELS), (1e4, LABELS), (1.0, jnp.zeros_like(LABELS))):
        assert np.isfinite(gradients(jnp.float32(scale), jnp.float32(0.5), labels)).all(), scale


def test_each_branch_draws_its_own_key():
    keys = []

    def network(x, rng):
        keys.append(jax.random.key_data(rng).tolist())
        return strided(x)

    two_branch_loss(network, images(), LABELS, eq.resize(0.5), rng=jax.random.key(0))
    assert len(keys) == 2 and keys[0] != keys[1]


def test_bfloat16_cams_are_compared_in_float32():
    loss, terms = two_branch_loss(lambda x: strided(x).astype(jnp.bfloat16), images(), LABELS, eq.resize(0.5))
    assert loss.dtype == jnp.float32 and terms["loss_ser"].dtype == jnp.float32


def test_a_plain_function_serves_as_an_operator():
    loss, _ = two_branch_loss(strided, images(), LABELS, lambda x: x[:, ::-1])
    np.testing.assert_allclose(loss, two_branch_loss(strided, images(), LABELS, eq.vflip())[0], rtol=1e-6)


def test_errors_name_the_option_and_the_counts():
    with pytest.raises(ValueError, match="cam_size must be"):
        two_branch_loss(strided, images(), LABELS, eq.hflip(), cam_size="logits")
    with pytest.raises(ValueError, match="the CAM has 4 classes, the labels 3"):
        two_branch_loss(strided, images(), LABELS[:, :3], eq.hflip())
