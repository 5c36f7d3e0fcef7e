"""Losses as pure functions: one value per example, the caller takes the mean."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer, Num

from ssenet_jax.cam import normalize_cam


def multilabel_soft_margin_loss(logits: Float[Array, "n c"], labels: Num[Array, "n c"]) -> Float[Array, " n"]:
    """Mean over the classes of the binary cross entropy of each class.

    Args:
        logits: class scores before the sigmoid.
        labels: 1 for present, 0 for absent.

    Returns:
        One value per example.

    Source: Eq. 1 (cls); PyTorch's MultiLabelSoftMarginLoss.

    Examples:
        >>> import jax.numpy as jnp
        >>> logits = jnp.array([[5.0, -5.0], [0.0, 0.0]])
        >>> labels = jnp.array([[1.0, 0.0], [1.0, 0.0]])
        >>> print(multilabel_soft_margin_loss(logits, labels).round(3))
        [0.007 0.693]
    """
    logits = at_least_float32(logits)
    labels = labels.astype(logits.dtype)
    log_likelihood = labels * jax.nn.log_sigmoid(logits) + (1 - labels) * jax.nn.log_sigmoid(-logits)
    return -jnp.mean(log_likelihood, axis=-1)


def at_least_float32(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Half precision as float32, in which sums over an image do not leave the range; other floats as they are."""
    return x.astype(jnp.float32) if jnp.finfo(x.dtype).bits < 32 else x


def ser_loss(
    cam_of_transformed: Float[Array, "n h w c"],
    transformed_cam: Float[Array, "n h w c"],
    labels: Num[Array, "n c"],
    *,
    normalize: str = "max",
    classes: str = "all",
    p: int | float = 2,
    eps: int | float = 1e-5,
) -> Float[Array, " n"]:
    """Scale equivariance regulariser: mean of |f(Ax) - A f(x)| ** p over pixels and classes.

    The gradient flows through both arguments and, with normalize="max", through both maxima.
    A mean over all classes is c / (classes present) times smaller than one over the present classes.

    Args:
        cam_of_transformed: f(Ax), raw.
        transformed_cam: A f(x), raw, of the same shape.
        labels: 1 for present, 0 for absent.
        normalize: "max" puts both through `normalize_cam`, absent classes zero (authors' code); "none" compares the raw
            CAMs (paper).
        classes: "all" takes the mean over all classes, "present" over the present ones (0 where there is none).
        p: exponent, at least 1.
        eps: as in `normalize_cam`.

    Returns:
        One value per example.

    Raises:
        ValueError: the shapes differ, or an option is unknown.

    Source: Eq. 2.

    Examples:
        >>> import jax.numpy as jnp
        >>> cam = jnp.array([4.0, 0.0, 0.0, 1.0]).reshape(1, 1, 2, 2)
        >>> labels = jnp.array([[1.0, 0.0]])
        >>> print(ser_loss(3 * cam, cam, labels).round(3))  # each class has its own scale
        [0.]
        >>> print(ser_loss(cam[:, :, ::-1], cam, labels, classes="present").round(3))
        [1.]
    """
    if cam_of_transformed.shape != transformed_cam.shape:
        raise ValueError(
            f"ser_loss: the CAM of the transformed image is {cam_of_transformed.shape}, the transformed CAM "
            f"{transformed_cam.shape}; resize one to the other first"
        )
    if p < 1:
        raise ValueError(f"ser_loss: p must be at least 1, got {p}")
    if normalize == "max":
        cam_of_transformed = normalize_cam(cam_of_transformed, labels, eps=eps)
        transformed_cam = normalize_cam(transformed_cam, labels, eps=eps)
    elif normalize == "none":
        cam_of_transformed, transformed_cam = at_least_float32(cam_of_transformed), at_least_float32(transformed_cam)
    else:
        raise ValueError(f'ser_loss: normalize must be "max" or "none", got {normalize!r}')
    distance = jnp.mean(jnp.abs(cam_of_transformed - transformed_cam) ** p, axis=(1, 2))
    if classes == "all":
        return jnp.mean(distance, axis=-1)
    if classes != "present":
        raise ValueError(f'ser_loss: classes must be "all" or "present", got {classes!r}')
    labels = labels.astype(distance.dtype)
    return jnp.sum(distance * labels, axis=-1) / jnp.maximum(jnp.sum(labels, axis=-1), 1)


def mean_of_largest(values: Float[Array, "n m"], count: int) -> Float[Array, " n"]:
    """Mean of the `count` largest values of each row, found by counting, where a sort takes ten times as long.

    Equal values share the gradient of the places that are left for them.

    Args:
        values: float32.
        count: 1 to m.

    Returns:
        One value per row.

    Examples:
        >>> import jax.numpy as jnp
        >>> print(mean_of_largest(jnp.array([[3.0, -1.0, 5.0, 0.0]]), 2))
        [4.]
    """
    last = _nth_largest(jax.lax.stop_gradient(values), count)[:, None]
    above = ~(values <= last)  # a NaN too
    tied = values == last
    places = count - jnp.sum(above, axis=-1, dtype=values.dtype)
    of_tied = jnp.mean(values, axis=-1, where=tied)
    return (jnp.sum(values, axis=-1, where=above) + places * of_tied) / count


def _nth_largest(values: Array, n: int) -> Array:
    bits = jax.lax.bitcast_convert_type(values, jnp.int32)
    ordered = jnp.where(bits < 0, bits ^ 0x7FFFFFFF, bits)  # integers in the order of the floats

    def reached(bound: Array) -> Array:
        return jnp.sum(ordered >= bound[:, None], axis=-1) >= n

    def next_bit(i: Array, bound: Array) -> Array:
        higher = bound | (1 << (30 - i))
        return jnp.where(reached(higher), higher, bound)

    zero = jnp.zeros(values.shape[0], jnp.int32)
    lowest = jnp.where(reached(zero), zero, jnp.iinfo(jnp.int32).min)
    # mostly it is zero, where maps of absent classes are compared
    settled = jnp.all((lowest == 0) & ~reached(zero + 1))
    found = jax.lax.cond(settled, lambda: lowest, lambda: jax.lax.fori_loop(0, 31, next_bit, lowest))
    return jax.lax.bitcast_convert_type(jnp.where(found < 0, found ^ 0x7FFFFFFF, found), jnp.float32)


def affinity_loss(
    affinity: Float[Array, "n d p"],
    bg_pos: Num[Array, "n d p"],
    fg_pos: Num[Array, "n d p"],
    neg: Num[Array, "n d p"],
    *,
    eps: int | float = 1e-5,
) -> dict[str, Float[Array, ""]]:
    """Cross entropy of pair affinities, like pairs of background, of foreground and unlike pairs weighed 1 : 1 : 2.

    A ratio of sums over the whole batch, so there is no value per example: under data parallelism pass the global
    batch, not one device's share.

    Args:
        affinity: in [0, 1].
        bg_pos: 1 where both pixels are background.
        fg_pos: 1 where both are of the same foreground class.
        neg: 1 where the classes differ. A pair with an ignored pixel is 0 in all three.
        eps: added inside the logarithms and to the counts.

    Returns:
        Scalars "loss_bg", "loss_fg", "loss_neg" and "loss" = bg / 4 + fg / 4 + neg / 2, float32.

    Raises:
        ValueError: affinities and pairs of different shapes.

    Examples:
        >>> import jax.numpy as jnp
        >>> alike, unlike = jnp.array([[[1.0, 0.0]]]), jnp.array([[[0.0, 1.0]]])
        >>> losses = affinity_loss(jnp.array([[[0.9, 0.2]]]), alike, 0 * alike, unlike)
        >>> {name: abs(round(float(value), 3)) for name, value in losses.items()}
        {'loss': 0.138, 'loss_bg': 0.105, 'loss_fg': 0.0, 'loss_neg': 0.223}
    """

    shapes = [x.shape for x in (affinity, bg_pos, fg_pos, neg)]
    if len({*shapes}) > 1 or affinity.ndim != 3:
        raise ValueError(f"affinity_loss: affinity and pairs are {shapes}; expected one shape (n, d, p)")
    affinity = affinity.astype(jnp.float32)  # eps is lost beside 1 in half precision

    def mean_over(pairs: Array, log_likelihood: Array) -> Array:
        pairs = pairs.astype(affinity.dtype)
        return -jnp.sum(pairs * log_likelihood) / (jnp.sum(pairs) + eps)

    alike = jnp.log(affinity + eps)
    loss_bg, loss_fg = mean_over(bg_pos, alike), mean_over(fg_pos, alike)
    loss_neg = mean_over(neg, jnp.log(1 + eps - affinity))
    loss = loss_bg / 4 + loss_fg / 4 + loss_neg / 2
    return {"loss": loss, "loss_bg": loss_bg, "loss_fg": loss_fg, "loss_neg": loss_neg}


def softmax_cross_entropy_ignore(
    logits: Float[Array, "n h w k"], labels: Integer[Array, "n h w"], *, ignore: int = 255
) -> Float[Array, ""]:
    """Softmax cross entropy, mean over the pixels whose label is not `ignore`; 0 when there is none.

    Args:
        logits: one score per class, background first.
        labels: class index, or `ignore`. One that is neither dilutes the mean: check the masks beforehand.
        ignore: label of the pixels left out.

    Returns:
        A scalar: a ratio of sums over the whole batch.

    Examples:
        >>> import jax.numpy as jnp
        >>> logits = jnp.array([[[[4.0, 0.0], [0.0, 4.0]]]])
        >>> round(float(softmax_cross_entropy_ignore(logits, jnp.array([[[0, 255]]]))), 3)
        0.018
    """
    logits = at_least_float32(logits)
    valid = labels != ignore
    # labels of 8 bits would be compared with classes of 8 bits
    one_hot = jax.nn.one_hot(labels.astype(jnp.int32), logits.shape[-1], dtype=bool) & valid[..., None]
    total = -jnp.sum(jnp.where(one_hot, jax.nn.log_softmax(logits), 0.0))
    return total / jnp.maximum(jnp.sum(valid, dtype=logits.dtype), 1)
