"""The two-branch forward of the scale equivariance regulariser, for any CAM function."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from ssenet_jax.equivariance import Operator, apply_matrices, linear_matrix, resize_to
from ssenet_jax.losses import multilabel_soft_margin_loss, ser_loss
from ssenet_jax.sampling import product

CamFn = Callable[..., Array]


def resized_mean(cam: Float[Array, "n h w c"], size: tuple[int, int]) -> Float[Array, "n c"]:
    """Mean over the pixels of `resize_to(cam, size)`, without making that array.

    The mean is linear, so each axis needs one vector of weights only. For whole factors they are equal and this is the
    mean over the CAM itself.
    """
    rows = linear_matrix(cam.shape[1], size[0]).mean(0)
    cols = linear_matrix(cam.shape[2], size[1]).mean(0)
    weights = jnp.asarray(np.outer(rows, cols), cam.dtype)[None, :, :, None]
    return jnp.sum(cam * weights, axis=(1, 2))


def _transform_at(cam: Array, size: tuple[int, int], operator: Callable[[Array], Array]) -> Array:
    # operator(resize_to(cam, size)); two linear maps along an axis are one small matrix, and the CAM at the size of the
    # image (448 x 448) never exists. Exact: the maximum is taken after both.
    if not isinstance(operator, Operator) or operator.matrices is None:
        return operator(resize_to(cam, size))
    rows, cols = operator.matrices(*size)
    enlarged = linear_matrix(cam.shape[1], size[0]), linear_matrix(cam.shape[2], size[1])
    return apply_matrices(product(rows, enlarged[0]), product(cols, enlarged[1]), cam)


def two_branch_loss(
    cam_fn: CamFn,
    images: Float[Array, "n h w 3"],
    labels: Num[Array, "n c"],
    operator: Callable[[Array], Array],
    *,
    eta: int | float | Float[Array, ""] = 1.0,
    rng: Array | None = None,
    cam_size: str = "image",
    normalize: str = "max",
    classes: str = "all",
    p: int | float = 2,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """Classification loss of an image and its transformed copy, plus eta times the equivariance of their CAMs.

    Both branches call the same function: the weights are shared because cam_fn closes over them.

    Args:
        cam_fn: images (n, h, w, 3) -> raw CAM (n, h', w', c); called as cam_fn(images, rng) when rng is given.
        images: normalised images.
        labels: 1 for present, 0 for absent.
        operator: the spatial operator A, see `equivariance`.
        eta: weight of the equivariance term, may be traced.
        rng: key; each branch gets one of its own.
        cam_size: "image": both CAMs are brought to their image's size before A, the maximum and the mean (authors'
            code); "feature": compared at the CAM's own size (paper).
        normalize: as in `ser_loss`.
        classes: as in `ser_loss`.
        p: as in `ser_loss`.

    Returns:
        loss = (loss_cls + loss_cls_s) / 2 + eta * loss_ser, and the three terms; means over the batch, float32.

    Raises:
        ValueError: an option is unknown, or the CAM has another number of classes than the labels.

    Source: Eq. 1 and 2.

    Examples:
        >>> import jax.numpy as jnp
        >>> from ssenet_jax.equivariance import hflip
        >>> def cam_fn(images):
        ...     return images[..., :2]  # a CAM of two classes that is equivariant
        >>> images = jnp.linspace(-1.0, 1.0, 24).reshape(1, 2, 4, 3)
        >>> loss, parts = two_branch_loss(cam_fn, images, jnp.array([[1.0, 0.0]]), hflip())
        >>> {name: round(float(value), 3) for name, value in parts.items()}
        {'loss_cls': 0.715, 'loss_cls_s': 0.715, 'loss_ser': 0.0}
    """
    if cam_size not in ("image", "feature"):
        raise ValueError(f'two_branch_loss: cam_size must be "image" or "feature", got {cam_size!r}')
    transformed = operator(images)
    keys = [()] * 2 if rng is None else [(key,) for key in jax.random.split(rng)]
    cam = cam_fn(images, *keys[0]).astype(jnp.float32)
    cam_s = cam_fn(transformed, *keys[1]).astype(jnp.float32)
    if cam.shape[-1] != labels.shape[-1]:
        raise ValueError(f"two_branch_loss: the CAM has {cam.shape[-1]} classes, the labels {labels.shape[-1]}")
    if cam_size == "image":
        (h, w), (h_s, w_s) = images.shape[1:3], transformed.shape[1:3]
        scores, scores_s = resized_mean(cam, (h, w)), resized_mean(cam_s, (h_s, w_s))
        moved, cam_s = _transform_at(cam, (h, w), operator), resize_to(cam_s, (h_s, w_s))
    else:
        scores, scores_s = jnp.mean(cam, axis=(1, 2)), jnp.mean(cam_s, axis=(1, 2))
        # floor(size * rate) of a CAM may miss the network's rounding by one cell.
        h_s, w_s = cam_s.shape[1:3]
        moved = resize_to(operator(cam), (h_s, w_s))
    loss_cls = jnp.mean(multilabel_soft_margin_loss(scores, labels))
    loss_cls_s = jnp.mean(multilabel_soft_margin_loss(scores_s, labels))
    loss_ser = jnp.mean(ser_loss(cam_s, moved, labels, normalize=normalize, classes=classes, p=p))
    loss = (loss_cls + loss_cls_s) / 2 + eta * loss_ser
    return loss, {"loss_cls": loss_cls, "loss_cls_s": loss_cls_s, "loss_ser": loss_ser}
