"""Bicubic resizing of padded images against Pillow's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssenet_jax.bicubic import resize_bicubic, scaled_sizes
from ssenet_jax.datasets.augment import resize_image
from ssenet_jax.stages.batching import padded_images

SIZES = ((61, 40), (33, 64), (64, 49), (5, 7))


@pytest.mark.parametrize("scale", [0.3, 0.5, 1.0, 1.25, 2.0])
def test_each_image_is_resized_as_pillow_resizes_it_alone(scale):
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (*size, 3), np.uint8) for size in SIZES]
    photos = padded_images(images, (64, 64), len(images))
    canvas = tuple(int(np.ceil(side * scale)) for side in (64, 64))
    sizes = scaled_sizes(jnp.asarray(photos.sizes), scale)
    found = np.asarray(jax.jit(resize_bicubic, static_argnums=3)(photos.images, photos.sizes, sizes, canvas))
    differences = []
    for image, row, size in zip(images, found, np.asarray(sizes), strict=True):
        wanted = tuple(max(1, round(side * scale)) for side in image.shape[:2])
        assert tuple(size) == wanted
        differences.append(np.abs(row[: wanted[0], : wanted[1]] - resize_image(image, wanted)).ravel())
        assert not row[wanted[0] :].any() and not row[:, wanted[1] :].any()
    differences = np.concatenate(differences)
    assert differences.max() <= 1 and differences.mean() < 1e-3


@pytest.mark.parametrize("length, longer", [(3000, 4500), (4000, 2999)])
def test_the_sides_of_large_photos_are_resized_as_exactly(length, longer):
    image = np.random.default_rng(0).integers(0, 256, (4, length, 3), np.uint8)
    sizes = jnp.array([[4, length]], jnp.int32), jnp.array([[4, longer]], jnp.int32)
    found = np.asarray(resize_bicubic(jnp.asarray(image[None]), *sizes, (4, longer)))[0]
    assert np.mean(found != resize_image(image, (4, longer))) < 1.5e-3
