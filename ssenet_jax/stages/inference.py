"""What is computed of a batch of padded images: all scales and mirror images in one compiled call."""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ssenet_jax.bicubic import resize_bicubic, scaled_sizes
from ssenet_jax.cam import fuse_scales
from ssenet_jax.crf import jax_backend
from ssenet_jax.equivariance import resize_valid
from ssenet_jax.models import BACKBONES, SeamNet, output_size
from ssenet_jax.models.layers import valid_pixels, zero_outside
from ssenet_jax.seam import normalize_refined, resize_aligned_valid
from ssenet_jax.stages.batching import Photos


def flip_valid(x: Float[Array, "n h w c"], widths: Int[Array, "n"]) -> Float[Array, "n h w c"]:
    """Mirrors the valid columns of each image and leaves its padding where it is."""
    columns = jnp.arange(x.shape[2], dtype=jnp.int32)[None]
    source = jnp.where(columns < widths[:, None], widths[:, None] - 1 - columns, columns)
    return jnp.take_along_axis(x, source[:, None, :, None], axis=2)


def network_input(photos: Photos, scale: float, backbone: str) -> tuple[Array, Array]:
    """A batch at one scale, normalised, zero outside the images: (n, h, w, 3) float32, and the valid sizes (n, 2)."""
    images, unscaled = (jnp.asarray(array) for array in photos)
    sizes = scaled_sizes(unscaled, scale)
    height, width = (math.ceil(side * scale) for side in images.shape[1:3])
    images = images.astype(jnp.float32) if scale == 1 else resize_bicubic(images, unscaled, sizes, (height, width))
    mean, std = (jnp.array(value, jnp.float32) for value in (BACKBONES[backbone].mean, BACKBONES[backbone].std))
    return zero_outside((images - mean[None, None, None]) / std[None, None, None], sizes), sizes


def _multi_scale(
    network: Callable, photos: Photos, views: Sequence[tuple[Array, Array]], stride_sizes: Callable, flip: bool
) -> Array:
    """The sum over views and their mirror images of ``network``'s maps, each brought to its image's size."""
    of_photos, (height, width) = jnp.asarray(photos.sizes), photos.images.shape[1:3]

    def of_view(images: Array, sizes: Array) -> Array:
        maps_size = stride_sizes(sizes)
        if flip:
            both = jnp.concatenate([images, flip_valid(images, sizes[:, 1])])
            maps, mirrored = jnp.split(network(both, jnp.concatenate([sizes, sizes])), 2)
            maps = maps + flip_valid(mirrored, maps_size[:, 1])
        else:
            maps = network(images, sizes)
        return resize_valid(maps, maps_size, of_photos, (height, width))

    parts = [of_view(*view) for view in views]
    return sum(parts[1:], parts[0])


def _multi_scale_in_place(
    network: Callable, photos: Photos, views: Sequence[tuple[Array, Array]], stride: int, flip: bool
) -> Array:
    """As `_multi_scale`, of a network whose crops in training had whole cells: zeros fill each image's last ones, and
    each cell of a map is laid over the pixels that it is of, those beyond the image left out."""
    of_photos, (height, width) = jnp.asarray(photos.sizes), photos.images.shape[1:3]

    def of_view(images: Array, sizes: Array) -> Array:
        cells = -(-sizes // stride)
        covered = jnp.round(cells * stride * of_photos / sizes).astype(jnp.int32)
        canvas = [(0, -length % stride) for length in images.shape[1:3]]

        both = [images, flip_valid(images, sizes[:, 1])] if flip else [images]
        padded = jnp.pad(jnp.concatenate(both), ((0, 0), *canvas, (0, 0)))
        of_cells = jnp.split(network(padded, jnp.tile(cells * stride, (len(both), 1))), len(both))
        in_place = [resize_valid(maps, cells, covered, (height, width)) for maps in of_cells]
        # turned back at the photo's size, for in its mirror image the cells lie elsewhere
        return in_place[0] + flip_valid(in_place[1], of_photos[:, 1]) if flip else in_place[0]

    parts = [of_view(*view) for view in views]
    return sum(parts[1:], parts[0])


@functools.cache  # the classifiers with and without the second branch share the compiled programs
def cam_function(model: Any, *, scales: tuple[float, ...], flip: bool, dtype: Any = jnp.float32) -> Callable:
    """Builds the fused multi-scale CAM of a batch of records (METHOD: CAM inference).

    Args:
        model: the classifier.
        scales, flip: of the config's section ``cam``.
        dtype: of the result; float16, which files hold, is half the bytes to fetch.

    Returns:
        ``f(variables, photos, classes, present)`` -> (n, h, w, m) in [0, 1], for the m classes that
        ``classes (n, m)`` names for each image; slots with ``present`` 0 are zero.
    """

    refined = isinstance(model, SeamNet)
    enlarge = resize_aligned_valid if refined else resize_valid

    def fused(variables, photos, classes, present):
        def network(images, sizes):
            cam = class_maps(model, variables, images, sizes).cam
            repeats = images.shape[0] // classes.shape[0]
            wanted = jnp.tile(classes, (repeats, 1))[:, None, None]
            cam = jnp.take_along_axis(cam, wanted, axis=3)
            # the authors' networks enlarge the map to their own input before the relu, SEAM's with corners aligned
            return jax.nn.relu(enlarge(cam, _cells(model, sizes), sizes, images.shape[1:3]))

        views = [network_input(photos, scale, model.backbone) for scale in scales]
        cams = _multi_scale(network, photos, views, lambda sizes: sizes, flip)
        cams = cams * present[:, None, None]
        cams = normalize_refined(cams, valid_pixels(cams, photos.sizes)) if refined else fuse_scales(cams[None])
        return cams.astype(dtype)

    return jax.jit(fused)


class ClassMaps(NamedTuple):
    """What a classifier says of the foreground classes, float32.

    Attributes:
        cam: (n, h, w, c) at feature resolution; SEAM's refined maps where it has them.
        scores: (n, c) of the classes in the image, the mean of the maps that are trained to tell them.
    """

    cam: Array
    scores: Array


def class_maps(model: Any, variables: Mapping, images: Array, sizes: Array | None = None) -> ClassMaps:
    """Applies a classifier; `sizes` as for `CamNet`."""
    output, _ = model.apply(variables, images, sizes=sizes)
    raw, cam = (maps[..., 1:] for maps in output) if isinstance(model, SeamNet) else (output, output)
    valid = None if sizes is None else valid_pixels(raw, _cells(model, sizes))[..., None]
    return ClassMaps(cam.astype(jnp.float32), jnp.mean(raw.astype(jnp.float32), axis=(1, 2), where=valid))


def _cells(model: Any, sizes: Array) -> Array:
    return output_size(sizes, model.backbone, model.output_stride)


@functools.cache
def probability_function(model: Any, *, scales: tuple[float, ...], flip: bool) -> Callable:
    """Builds the multi-scale prediction: ``f(variables, photos)`` -> (n, h, w, k) class probabilities."""
    views_per_image = len(scales) * (2 if flip else 1)

    def probabilities(variables, photos):
        def network(images, sizes):
            return model.apply(variables, images, sizes=sizes)[0].astype(jnp.float32)

        views = [network_input(photos, scale, model.backbone) for scale in scales]
        if BACKBONES[model.backbone].whole_cells:
            logits = _multi_scale_in_place(network, photos, views, model.tap_strides[-1], flip)
        else:
            logits = _multi_scale(network, photos, views, lambda sizes: _cells(model, sizes), flip)
        return jax.nn.softmax(logits / views_per_image)

    return jax.jit(probabilities)


def label_function(probabilities: Callable, crf: Mapping[str, Any] | None) -> Callable:
    """Builds the label maps of a batch.

    Args:
        probabilities: of `probability_function`.
        crf: keywords of `crf.jax_backend.mean_field` for one on the probabilities; None for none.

    Returns:
        ``f(variables, photos, weights)`` -> (n, h, w) uint8, 0 for background. The probabilities are multiplied by
        ``weights`` (n, k), background first; a class of weight 0 is left out.
    """

    def labels(variables, photos, weights):
        scores = _weighted(probabilities(variables, photos), weights)
        if crf is not None:
            scores = jax_backend.mean_field(photos.images, scores, photos.sizes, weights > 0, **crf)
        return _argmax(scores)

    return labels


@jax.jit
def _weighted(scores: Array, weights: Array) -> Array:
    """Probabilities times the weights of their classes, which sum to 1 again."""
    weighted = scores * weights[:, None, None]
    return weighted / jnp.maximum(jnp.sum(weighted, axis=-1, keepdims=True), 1e-30)


@jax.jit
def _argmax(scores: Array) -> Array:
    return jnp.argmax(scores, axis=-1).astype(jnp.uint8)
