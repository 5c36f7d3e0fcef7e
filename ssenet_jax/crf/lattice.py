"""Permutohedral lattice of fixed shapes: Gaussian filters in d dimensions as gathers and sums, for any accelerator.

Points are embedded in the lattice once, on the device: their vertices' keys are packed into one integer and sorted, equal
keys become one vertex, and a vertex's neighbours are found by binary search. Filtering is then linear and differentiable.

Source: Adams, Baek and Davis 2010, "Fast High-Dimensional Filtering Using the Permutohedral Lattice"; the axis order and
the constants are those of Kraehenbuehl and Koltun's DenseCRF, so that the results can be compared digit by digit.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

CHUNK = 8  # entries of one vertex that are summed by gathers, before the rest is summed by a scatter
EMPTY = np.iinfo(np.int64).max


class Lattice(NamedTuple):
    """Where the points of a batch lie in their lattices; n images, p points, f = d + 1, v vertices, c chunks.

    The row of values after the last vertex stands for every absent one and is 0.
    """

    vertex: Int[Array, "n p f"]
    weight: Float[Array, "n p f"]  # barycentric; a point outside the valid area has only zeros
    chunk_point: Int[Array, "n c e"]
    chunk_weight: Float[Array, "n c e"]
    chunk_vertex: Int[Array, "n c"]
    neighbours: Int[Array, "n f 2 v"]


def build(features: Float[Array, "n p d"], valid: Bool[Array, "n p"], low: np.ndarray, high: np.ndarray) -> Lattice:
    """Embeds the points of a batch; called outside `jit`, for the number of vertices decides the shapes.

    Args:
        features: positions in units of the filter's standard deviation.
        valid: points that take part.
        low: (d,) what no feature goes below; with `high` it decides how keys are packed.
        high: (d,) what no feature exceeds.

    Raises:
        ValueError: the range is so wide that keys do not fit in 64 bits.
    """
    packing = _packing(features.shape[1], low, high)
    with jax.enable_x64(True):  # inside, every array's type is given
        entries, weight, count = _entries(features, valid, packing)
        return _link(entries, weight, _rounded_up(int(jnp.max(count))), packing)


class Packing(NamedTuple):
    """How a vertex becomes an integer: the remainder, then each coordinate less its lowest value, mixed radix."""

    lowest: tuple[int, ...]
    strides: tuple[int, ...]
    entry_bits: int


def _elevation(d: int) -> np.ndarray:
    """(d + 1, d): features to the hyperplane where coordinates sum to 0; the blur's width is taken out."""
    matrix = np.zeros((d + 1, d))
    for j in range(d):
        matrix[: j + 1, j], matrix[j + 1, j] = 1, -(j + 1)
        matrix[:, j] *= math.sqrt(2 / 3) * (d + 1) / math.sqrt((j + 1) * (j + 2))
    return matrix


def _packing(points: int, low: np.ndarray, high: np.ndarray) -> Packing:
    d = len(low)
    matrix = _elevation(d)[:d] / (d + 1)
    ends = np.stack([matrix * low[None], matrix * high[None]])
    # 2 cells of margin: one for rounding to the simplex, one for the neighbours
    lowest = np.floor(ends.min(0).sum(1)).astype(int) - 2
    extent = np.ceil(ends.max(0).sum(1)).astype(int) + 3 - lowest
    strides = [d + 1]
    for length in extent.tolist():
        strides.append(strides[-1] * length)
    entry_bits = (points * (d + 1) - 1).bit_length()
    if strides[-1].bit_length() + entry_bits > 62:
        raise ValueError(
            f"the CRF's kernels are too narrow for this image: its features span {(high - low).tolist()} standard"
            " deviations; take wider ones, or backend='pydensecrf'"
        )
    return Packing(tuple(lowest.tolist()), tuple(strides[:-1]), entry_bits)


def over_batch(function: Callable, *arrays):
    """One image after the other on a CPU, whose caches hold one; together elsewhere."""
    if jax.default_backend() == "cpu":
        return jax.lax.map(lambda row: function(*row), arrays)
    return jax.vmap(function)(*arrays)


@functools.partial(jax.jit, static_argnames="packing")
def _entries(features, valid, packing):
    """Sorted entries (key, point, vertex of the point's simplex) of each image, weights, and the number of vertices."""

    def one(features, valid):
        coordinate, weight = _simplex(features)
        lowest, strides = jnp.asarray(packing.lowest, jnp.int64), jnp.asarray(packing.strides, jnp.int64)
        remainder = jnp.arange(coordinate.shape[1], dtype=jnp.int64)
        key = jnp.sum((coordinate[..., :-1].astype(jnp.int64) - lowest[None, None]) * strides[None, None], -1)
        key = key + remainder[None]
        number = jnp.arange(key.size, dtype=jnp.int64).reshape(key.shape)
        entries = jnp.where(valid[:, None], (key << packing.entry_bits) | number, EMPTY)
        entries = jnp.sort(entries.reshape(-1))
        return entries, jnp.where(valid[:, None], weight, 0), jnp.sum(_is_first(entries >> packing.entry_bits))

    return over_batch(one, features, valid)


def _is_first(keys: Array) -> Array:
    found = keys < keys.dtype.type(EMPTY >> 40 << 40) if False else keys != keys[-1] + 1
    return jnp.concatenate([jnp.ones(1, bool), keys[1:] != keys[:-1]]) & found
