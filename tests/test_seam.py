"""SEAM's pure functions and its network, narrow: what is refined, what is trained, padded batches."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssenet_jax import seam
from ssenet_jax.models import SeamNet
from ssenet_jax.pretrained import shapes_of
from ssenet_jax.seam import (
    correlation_map,
    normalize_refined,
    pixel_correlation,
    resize_aligned,
    resize_aligned_valid,
    seam_loss,
)


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape, dtype=np.float32))


def test_aligned_resizing_keeps_corners_and_ramps():
    ramp = jnp.linspace(-1.0, 3.0, 5)[None, :, None, None] * jnp.ones((1, 1, 4, 1))
    for rows in (2, 7, 5, 1):
        expected = np.linspace(-1, 3, rows) if rows > 1 else [-1.0]  # PyTorch's one sample is the first cell
        np.testing.assert_allclose(resize_aligned(ramp, (rows, 3))[0, :, 1, 0], expected, atol=1e-6)


def test_a_padded_array_is_resized_like_its_valid_area():
    x, sizes, out = draw(2, 6, 7, 3), np.array([[4, 7], [6, 5]]), np.array([[9, 3], [2, 8]])
    resized = resize_aligned_valid(x, jnp.asarray(sizes), jnp.asarray(out), (9, 8))
    for row, ((h, w), size) in enumerate(zip(sizes, out, strict=True)):
        alone = resize_aligned(x[row : row + 1, :h, :w], tuple(size.tolist()))
        np.testing.assert_allclose(resized[row, : size[0], : size[1]], alone[0], atol=1e-6)
        assert np.count_nonzero(resized[row]) == alone.size


def plain_correlation(cam, features):
    """The same with the hw x hw matrix."""
    n, h, w, k = cam.shape
    f = features.reshape(n, h * w, -1)
    f = f / (jnp.linalg.norm(f, axis=-1, keepdims=True) + 1e-5)
    affinity = jax.nn.relu(f @ f.swapaxes(1, 2))
    affinity = affinity / (affinity.sum(1, keepdims=True) + 1e-5)
    return (affinity.swapaxes(1, 2) @ cam.reshape(n, h * w, k)).reshape(cam.shape)


def test_correlation_in_parts_equals_the_whole_matrix(monkeypatch):
    monkeypatch.setattr(seam, "_COLUMNS", 7)  # 20 cells: two full parts and a rest
    cam, features, weights = jax.nn.relu(draw(2, 4, 5, 3)), draw(2, 4, 5, 6, seed=1), draw(2, 4, 5, 3, seed=2)
    results = []
    for function in (pixel_correlation, plain_correlation):
        value, pull_back = jax.vjp(function, cam, features)
        results.append((value, *pull_back(weights)))
    jax.tree.map(partial(np.testing.assert_allclose, atol=2e-6), *results)


def test_cells_without_features_take_no_part():
    cam, features = jax.nn.relu(draw(1, 3, 4, 2)), draw(1, 3, 4, 5, seed=1)
    padded = pixel_correlation(
        jnp.pad(cam, ((0, 0), (0, 2), (0, 1), (0, 0)), constant_values=1.0),
        jnp.pad(features, ((0, 0), (0, 2), (0, 1), (0, 0))),
    )
    np.testing.assert_allclose(padded[:, :3, :4], pixel_correlation(cam, features), atol=1e-6)
    assert not np.any(padded[:, 3:]) and not np.any(padded[:, :, 4:])
    gradient = jax.grad(lambda features: pixel_correlation(cam, features).sum())(jnp.zeros_like(features))
    assert np.all(np.isfinite(gradient))


def test_the_map_that_is_spread_has_one_class_a_cell_and_no_gradient():
    cam = 3 * draw(2, 4, 5, 4)
    spread = correlation_map(cam)
    assert (np.count_nonzero(spread[..., 1:], axis=-1) <= 1).all()
    np.testing.assert_allclose(spread[..., 0], 1 - np.max(spread[..., 1:], axis=-1), atol=1e-6)
    assert not np.any(jax.grad(lambda cam: jnp.sum(correlation_map(cam) ** 2))(cam))


LABELS = jnp.asarray([[0.0, 1.0, 0.0], [1.0, 0.0, 1.0]])


def pooled_net(params, images):
    """A network of one layer on cells of four pixels."""
    n, h, w, _ = images.shape
    cells = images[:, : h // 4 * 4, : w // 4 * 4].reshape(n, h // 4, 4, w // 4, 4, 3).mean((2, 4))
    cam = cells @ params["cam"]
    return cam, pixel_correlation(correlation_map(cam), cells @ params["refine"])


def test_each_term_trains_its_own_layers():
    params = {"cam": draw(3, 4), "refine": draw(3, 6, seed=1)}
    images = draw(2, 32, 40, 3, seed=2)

    def terms(params):
        parts = seam_loss(partial(pooled_net, params), images, LABELS)[1]
        return {name: parts[name] for name in ("loss_cls", "loss_er", "loss_min", "loss_ecr_s")}

    trains = jax.jit(jax.jacrev(terms))(params)
    trained = {name: {layer for layer, g in tree.items() if np.any(g)} for name, tree in trains.items()}
    refines = {"refine"}
    assert trained == {"loss_cls": {"cam"}, "loss_er": {"cam"}, "loss_min": refines, "loss_ecr_s": refines}


def test_eta_weighs_all_but_the_classification():
    params, images = {"cam": draw(3, 4), "refine": draw(3, 6, seed=1)}, draw(2, 16, 20, 3, seed=2)
    of_eta = jax.jit(lambda eta: seam_loss(partial(pooled_net, params), images, LABELS, eta=eta))
    (none, parts), (half, _), (whole, _) = (of_eta(eta) for eta in (0.0, 0.5, 1.0))
    np.testing.assert_allclose(none, (parts["loss_cls"] + parts["loss_cls_s"]) / 2, rtol=1e-6)
    assert whole > none
    np.testing.assert_allclose(half, (none + whole) / 2, rtol=1e-6)


@pytest.mark.parametrize("factor", [0.0, 1.0, 1e4])
def test_loss_and_gradient_are_finite(factor):
    params = {"cam": draw(3, 4) * factor, "refine": draw(3, 6, seed=1) * factor}
    images = draw(2, 16, 20, 3, seed=2)
    step = jax.jit(jax.value_and_grad(lambda params: seam_loss(partial(pooled_net, params), images, LABELS)[0]))
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(step(params)))


@pytest.mark.parametrize("present", [2, 5])
def test_leaving_absent_classes_out_changes_neither_loss_nor_gradient(present, monkeypatch):
    labels = jnp.zeros((2, 7)).at[0, 3].set(1.0).at[1, 7 - present :].set(1.0)
    params, images = {"cam": draw(3, 8), "refine": draw(3, 6, seed=1)}, draw(2, 16, 20, 3, seed=2)

    def step():
        loss = jax.jit(jax.value_and_grad(lambda p: seam_loss(partial(pooled_net, p), images, labels), has_aux=True))
        return loss(params)

    found = step()
    monkeypatch.setattr(seam, "_FEW_CLASSES", 7)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), found, step())


def test_each_branch_draws_from_a_key_of_its_own():
    keys = []

    def net(images, key):
        keys.append(jax.random.key_data(key).tolist())
        return (jnp.ones((1, 2, 2, 4)),) * 2

    seam_loss(net, draw(1, 16, 16, 3), LABELS[:1], rng=jax.random.key(0))
    assert len(keys) == 2 and keys[0] != keys[1]


def test_what_does_not_fit_is_named():
    with pytest.raises(ValueError, match="3 maps for 3 classes; expected one more, the background"):
        seam_loss(lambda images: (jnp.ones((1, 2, 2, 3)),) * 2, draw(1, 16, 16, 3), LABELS[:1])
    with pytest.raises(ValueError, match="2 x 9 pixels at rate 0.3 leave none"):
        seam_loss(lambda images: (jnp.ones((1, 2, 2, 4)),) * 2, draw(1, 2, 9, 3), LABELS[:1])
    with pytest.raises(ValueError, match="the batch holds no image"):
        seam_loss(lambda images: (jnp.ones((0, 2, 2, 4)),) * 2, draw(0, 16, 16, 3), LABELS[:0])


def test_correlation_of_large_features_in_half_precision_is_that_of_float32():
    cam, features = jnp.abs(draw(1, 4, 5, 3)), 30 * draw(1, 4, 5, 195)
    half = pixel_correlation(cam.astype(jnp.float16), features.astype(jnp.float16))
    np.testing.assert_allclose(half, pixel_correlation(cam, features), atol=5e-3)


def test_refined_maps_reach_from_zero_to_one_inside_the_image():
    maps = jax.nn.relu(draw(1, 6, 8, 2)) + 0.5
    alone = normalize_refined(maps)
    assert np.min(alone) == 0 and 0.999 < np.max(alone) < 1
    pads = ((0, 0), (0, 2), (0, 3))
    padded = normalize_refined(jnp.pad(maps, (*pads, (0, 0))), jnp.pad(jnp.ones((1, 6, 8), bool), pads))
    np.testing.assert_array_equal(padded[:, :6, :8], alone)
    assert not np.any(padded[:, 6:]) and not np.any(padded[:, :, 8:])
    for dtype in (jnp.float32, jnp.float16, jnp.bfloat16):
        assert not np.any(normalize_refined(jnp.zeros((1, 3, 3, 1), dtype)))


@pytest.fixture(scope="module")
def narrow():
    model = SeamNet(num_classes=3, backbone="efficientnet_lite0", width=1 / 16)
    rng = np.random.default_rng(0)

    def leaf(path, shape):
        if shape.ndim == 4:
            return rng.normal(0, np.sqrt(2 / np.prod(shape.shape[:3])), shape.shape).astype(np.float32)
        return (1 if path[-1].key in ("scale", "var") else 0.1) * np.ones(shape.shape, np.float32)

    return model, jax.tree_util.tree_map_with_path(leaf, shapes_of(model))


def test_padded_batch_equals_each_image_alone(narrow):
    model, variables = narrow
    sizes = np.array([[61, 48], [56, 63]], np.int32)
    batch = draw(2, 64, 64, 3)
    apply = jax.jit(model.apply)
    padded, _ = apply(variables, batch, sizes=jnp.asarray(sizes))
    height, width = sizes[0]
    alone, _ = apply(variables, batch[:1, :height, :width])
    for ours, expected in zip(padded, alone, strict=True):
        assert expected.shape == (1, 4, 3, 4)
        np.testing.assert_allclose(ours[:1, :4, :3], expected, atol=5e-6 * np.abs(expected).max())
        assert not np.any(ours[0, :, 3:])


def test_the_refined_map_trains_its_own_branch_alone(narrow):
    model, variables = narrow

    def loss(params):
        (_, refined), _ = model.apply({**variables, "params": params}, draw(1, 32, 32, 3))
        return jnp.sum(refined**2)

    gradient = jax.jit(jax.grad(loss))(variables["params"])
    assert {name for name, tree in gradient.items() if any(map(np.any, jax.tree.leaves(tree)))} == {
        "f8_3",
        "f8_4",
        "f9",
    }
