"""Backbones and heads, very narrow: shapes, padded batches, strides, dropout, counts, and a backbone from outside."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssenet_jax.config import paper_config
from ssenet_jax.equivariance import resize_to
from ssenet_jax.models import (
    AFFINITY_STRIDE,
    BACKBONES,
    NETWORKS,
    AffinityNet,
    Backbone,
    CamNet,
    FixedFeatures,
    default_frozen,
    output_size,
)
from ssenet_jax.models.heads import _enlarge
from ssenet_jax.pretrained import shapes_of
from ssenet_jax.training.optim import check_patterns, flatten

NARROW = 1 / 16
IMAGES = np.zeros((1, 32, 32, 3), np.float32)
VALID = np.array([[61, 48], [56, 63]], np.int32)
# of full width; frozen and trained, without statistics
PARAMETER_COUNTS = {
    ("cam", "resnet38"): 105_152_832,
    ("affinity", "resnet38"): 106_484_032,
    ("segmenter", "resnet38"): 124_220_245,
    ("cam", "efficientnet_lite0"): 3_396_608,
    ("affinity", "efficientnet_lite0"): 3_670_528,
    ("segmenter", "efficientnet_lite0"): 5_120_533,
    ("seam", "resnet38"): 105_358_208,
    ("cam", "efficientnet_lite1"): 4_161_280,
    ("affinity", "efficientnet_lite1"): 4_435_200,
    ("segmenter", "efficientnet_lite1"): 5_885_205,
    ("cam", "efficientnet_lite2"): 4_836_672,
    ("affinity", "efficientnet_lite2"): 5_120_320,
    ("segmenter", "efficientnet_lite2"): 6_708_053,
}


def variables_of(model, images=IMAGES):
    """Random variables; no bias is zero and no statistic trivial, so that padding and norms have an effect."""
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        if leaf.ndim == 4:
            return rng.normal(0, np.sqrt(2 / np.prod(leaf.shape[:3])), leaf.shape).astype(np.float32)
        noise = rng.normal(0, 0.2, leaf.shape).astype(np.float32)
        return 1 + np.abs(noise) if path[-1].key in ("scale", "var") else noise

    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    return jax.tree_util.tree_map_with_path(draw, shapes)


@pytest.fixture(scope="module")
def narrow_lite():
    model = CamNet(num_classes=4, backbone="efficientnet_lite0", width=NARROW)
    return model, variables_of(model)


@pytest.mark.parametrize(("head", "backbone"), PARAMETER_COUNTS)
def test_parameter_counts(head, backbone):
    model = NETWORKS[head](backbone=backbone)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes["params"])) == PARAMETER_COUNTS[head, backbone]


@pytest.mark.parametrize(
    ("head", "settings", "stride"),
    [
        ("cam", {}, 8),
        ("segmenter", {}, 8),
        ("cam", {"backbone": "efficientnet_lite0"}, 16),
        ("cam", {"backbone": "efficientnet_lite0", "output_stride": 8}, 8),
        ("affinity", {"backbone": "efficientnet_lite0"}, AFFINITY_STRIDE),
        ("affinity", {"backbone": "efficientnet_lite0", "stride": 4}, 4),
        ("fixed", {"backbone": "efficientnet_lite0"}, AFFINITY_STRIDE),
        ("fixed", {"stride": 4}, 4),
    ],
)
def test_padded_batch_equals_each_image_alone(head, settings, stride):
    model = {**NETWORKS, "fixed": FixedFeatures}[head](**settings, width=NARROW)
    variables = variables_of(model)
    rng = np.random.default_rng(1)
    images = [rng.standard_normal((1, *size, 3), dtype=np.float32) for size in VALID]
    # noise where the padding is: the result must not depend on it
    batch = rng.standard_normal((2, 64, 64, 3), dtype=np.float32)
    for row, (height, width) in enumerate(VALID):
        batch[row, :height, :width] = images[row][0]
    apply = jax.jit(model.apply)
    padded, _ = apply(variables, batch, sizes=jnp.asarray(VALID))
    cells = -(-VALID // stride)
    if head not in ("affinity", "fixed"):
        np.testing.assert_array_equal(output_size(VALID, model.backbone, model.output_stride), cells)
    # a backbone whose padding does not depend on parity needs one image only
    for row, (height, width) in enumerate(cells if (head, stride) == ("cam", 16) else cells[:1]):
        alone, _ = apply(variables, images[row])
        assert alone.shape[1:3] == (height, width)
        np.testing.assert_allclose(padded[row, :height, :width], alone[0], atol=2e-6 * np.abs(alone).max())
        assert not np.asarray(padded[row, height:]).any() and not np.asarray(padded[row, :, width:]).any()


def test_taps_and_strides(narrow_lite):
    model, variables = narrow_lite
    cam, taps = jax.eval_shape(model.apply, variables, jnp.zeros((2, 64, 96, 3)))
    assert cam.shape == (2, 4, 6, 4)
    assert [taps[name].shape[1:] for name in ("conv4", "conv5", "conv6")] == [(8, 12, 2), (4, 6, 7), (4, 6, 20)]
    resnet = CamNet(num_classes=4, width=NARROW)
    shapes = jax.eval_shape(resnet.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    cam, taps = jax.eval_shape(resnet.apply, shapes, jnp.zeros((2, 70, 93, 3)))
    assert cam.shape == (2, 9, 12, 4)
    assert [taps[name].shape[1:] for name in ("conv4", "conv5", "conv6")] == [(9, 12, 32), (9, 12, 64), (9, 12, 256)]


def test_a_finer_output_stride_adds_cells_between_the_coarse_ones(narrow_lite):
    """A dilated convolution at every second cell is the convolution of every second cell: each stage, one by one."""
    model, variables = narrow_lite
    images = jax.random.normal(jax.random.key(8), (1, 64, 96, 3))
    coarse, _ = jax.jit(model.apply)(variables, images)
    fine, taps = jax.jit(model.clone(output_stride=8).apply)(variables, images)
    assert fine.shape == (1, 8, 12, 4) and {tap.shape[1:3] for tap in taps.values()} == {(8, 12)}
    # SAME starts one pixel in when it halves an even size
    np.testing.assert_allclose(fine[:, 1::2, 1::2], coarse, atol=2e-6 * np.abs(coarse).max())


def test_an_output_stride_that_a_backbone_has_not():
    with pytest.raises(ValueError, match="output_stride is 4; this backbone can be had with 16 or 8"):
        shapes_of(CamNet(backbone="efficientnet_lite0", output_stride=4))
    with pytest.raises(ValueError, match="stride is 16; it has to divide conv4's, 8"):
        shapes_of(AffinityNet(backbone="efficientnet_lite0", stride=16))
    with pytest.raises(ValueError, match="FixedFeatures' stride is 3; it has to divide conv4's, 8"):
        shapes_of(FixedFeatures(backbone="efficientnet_lite0", stride=3))


def test_the_distance_of_two_cells_weighs_their_colours_and_their_early_features():
    model = FixedFeatures(backbone="efficientnet_lite0", width=NARROW)
    variables, images = variables_of(model), jax.random.normal(jax.random.key(3), (1, 32, 48, 3))
    features, taps = jax.jit(model.apply)(variables, images)
    colour = np.asarray(images)[0].reshape(4, 8, 6, 8, 3).mean((1, 3)) * 128 / 255
    conv4 = np.asarray(taps["conv4"])[0]
    conv4 = conv4 - conv4.mean((0, 1))
    conv4 /= np.abs(conv4).mean()
    parts = (np.abs(part[0, 1] - part[2, 4]).mean() for part in (np.asarray(features)[0], colour, conv4))
    distance, of_colour, of_conv4 = parts
    np.testing.assert_allclose(distance, 2 * of_colour + 0.625 * of_conv4, rtol=1e-4)


@pytest.mark.parametrize("factor", [2, 4])
def test_taps_are_enlarged_as_images_are(factor):
    x = jax.random.normal(jax.random.key(9), (1, 5, 3, 2))
    shape = (5 * factor - 1, 3 * factor)
    expected = resize_to(x, (5 * factor, 3 * factor))[:, : shape[0], : shape[1]]
    np.testing.assert_allclose(_enlarge(x, factor, None, shape), expected, atol=1e-6)


def test_dropout_takes_whole_channels_and_follows_the_key(narrow_lite):
    model, variables = narrow_lite
    images = jax.random.normal(jax.random.key(3), (2, 32, 32, 3))
    apply = jax.jit(partial(model.apply, train=True, capture_intermediates=True))
    maps = []
    for seed in (0, 0, 1):
        (cam, _), state = apply(variables, images, rngs={"dropout": jax.random.key(seed)})
        maps.append(np.asarray(cam))
    dropped = np.asarray(state["intermediates"]["dropout7"]["__call__"][0])
    whole = (dropped == 0).all((1, 2)) | (dropped != 0).any((1, 2))
    assert whole.all() and 0.2 < (dropped == 0).all((1, 2)).mean()
    np.testing.assert_array_equal(maps[0], maps[1])
    assert not np.array_equal(maps[0], maps[2])


def test_bfloat16_keeps_float32_parameters_and_output(narrow_lite):
    model, variables = narrow_lite
    half = model.clone(dtype=jnp.bfloat16)
    images = jax.random.normal(jax.random.key(4), (1, 48, 48, 3))
    shapes = jax.eval_shape(half.init, jax.random.key(0), images)
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype(jnp.float32)}
    cam, taps = jax.jit(half.apply)(variables, images)
    expected, _ = jax.jit(model.apply)(variables, images)
    assert cam.dtype == jnp.float32 and taps["conv6"].dtype == jnp.bfloat16
    # 3e-2 on ResNet-38 at full width (test_models_golden); sums over few channels average less
    assert np.abs(cam - expected).max() < 6e-2 * np.abs(expected).max()


def squared_cam(model, batch_stats, images, params):
    """A loss in training mode, and the new statistics."""
    settings = {"train": True, "rngs": {"dropout": jax.random.key(1)}, "mutable": ["batch_stats"]}
    (cam, _), updated = model.apply({"params": params, "batch_stats": batch_stats}, images, **settings)
    return jnp.mean(cam**2), updated["batch_stats"]


@pytest.mark.parametrize("backbone", ["resnet38", "efficientnet_lite0"])
def test_remat_keeps_less_for_the_gradient(backbone):
    kept = []
    for remat in (False, True):
        model = CamNet(backbone=backbone, width=NARROW, norm="batch", remat=remat)
        variables = jax.eval_shape(model.init, jax.random.key(0), IMAGES)

        def backward(params, model=model, stats=variables["batch_stats"]):
            stats = jax.tree.map(lambda x: jnp.zeros(x.shape), stats)
            return jax.vjp(partial(squared_cam, model, stats, jnp.zeros((4, 64, 64, 3))), params, has_aux=True)[1]

        kept.append(sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(backward, variables["params"]))))
    assert kept[1] < 0.5 * kept[0]


def test_remat_does_not_change_gradients_and_statistics():
    images = jax.random.normal(jax.random.key(5), (2, 32, 32, 3))
    results = []
    for remat in (False, True):
        model = CamNet(width=1 / 32, norm="batch", num_classes=3, remat=remat)
        variables = variables_of(model)
        gradient = jax.jit(jax.grad(partial(squared_cam, model, variables["batch_stats"], images), has_aux=True))
        results.append(gradient(variables["params"]))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), *results)


class Mosaic(nn.Module):
    """A backbone as one from outside: the mean over squares of eight pixels, and a layer a tap."""

    width: float
    norm: str
    dtype: jnp.dtype
    dropout: float
    remat: bool
    output_stride: int

    @nn.compact
    def __call__(self, images, train=False, sizes=None):
        n, h, w, c = images.shape
        x = jnp.mean(images.reshape(n, h // 8, 8, w // 8, 8, c), (2, 4))
        taps = {name: nn.Dense(4, name=name)(x) for name in ("conv4", "conv5", "conv6")}
        return taps["conv6"], taps


def test_a_backbone_from_outside_is_one_row(monkeypatch):
    row = Backbone(Mosaic, {8: (8, 8, 8)}, (0.0,) * 3, (255.0,) * 3, frozen=("backbone/conv4/.*",))
    monkeypatch.setitem(BACKBONES, "mosaic", row)
    assert default_frozen("mosaic") == ("backbone/conv4/.*",)
    for name, network in NETWORKS.items():
        model = network(backbone="mosaic")
        variables = shapes_of(model)
        outputs = jax.tree.leaves(jax.eval_shape(model.apply, variables, IMAGES)[0])
        assert all(output.shape[:3] == (1, 4, 4) for output in outputs), name
        check_patterns(flatten(variables["params"]), default_frozen("mosaic"))


def test_default_patterns_match_parameters_of_every_network():
    """Whoever adds a backbone sees here that its frozen patterns are those of its own paths."""
    for backbone in BACKBONES:
        for network in NETWORKS.values():
            shapes = shapes_of(network(backbone=backbone))
            groups = [pattern for pattern, *_ in paper_config().classifier.groups]
            check_patterns(flatten(shapes["params"]), [*default_frozen(backbone), *groups])


def test_wrong_settings_are_named():
    images = jnp.zeros((1, 32, 32, 3))
    with pytest.raises(ValueError, match="vgg16.*resnet38, efficientnet_lite0"):
        CamNet(backbone="vgg16").init(jax.random.key(0), images)
    with pytest.raises(ValueError, match="group.*frozen, batch"):
        CamNet(norm="group").init(jax.random.key(0), images)
    with pytest.raises(ValueError, match="sizes.*train"):
        CamNet().init(jax.random.key(0), images, train=True, sizes=jnp.array([[32, 32]]))
