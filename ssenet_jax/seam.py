"""SEAM, the authors' next method: maps refined by pixel correlation, and their equivariance (arXiv 2004.04581).

A map has the background in front of the classes, k = c + 1 channels. Everything is resized with corners aligned: the
first and the last sample of an axis lie on the first and the last cell.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Num

from ssenet_jax.cam import normalize_cam
from ssenet_jax.equivariance import apply_matrices
from ssenet_jax.losses import at_least_float32, mean_of_largest, multilabel_soft_margin_loss

NetFn = Callable[..., tuple[Array, Array]]

# cells whose correlations with all others exist at once; an image of 1,000 pixels has 15,625 cells
_COLUMNS = 1024
_highest = jax.lax.Precision.HIGHEST
# a batch whose images have at most so many classes, nearly every one of VOC's, is compared on these alone
_FEW_CLASSES = 4


def aligned_matrix(
    size: int | Int[Array, ""], out: int | Int[Array, ""], length: int, out_length: int
) -> Float[Array, "out_length length"]:
    """Bilinear interpolation along one axis, corners aligned, as a matrix.

    Args:
        size: cells of the input; may be traced.
        out: cells of the output; may be traced.
        length: of the input axis, at least `size`; what lies beyond has weight 0.
        out_length: of the output axis, at least `out`; rows beyond are 0.
    """
    last, last_out = (jnp.maximum(jnp.asarray(cells, jnp.int32) - 1, 0) for cells in (size, out))
    # rounded to float32 where PyTorch rounds
    step = last.astype(jnp.float32) / jnp.maximum(last_out, 1).astype(jnp.float32)
    index = jnp.arange(out_length, dtype=jnp.int32)[:, None]
    position = jnp.minimum(index.astype(jnp.float32) * step, last.astype(jnp.float32))
    weights = jnp.maximum(0.0, 1.0 - jnp.abs(position - jnp.arange(length, dtype=jnp.float32)[None, :]))
    return jnp.where(index <= last_out, weights, 0.0)


def resize_aligned(x: Float[Array, "n h w m"], size: tuple[int, int]) -> Float[Array, "n h2 w2 m"]:
    """Bilinear resizing with corners aligned; PyTorch's `interpolate(align_corners=True)`."""
    if x.shape[1:3] == tuple(size):
        return x
    rows, cols = (
        aligned_matrix(before, after, before, after) for before, after in zip(x.shape[1:3], size, strict=True)
    )
    return apply_matrices(rows, cols, x)


def resize_aligned_valid(
    x: Float[Array, "n h w m"], sizes: Int[Array, "n 2"], out: Int[Array, "n 2"], canvas: tuple[int, int]
) -> Float[Array, "n h2 w2 m"]:
    """`resize_aligned` of the valid area of each padded array, to `out` cells at the top left of a canvas of zeros."""

    def of_one(x: Array, size: Array, out: Array) -> Array:
        rows, cols = (aligned_matrix(size[i], out[i], x.shape[i], canvas[i]) for i in (0, 1))
        return apply_matrices(rows, cols, x[None])[0]

    return jax.vmap(of_one)(x, sizes, out)


def correlation_map(cam: Float[Array, "n h w k"]) -> Float[Array, "n h w k"]:
    """The map that pixel correlation spreads: normalised, background from the classes, one class a cell; no gradient.

    Args:
        cam: raw.
    """
    return _peaks(normalize_cam(cam))


def _peaks(cam: Array) -> Array:
    """Background 1 - max of the classes, and of the classes at each cell the largest alone; no gradient."""
    classes = jax.lax.stop_gradient(cam[..., 1:])
    best = jnp.max(classes, axis=-1, keepdims=True)
    return jnp.concatenate([1 - best, jnp.where(classes == best, classes, 0.0)], axis=-1)


def pixel_correlation(
    cam: Float[Array, "n h w k"], features: Float[Array, "n h w f"], *, eps: int | float = 1e-5
) -> Float[Array, "n h w k"]:
    """Gives each cell the mean of the map over all cells, weighed by how alike their features are.

    Cells whose features are zero take no part and become zero: so padding does. The hw x hw matrix never exists.

    Args:
        cam: what `correlation_map` gives.
        features: of the same cells, of any length.
        eps: added to the features' lengths and to the sums of weights.

    Returns:
        The refined map: M A, A = relu(f^T f) of the features divided by their lengths, columns divided by their sums.

    Examples:
        >>> import jax.numpy as jnp
        >>> features = jnp.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]).reshape(1, 1, 3, 2)  # two cells are alike
        >>> cam = jnp.array([1.0, 0.0, 0.25]).reshape(1, 1, 3, 1)
        >>> print(pixel_correlation(cam, features).round(3).ravel())
        [0.5  0.5  0.25]
    """
    n, h, w, k = cam.shape
    cam, features = at_least_float32(cam), at_least_float32(features)  # squares leave the range of half precision
    squares = jnp.sum(jnp.square(features), axis=-1, keepdims=True)
    # the root's own gradient at zero is not finite
    length = jnp.where(squares > 0, jnp.sqrt(jnp.where(squares > 0, squares, 1.0)), 0.0)
    unit = (features / (length + eps)).reshape(n, h * w, features.shape[-1])
    maps = cam.reshape(n, h * w, k)

    @jax.checkpoint
    def of_a_cell(feature: Array) -> Array:
        weights = jax.nn.relu(jnp.einsum("nif,nf->ni", unit, feature, precision=_highest))
        total = jnp.einsum("ni,nik->nk", weights, maps, precision=_highest)
        return total / (jnp.sum(weights, axis=-1, keepdims=True) + eps)

    refined = jax.lax.map(of_a_cell, unit.swapaxes(0, 1), batch_size=_COLUMNS)
    return refined.swapaxes(0, 1).reshape(n, h, w, k)


def normalize_refined(
    maps: Float[Array, "n h w c"], inside: Bool[Array, "n h w"] | None = None, *, eps: float = 1e-5
) -> Float[Array, "n h w c"]:
    """Scales each refined map, or a sum of them, to [0, 1) from its own minimum to its own maximum.

    Args:
        maps: of the classes, without the background.
        inside: cells that count; the others become zero. None: all of them.
        eps: subtracted before the relu and added to the range.

    Returns:
        relu(y - min - eps) / (max - min + eps).

    Source: METHOD, SEAM's inference.
    """
    maps = jax.nn.relu(at_least_float32(maps))  # eps is no number of float16
    keep = jnp.ones(maps.shape[:3], bool)[..., None] if inside is None else inside[..., None]
    low = jnp.min(jnp.where(keep, maps, jnp.inf), axis=(1, 2), keepdims=True)
    high = jnp.max(jnp.where(keep, maps, 0.0), axis=(1, 2), keepdims=True)
    return jnp.where(keep, jax.nn.relu(maps - low - eps) / (high - low + eps), 0.0)


def seam_loss(
    net_fn: NetFn,
    images: Float[Array, "n h w 3"],
    labels: Num[Array, "n c"],
    *,
    rate: float = 0.3,
    eta: float | Float[Array, ""] = 1.0,
    rng: Array | None = None,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """Classification of an image and its smaller copy, equivariance of their maps and across their refined maps.

    The weights are shared because net_fn closes over them. The equivariance of the refined maps trains what refines
    alone: the other side of each difference has no gradient.

    Args:
        net_fn: images (n, h, w, 3) -> raw map and refined map, each (n, h', w', k); called as net_fn(images, rng) when
            rng is given. See `SeamNet`.
        images: normalised images.
        labels: 1 for present, 0 for absent; of the classes, without the background.
        rate: size of the smaller copy, floor(size * rate) pixels.
        eta: weight of all terms but loss_cls and loss_cls_s; the authors have 1.
        rng: key; each branch gets one of its own.

    Returns:
        loss = (loss_cls + loss_cls_s) / 2 + eta * ((loss_min + loss_min_s) / 2 + loss_er + loss_ecr + loss_ecr_s), and
        these terms; means over the batch, float32.

    Raises:
        ValueError: no image, the rate leaves no pixel, or the maps have another number of classes than the labels.

    Source: arXiv 2004.04581, Eq. 4 to 8; what the code adds to them is in METHOD.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> def net_fn(images):
        ...     return images, correlation_map(images)  # a map of three channels, background first
        >>> images = jnp.linspace(-1.0, 1.0, 300).reshape(1, 10, 10, 3)
        >>> labels = jnp.array([[1.0, 0.0]])
        >>> loss, parts = jax.jit(lambda images: seam_loss(net_fn, images, labels))(images)
        >>> sorted(parts)
        ['loss_cls', 'loss_cls_s', 'loss_ecr', 'loss_ecr_s', 'loss_er', 'loss_min', 'loss_min_s']
    """
    n, h, w, _ = images.shape
    if not n:
        raise ValueError("seam_loss: the batch holds no image")
    small = (math.floor(h * rate), math.floor(w * rate))
    if not rate > 0 or min(small) < 1:
        raise ValueError(f"seam_loss: {h} x {w} pixels at rate {rate} leave none; use a larger rate")
    keys = [()] * 2 if rng is None else [(key,) for key in jax.random.split(rng)]
    branches = [net_fn(images, *keys[0]), net_fn(resize_aligned(images, small), *keys[1])]
    if branches[0][0].shape[-1] != labels.shape[-1] + 1:
        maps = branches[0][0].shape[-1]
        raise ValueError(f"seam_loss: {maps} maps for {labels.shape[-1]} classes; expected one more, the background")
    labels = labels.astype(jnp.float32)
    (cam, refined), (cam_s, refined_s) = (tuple(x.astype(jnp.float32) for x in maps) for maps in branches)
    parts = {
        "loss_cls": _classification(cam, (h, w), labels),
        "loss_cls_s": _classification(cam_s, small, labels),
        **_of_present_classes((cam, refined, cam_s, refined_s), labels, (h, w), small),
    }
    classification, lowest = ((parts[name] + parts[f"{name}_s"]) / 2 for name in ("loss_cls", "loss_min"))
    return classification + eta * (lowest + parts["loss_er"] + parts["loss_ecr"] + parts["loss_ecr_s"]), parts


def _classification(cam: Array, size: tuple[int, int], labels: Array) -> Array:
    """Loss of the means of the map enlarged to a size, which are weighted means of its cells."""
    rows, cols = (
        jnp.mean(aligned_matrix(before, after, before, after), axis=0)
        for before, after in zip(cam.shape[1:3], size, strict=True)
    )
    scores = jnp.einsum("nhwk,h,w->nk", cam, rows, cols, precision=_highest)
    return jnp.mean(multilabel_soft_margin_loss(scores[:, 1:], labels))


def _of_present_classes(maps: tuple[Array, ...], labels: Array, size: tuple[int, int], small: tuple[int, int]) -> dict:
    """The terms to which absent classes add zeros, computed without most of these: 21 maps in full size cost much."""
    n, c = labels.shape

    @jax.checkpoint
    def of_all() -> dict:
        return _comparisons(maps, labels, size, small, c)

    def of_a_few() -> dict:
        few = jnp.argsort(-labels, axis=-1)[:, :_FEW_CLASSES]
        channels = jnp.concatenate([jnp.zeros((n, 1), few.dtype), few + 1], axis=-1)[:, None, None, :]
        taken = tuple(jnp.take_along_axis(x, channels, axis=-1) for x in maps)
        return _comparisons(taken, jnp.take_along_axis(labels, few, axis=-1), size, small, c)

    if c <= _FEW_CLASSES:
        return of_all()
    return jax.lax.cond(jnp.all(jnp.sum(labels > 0, axis=-1) <= _FEW_CLASSES), of_a_few, of_all)


def _comparisons(
    maps: tuple[Array, ...], labels: Array, size: tuple[int, int], small: tuple[int, int], num_classes: int
) -> dict[str, Array]:
    """What is required of an image's two maps and its copy's; those of classes that are not there are zeros."""
    cam, refined, cam_s, refined_s = (
        resize_aligned(x, at) for x, at in zip(maps, (size, size, small, small), strict=True)
    )
    labels = jnp.pad(labels, ((0, 0), (1, 0)), constant_values=1.0)

    def shown(x: Array) -> Array:
        return resize_aligned(_max_norm(x), small) * labels[:, None, None, :]

    large, large_refined, little, little_refined = map(shown, (cam, refined, cam_s, refined_s))
    cells = math.prod(small)
    fifth = max(1, int((num_classes + 1) * cells * 0.2))
    return {
        "loss_min": _lowest_quarter(refined, labels),
        "loss_min_s": _lowest_quarter(refined_s, labels),
        "loss_er": jnp.sum(jnp.abs(large - little)[..., 1:]) / (len(labels) * num_classes * cells),
        "loss_ecr": _mean_difference(jnp.abs(_peaks(little) - large_refined), fifth),
        "loss_ecr_s": _mean_difference(jnp.abs(_peaks(large) - little_refined), fifth),
    }


def _max_norm(cam: Array, eps: float = 1e-5) -> Array:
    cam = jax.nn.relu(cam)
    low, high = jnp.min(cam, axis=(1, 2), keepdims=True), jnp.max(cam, axis=(1, 2), keepdims=True)
    return jax.nn.relu(cam - low - eps) / (high - low + eps)


def _lowest_quarter(refined: Array, labels: Array) -> Array:
    """Mean of the best class's score over the quarter of the pixels where it is lowest."""
    best = jnp.max((refined * labels[:, None, None, :])[..., 1:], axis=-1).reshape(refined.shape[0], -1)
    return -jnp.mean(mean_of_largest(-jax.nn.relu(best), max(1, best.shape[1] // 4)))


def _mean_difference(differences: Array, count: int) -> Array:
    """Mean over the `count` largest differences of an image; where there are fewer the others are zeros."""
    flat = differences.reshape(differences.shape[0], -1)
    among = min(count, flat.shape[1])
    return jnp.mean(mean_of_largest(flat, among)) * (among / count)
