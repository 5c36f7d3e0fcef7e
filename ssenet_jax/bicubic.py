"""Pillow's bicubic resizing of padded 8-bit images, as two matrices an image: on the accelerator, in one call."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt8

SUPPORT = 2.0  # of the filter, in pixels of whichever of input and output is coarser


def scaled_sizes(sizes: Int[Array, "n 2"], scale: int | float) -> Int[Array, "n 2"]:
    """Heights and widths times a scale, rounded, at least 1."""
    return jnp.maximum(1, jnp.round(jnp.asarray(sizes, jnp.float32) * scale).astype(jnp.int32))


def resize_bicubic(
    images: UInt8[Array, "n h w 3"],
    sizes_in: Int[Array, "n 2"],
    sizes_out: Int[Array, "n 2"],
    canvas_out: tuple[int, int],
) -> Float[Array, "n h2 w2 3"]:
    """Resizes the valid area of each image as Pillow's ``Image.resize(.., BICUBIC)``: antialiased when it shrinks.

    As Pillow does, the columns are resized first and rounded to whole grey levels, then the rows. Its weights have 22
    bits and these 24, so that a level differs by one only where it lies within rounding of the half between two.

    Args:
        images: padded at the bottom and right.
        sizes_in: valid height and width of each image, from 1 to 32,000.
        sizes_out: height and width that the valid area is resized to, from 1 to 32,000.
        canvas_out: static shape of the result; holds every size.

    Returns:
        Whole grey levels 0 to 255 as float32, zero outside the valid areas.
    """
    rows = jax.vmap(lambda a, b: _matrix(a, b, images.shape[1], canvas_out[0]))(sizes_in[:, 0], sizes_out[:, 0])
    columns = jax.vmap(lambda a, b: _matrix(a, b, images.shape[2], canvas_out[1]))(sizes_in[:, 1], sizes_out[:, 1])
    highest = jax.lax.Precision.HIGHEST
    narrow = jnp.einsum("nqw,nhwc->nhqc", columns, images.astype(jnp.float32), precision=highest)
    return _grey_levels(jnp.einsum("nph,nhqc->npqc", rows, _grey_levels(narrow), precision=highest))


def _grey_levels(x: Array) -> Array:
    return jnp.clip(jnp.floor(x + 0.5), 0, 255)


def _matrix(size_in: Array, size_out: Array, length_in: int, length_out: int) -> Array:
    """(length_out, length_in) weights of one axis; rows beyond the valid output are zero."""
    index = jnp.arange(length_out, dtype=jnp.int32)[:, None]
    pixel = jnp.arange(length_in, dtype=jnp.int32)[None, :]
    # how far the centre of a pixel lies from that of an output pixel, in integers: positions would not fit in 24 bits,
    # and without a common divisor a quarter of a pixel is a quarter even where a division is a product
    divisor = jnp.gcd(size_in, size_out)
    step_in, step_out = size_in // divisor, size_out // divisor
    apart = (2 * pixel + 1) * step_out - (2 * index + 1) * step_in
    away = apart.astype(jnp.float32) / (2 * jnp.maximum(step_in, step_out)).astype(jnp.float32)
    weights = jnp.where(pixel < size_in, _cubic(away), 0.0)
    total = jnp.sum(weights, axis=1, keepdims=True)
    return jnp.where(index < size_out, weights / total, 0.0)


def _cubic(x: Array) -> Array:
    """Keys's cubic with a = -0.5."""
    x = jnp.abs(x)
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return jnp.where(x < 1, near, jnp.where(x < SUPPORT, far, 0.0))
