"""What is computed of a batch of padded images: all scales and mirror images in one compiled call."""

import functools
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ssenet_jax.bicubic import resize_bicubic, scaled_sizes
from ssenet_jax.cam import fuse_scales
from ssenet_jax.contrast import border_contrast
from ssenet_jax.crf import jax_backend
from ssenet_jax.equivariance import resize_valid
from ssenet_jax.models import BACKBONES, SeamNet, output_size
from ssenet_jax.models.layers import pool_cells
from ssenet_jax.random_walk import random_walk, transition
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
    return _zero_outside((images - mean[None, None, None]) / std[None, None, None], sizes), sizes


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
        cams = normalize_refined(cams, _inside(cams, photos.sizes)) if refined else fuse_scales(cams[None])
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
    return ClassMaps(cam.astype(jnp.float32), jnp.mean(raw.astype(jnp.float32), axis=(1, 2)))


def _cells(model: Any, sizes: Array) -> Array:
    return output_size(sizes, model.backbone, model.output_stride)


def walk_function(
    model: Any, *, flow: Mapping, steps: int, method: str, normalize: bool = False, contrast: float = 0.0
) -> Callable:
    """Builds the random walk on the CAMs of a batch.

    Every map walks alone and a constant one stays as it is, so a background of constant score need not walk.

    Args:
        model: of the features; AffinityNet or FixedFeatures.
        flow: the keywords radius, beta and border of ``transition``.
        steps, method, normalize, contrast: of the config's section ``random_walk``.

    Returns:
        ``f(variables, photos, cams)`` -> (n, h/stride, w/stride, m) float32 scores of the classes in the CAMs' slots.
    """

    def walk(features, scores, size):
        return random_walk(scores, transition(features, **flow, size=size), steps=steps, method=method)

    if not contrast:
        return _on_cells(model, walk, normalize)
    with_contrast = _on_cells(model, walk, normalize, contrast=True)

    def mixed(variables, photos, cams):
        return mix_contrast(with_contrast(variables, photos, cams), contrast)

    return jax.jit(mixed)


def mix_contrast(maps: Float[Array, "*n h w k"], share: float) -> Float[Array, "*n h w m"]:
    """Adds the last map, which is the contrast, to those of the classes before it, k = m + 1; the shares sum to 1."""
    return (1 - share) * maps[..., :-1] + share * maps[..., -1:]


def walks_function(model: Any, *, flow: Mapping, betas: Sequence[float], steps: Sequence[int], method: str) -> Callable:
    """Builds the walk at every beta and, ascending, every number of steps: (n, b, s, h/stride, w/stride, m + 1) as the
    maps come out, with the contrast behind those of the classes; `flow` lacks the beta."""
    more = [steps[0], *(after - before for before, after in itertools.pairwise(steps))]

    def walks(features, scores, size):
        def at(beta):
            between = transition(features, **flow, beta=beta, size=size)
            walked = [scores]
            for count in more:
                walked.append(random_walk(walked[-1], between, steps=count, method=method))
            return jnp.stack(walked[1:])

        return jax.lax.map(at, jnp.asarray(betas, jnp.float32))

    return _on_cells(model, walks, normalize=False, contrast=True)


def _on_cells(model: Any, walk: Callable, normalize: bool, contrast: bool = False) -> Callable:
    """A batch's ``walk(features, scores, size)`` of each image: the model's features, the CAMs' means over cells,
    and the valid height and width in cells. Where `normalize` says so, each map is stretched to reach from 0 to 1;
    where `contrast` does, the contrast of conv6 to the image's border walks behind the classes."""

    def propagate(variables, photos, cams):
        images, sizes = network_input(photos, 1.0, model.backbone)
        features, taps = model.apply(variables, images, sizes=sizes)
        cells = -(-sizes // model.stride)
        share = pool_cells(_inside(cams, sizes)[..., None].astype(jnp.float32), model.stride)  # of a cell's pixels
        scores = pool_cells(_zero_outside(cams.astype(jnp.float32), sizes), model.stride) / jnp.maximum(share, 1e-6)
        if contrast:
            coarse = -(-sizes // model.tap_strides[-1])
            stands_out = border_contrast(taps["conv6"].astype(jnp.float32), coarse)[..., None]
            # stretched over the photo, as the CAMs are
            scores = jnp.concatenate([scores, resize_valid(stands_out, coarse, cells, scores.shape[1:3])], axis=-1)
        walked = jax.vmap(walk)(features.astype(jnp.float32), scores, cells)
        return jax.vmap(stretched)(walked, _inside(scores, cells)) if normalize else walked

    return jax.jit(propagate)


def stretched(maps: Float[Array, "*n h w m"], inside: Bool[Array, "h w"]) -> Float[Array, "*n h w m"]:
    """Each map from its tenth percentile, which becomes 0, to its largest score, which becomes 1.

    A walk levels out what a photo is full of: around a small aeroplane the sky keeps half of its score, and no
    threshold would suit that photo and the next one.
    """
    flat = jnp.where(inside[..., None], maps, jnp.inf).reshape(*maps.shape[:-3], -1, maps.shape[-1])
    tenth = jnp.sum(inside, dtype=jnp.int32) // 10
    low = jnp.take(jnp.sort(flat, axis=-2), tenth, axis=-2)[..., None, None, :]
    high = jnp.max(maps, (-3, -2), keepdims=True)
    reaching = jnp.clip((maps - low) / jnp.maximum(high - low, 1e-5), 0.0, 1.0)
    return jnp.where(inside[..., None], reaching, 0.0)


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


def _zero_outside(x: Array, sizes: Array) -> Array:
    return jnp.where(_inside(x, sizes)[..., None], x, 0)


def _inside(x: Array, sizes: Array) -> Array:
    """(n, h, w) which pixels of padded arrays are valid."""
    inside_rows = jnp.arange(x.shape[1], dtype=sizes.dtype)[None] < sizes[:, :1]
    inside_columns = jnp.arange(x.shape[2], dtype=sizes.dtype)[None] < sizes[:, 1:]
    return inside_rows[:, :, None] & inside_columns[:, None, :]


def cells_of(size: tuple[int, int], stride: int) -> tuple[int, int]:
    """The cells that an image of this height and width has."""
    height, width = size
    return -(-height // stride), -(-width // stride)
