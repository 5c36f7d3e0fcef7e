"""Class activation maps: normalisation, background, fusing of scales, labels."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num, UInt8


def normalize_cam(
    cam: Float[Array, "n h w c"], labels: Num[Array, "n c"] | None = None, *, eps: int | float = 1e-5
) -> Float[Array, "n h w c"]:
    """Scales each class of each CAM to [0, 1] by its own maximum.

    Args:
        cam: raw CAM.
        labels: 1 for present, 0 for absent; an absent class becomes 0. None keeps all classes.
        eps: subtracted before the relu and added to the maximum, so that a CAM of zeros stays zero.

    Returns:
        relu(y - eps) / (max relu(y) + eps), in [0, 1), float32.

    Source: Eq. 3.

    Examples:
        >>> import jax.numpy as jnp
        >>> cam = jnp.array([[[[-1.0, 1.0], [4.0, 2.0]]]])
        >>> print(normalize_cam(cam, jnp.array([[1.0, 0.0]])).round(2))
        [[[[0. 0.]
           [1. 0.]]]]
    """
    cam = cam.astype(jnp.float32)  # eps is no number of float16
    peak = jnp.max(jax.nn.relu(cam), axis=(1, 2), keepdims=True)
    scaled = jax.nn.relu(cam - eps) / (peak + eps)
    if labels is None:
        return scaled
    return scaled * labels.astype(cam.dtype)[:, None, None, :]


def _best(cam: Array) -> Array:
    return jnp.max(cam, axis=-1, keepdims=True, initial=0)


def add_background(cam: Float[Array, "n h w c"], alpha: int | float | Float[Array, ""]) -> Float[Array, "n h w k"]:
    """Puts a background of constant score in front of the classes.

    Args:
        cam: normalised CAM in [0, 1].
        alpha: the background's score.

    Examples:
        >>> import jax.numpy as jnp
        >>> print(add_background(jnp.array([[[[0.1, 0.9]]]]), 0.2))
        [[[[0.2 0.1 0.9]]]]
    """
    background = jnp.full((*cam.shape[:-1], 1), alpha, cam.dtype)
    return jnp.concatenate([background, cam], axis=-1)


def add_background_power(cam: Float[Array, "n h w c"], alpha: int | float) -> Float[Array, "n h w k"]:
    """Puts the background (1 - max cam) ** alpha in front of the classes.

    Args:
        cam: normalised CAM in [0, 1].
        alpha: exponent > 0; a larger one gives less background (4 is "low", 24 "high" for the affinity seeds).

    Examples:
        >>> import jax.numpy as jnp
        >>> print(add_background_power(jnp.array([[[[0.5, 0.25]]]]), 2))
        [[[[0.25 0.5  0.25]]]]
    """
    # Kept at zero: a fused CAM may exceed 1 by a rounding, and a root of a negative number is nan.
    background = jnp.maximum(1 - _best(cam), 0) ** alpha
    return jnp.concatenate([background, cam], axis=-1)


def cam_to_labels(cam: Float[Array, "n h w c"], alpha: int | float | Float[Array, ""]) -> UInt8[Array, "n h w"]:
    """Class index + 1 of the best class, 0 (background) where the best score is at most alpha.

    Args:
        cam: normalised CAM in [0, 1], absent classes zero.
        alpha: background threshold, >= 0; a negative one lets absent classes win.

    Raises:
        ValueError: more classes than uint8 masks can hold beside the ignore label 255.

    Examples:
        >>> import jax.numpy as jnp
        >>> print(cam_to_labels(jnp.array([[[[0.1, 0.9], [0.1, 0.1]]]]), 0.2))
        [[[2 0]]]
    """
    if cam.shape[-1] > 254:
        raise ValueError(f"cam_to_labels: {cam.shape[-1]} classes, but a uint8 mask holds at most 254 beside 0 and 255")
    # argmax takes the first of equals, and the background comes first.
    return jnp.argmax(add_background(cam, alpha), axis=-1).astype(jnp.uint8)


def fuse_scales(cams: Float[Array, "s *n h w c"]) -> Float[Array, "*n h w c"]:
    """Sums CAMs of several scales and flips and divides each class by its maximum.

    Args:
        cams: one CAM per scale and flip along the first axis, rectified, resized to the image and flipped back, absent
            classes zero.

    Returns:
        sum over s / (max over pixels + 1e-5), in [0, 1), float32.

    Examples:
        >>> import jax.numpy as jnp
        >>> cams = jnp.array([[[[[1.0], [3.0]]]], [[[[0.0], [1.0]]]]])  # two scales
        >>> print(fuse_scales(cams).round(2).ravel())
        [0.25 1.  ]
    """
    total = jnp.sum(cams, axis=0, dtype=jnp.float32)
    return total / (jnp.max(total, axis=(-3, -2), keepdims=True) + 1e-5)
