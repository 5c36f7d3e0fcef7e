"""Padded batches of several scales give what each image gives alone."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssenet_jax.datasets.augment import normalize, resize_image
from ssenet_jax.equivariance import resize_to
from ssenet_jax.models import BACKBONES, CamNet, SeamNet
from ssenet_jax.models.layers import pool_cells, zero_outside
from ssenet_jax.seam import normalize_refined, resize_aligned
from ssenet_jax.stages import batching, inference
from ssenet_jax.stages.batching import Photos

SIZES = ((40, 61), (64, 33), (49, 64))


@pytest.fixture(scope="module")
def net():
    model = CamNet(num_classes=3, backbone="efficientnet_lite0", width=0.25)
    return model, jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))


@pytest.fixture(scope="module")
def seam_net():
    model = SeamNet(num_classes=3, backbone="efficientnet_lite0", width=0.25)
    return model, jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*size, 3), np.uint8) for size in SIZES]


def cam_alone(net, image, label, scales):
    """The fused CAM written plainly: one image, one scale and flip at a time, no padding."""
    model, variables = net
    apply, facts, total = jax.jit(model.apply), BACKBONES[model.backbone], 0.0
    for scale in scales:
        size = tuple(round(side * scale) for side in image.shape[:2])
        x = jnp.asarray(normalize(resize_image(image, size), facts.mean, facts.std))[None]
        for flip in (False, True):
            cam = resize_to(apply(variables, x[:, :, ::-1] if flip else x)[0], size)
            cam = resize_to(jax.nn.relu(cam), image.shape[:2])
            total = total + (cam[:, :, ::-1] if flip else cam)
    total = np.asarray(total[0]) * label[None, None]
    return total / (total.max((0, 1), keepdims=True) + 1e-5)


def test_a_padded_batch_gives_the_cams_of_its_images_alone(net, images):
    scales, labels = (0.5, 1.0), np.array([[1, 0, 1], [0, 1, 0], [1, 1, 1]], np.float32)
    photos = batching.padded_images(images, (64, 64), 4)
    classes, present = batching.class_slots(labels, 4)
    function = inference.cam_function(net[0], scales=scales, flip=True)
    cams = np.asarray(function(net[1], photos, classes, present))
    for row, (image, label) in enumerate(zip(images, labels, strict=True)):
        wanted = cam_alone(net, image, label, scales)[..., np.flatnonzero(label)]
        found = cams[row, : image.shape[0], : image.shape[1]]
        np.testing.assert_allclose(found[..., : wanted.shape[-1]], wanted, atol=1e-4)
        assert not found[..., wanted.shape[-1] :].any()


def test_refined_maps_are_enlarged_with_corners_aligned_and_brought_to_one(seam_net, images):
    model, variables = seam_net
    image, facts = images[0], BACKBONES[model.backbone]
    photos = batching.padded_images([image], (64, 64), 1)
    classes, present = batching.class_slots(np.ones((1, 3), np.float32), 1)
    found = inference.cam_function(model, scales=(1.0,), flip=False)(variables, photos, classes, present)
    x = jnp.asarray(normalize(image, facts.mean, facts.std))[None]
    (_, refined), _ = jax.jit(model.apply)(variables, x)
    wanted = normalize_refined(resize_aligned(refined[..., 1:], image.shape[:2]))[0]
    np.testing.assert_allclose(found[0, : image.shape[0], : image.shape[1], :3], wanted, atol=1e-4)


def test_mirroring_the_valid_columns_twice_changes_nothing_and_keeps_the_padding():
    x = jnp.arange(2 * 3 * 5, dtype=jnp.float32).reshape(2, 3, 5, 1)
    widths = jnp.array([5, 3])
    once = inference.flip_valid(x, widths)
    assert once[1, 0, :, 0].tolist() == [17, 16, 15, 18, 19]
    np.testing.assert_array_equal(inference.flip_valid(once, widths), x)


def test_records_are_grouped_by_bucket_and_none_is_lost():
    heights = (10, 40, 12, 64, 33, 9)
    records = [{"id": i, "image": np.zeros((height, 20, 3), np.uint8)} for i, height in enumerate(heights)]
    groups = list(batching.by_bucket(records, 2, 32))
    assert all(batching.bucket_of(*r["image"].shape[:2], 32) == canvas for canvas, group in groups for r in group)
    assert sorted(r["id"] for _, group in groups for r in group) == list(range(6))
    assert max(len(group) for _, group in groups) == 2


def test_an_image_with_more_classes_than_slots_gets_them_all():
    many = np.ones(20, np.float32)
    classes, present = batching.class_slots([many, np.eye(20, dtype=np.float32)[7]], 2)
    assert classes[0].tolist() == list(range(20)) and present[0].sum() == 20
    assert classes[1, 0] == 7 and present[1].tolist() == [1] + [0] * 19


def test_run_finishes_every_record_with_its_own_row_and_passes_errors_on():
    records = [{"id": i, "image": np.full((8 * (1 + i % 2), 8, 3), i, np.uint8)} for i in range(19)]
    seen = {}

    def prepare(group, canvas, rows):
        values = [r["image"][0, 0, 0] for r in group]
        return (np.array(values + [0] * (rows - len(values)), np.int32),)

    def function(variables, values):
        return values * variables

    def finish(record, row):
        seen[record["id"]] = int(row)

    batching.run(iter(records), prepare, function, jnp.int32(2), finish, batch_size=3, bucket=8)
    assert seen == {i: 2 * i for i in range(19)}

    def fail(record, row):
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        batching.run(iter(records), prepare, function, jnp.int32(2), fail, batch_size=3, bucket=8)


class OfMeans(NamedTuple):
    """A network whose logits are an image's means over whole cells, and 0."""

    backbone: str = "efficientnet_lite0"
    tap_strides: tuple[int, int, int] = (8, 16, 16)

    def apply(self, variables, images, sizes):
        means = pool_cells(images[..., :1], 16)
        return jnp.concatenate([means, 0 * means], -1), None


@pytest.mark.parametrize("scales", [(1.0,), (0.75, 1.25)])
@pytest.mark.parametrize("width", [90, 107, 112])
def test_what_a_cell_says_is_laid_over_the_pixels_it_is_of_whatever_the_size(width, scales):
    ramp = np.arange(width, dtype=np.float32)
    images = np.zeros((1, 48, 112, 3), np.uint8)
    images[0, :, :width] = ramp[None, :, None]
    photos = Photos(images, np.array([[48, width]], np.int32))
    probabilities = inference.probability_function(OfMeans(), scales=scales, flip=True)({}, photos)
    logits = np.log(probabilities[0, 24, :width, 0] / probabilities[0, 24, :width, 1])
    middle = slice(36, width - 36)  # within cells that are whole, and lie between others
    np.testing.assert_allclose(128 * logits[middle] + 127, ramp[middle], atol=1)


def test_scores_of_classes_are_those_of_the_image_without_its_padding():
    class Given(NamedTuple):
        backbone: str = "efficientnet_lite0"
        output_stride: int = 0

        def apply(self, variables, images, sizes=None):
            return zero_outside(pool_cells(images, 16), None if sizes is None else -(-sizes // 16)), {}

    image = jax.random.normal(jax.random.key(0), (1, 32, 48, 2))
    padded = jnp.pad(image, ((0, 0), (0, 32), (0, 16), (0, 0)))
    alone = inference.class_maps(Given(), {}, image).scores
    in_batch = inference.class_maps(Given(), {}, padded, jnp.array([[32, 48]], jnp.int32)).scores
    np.testing.assert_allclose(in_batch, alone, atol=1e-6)
