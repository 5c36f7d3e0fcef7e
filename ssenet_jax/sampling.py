"""Bilinear sampling of an array at the points of an affine map."""

from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array


def numpy_of(value: object) -> ModuleType:
    """numpy, whose float64 keeps constants exact, or jax.numpy for what is traced."""
    return jnp if isinstance(value, jax.Array) else np


def radians(degrees: int | float | Array) -> np.float64 | Array:
    """An angle in radians, of at least float32: positions in an array are computed in its type."""
    if isinstance(degrees, jax.Array):
        return jnp.deg2rad(degrees.astype(jnp.float32) if degrees.dtype.itemsize < 4 else degrees)
    return np.deg2rad(degrees)


def product(a: np.ndarray | Array, b: np.ndarray | Array) -> np.ndarray | Array:
    """A matrix product, of a traced matrix at full precision on accelerators too."""
    traced = next((each for each in (a, b) if isinstance(each, jax.Array)), None)
    if traced is None:
        return a @ b
    a, b = (jnp.asarray(each, traced.dtype) for each in (a, b))
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def sample_affine(x: Array, to_input: np.ndarray | Array) -> Array:
    """An array (n, h, w, *) read at an affine map of its own coordinates; see `equivariance.affine`."""
    n, h, w = x.shape[:3]
    xp = numpy_of(to_input)
    y, xx = np.meshgrid((2 * np.arange(h) + 1) / h - 1, (2 * np.arange(w) + 1) / w - 1, indexing="ij")
    down, right = (at.ravel() if xp is np else jnp.asarray(at.ravel(), to_input.dtype) for at in (y, xx))
    source = [a * down + b * right + c for a, b, c in to_input]  # accelerators would round a product of matrices
    # Rounding keeps an exact quarter turn from reading 1e-16 beyond the edge.
    digits = 9 if xp is np else 4
    row, col = ((source[0] + 1) * h - 1) / 2, ((source[1] + 1) * w - 1) / 2
    if xp is np:
        row, col = np.round(row, digits), np.round(col, digits)
    else:  # rounding has a gradient of zero
        row, col = (at + jax.lax.stop_gradient(jnp.round(at, digits) - at) for at in (row, col))
    flat = x.reshape(n, h * w, *x.shape[3:])
    total = jnp.zeros_like(flat)
    for top in (0, 1):
        for left in (0, 1):
            i, j = xp.floor(row) + top, xp.floor(col) + left
            weight = xp.maximum(0, 1 - xp.abs(row - i)) * xp.maximum(0, 1 - xp.abs(col - j))
            weight = xp.where((i >= 0) & (i < h) & (j >= 0) & (j < w), weight, 0.0)
            index = xp.clip(i, 0, h - 1).astype(np.int32) * w + xp.clip(j, 0, w - 1).astype(np.int32)
            weight = jnp.asarray(weight, x.dtype).reshape(1, h * w, *[1] * (x.ndim - 3))
            total = total + jnp.take(flat, index, axis=1) * weight
    return total.reshape(x.shape)
