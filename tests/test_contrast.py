"""What stands out from a photo's border."""

import jax
import jax.numpy as jnp
import numpy as np

from ssenet_jax import border_contrast


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape, dtype=np.float32))


def test_a_thing_inside_stands_out_and_its_brightness_does_not_matter():
    features = jnp.tile(jnp.array([1.0, 0.2, 0.0]), (2, 6, 7, 1)).at[:, 2:4, 3:5].set(jnp.array([0.1, 0.0, 1.0]))
    contrast = border_contrast(features * jnp.exp(draw(2, 6, 7, 1)))
    thing = np.zeros((6, 7), bool)
    thing[2:4, 3:5] = True
    assert (contrast[:, thing] > 0.99).all() and (contrast[:, ~thing] < 1e-5).all()


def test_what_a_thing_at_one_side_leaves_of_the_rest_is_its_share_of_the_border():
    features = jnp.tile(jnp.array([1.0, 0.0]), (1, 9, 9, 1)).at[:, 3:6, :5].set(jnp.array([0.0, 1.0]))
    contrast = border_contrast(features)[0]
    share = 3 / 32  # of the outermost cells are the thing's
    np.testing.assert_allclose(contrast[4, 0], 1.0, atol=1e-4)
    np.testing.assert_allclose(contrast[0, 0], share / (1 - share), atol=1e-4)


def test_a_padded_photo_is_as_it_is_alone():
    features, sizes = draw(2, 6, 7, 5), jnp.array([[4, 7], [6, 5]])
    padded = border_contrast(features, sizes)
    for row, (h, w) in enumerate(sizes.tolist()):
        np.testing.assert_allclose(padded[row, :h, :w], border_contrast(features[row : row + 1, :h, :w])[0], atol=1e-6)
        assert not np.any(padded[row, h:]) and not np.any(padded[row, :, w:])


def test_cells_without_features_have_a_finite_gradient_and_half_precision_is_enough():
    features = draw(1, 4, 5, 3).at[:, 1:3, 2].set(0.0)
    assert np.isfinite(jax.grad(lambda x: border_contrast(x).sum())(features)).all()
    np.testing.assert_allclose(border_contrast(features.astype(jnp.float16)), border_contrast(features), atol=5e-3)


def test_a_photo_of_one_thing_has_no_contrast():
    assert not np.any(border_contrast(jnp.ones((1, 4, 5, 3)))[0] > 0.05)
