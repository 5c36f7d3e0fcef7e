"""Gaussian filters on the permutohedral lattice with fixed shapes, for any accelerator.

Points are embedded once, on the device: the keys of their vertices are packed into integers and sorted, equal keys
become one vertex, and a vertex's neighbours are found by binary search. Filtering is then gathers and sums.

Source: Adams, Baek and Davis 2010, "Fast High-Dimensional Filtering Using the Permutohedral Lattice"; the order of the
axes and the constants are those of Kraehenbuehl and Koltun's DenseCRF, which pydensecrf wraps, to give its results.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

CHUNK = 8  # entries of a vertex that are summed by gathers, which is faster than a scatter of each
EMPTY = np.iinfo(np.int64).max  # what sorts after every entry


class Lattice(NamedTuple):
    """Where the points of n images lie: p points of f = d + 1 corners each, v vertices in all, c chunks of e entries.

    An index beyond the last vertex stands for an absent one, whose value is 0.
    """

    vertex: Array  # (n, p, f) int32
    weight: Array  # (n, p, f) barycentric; 0 for points that take no part
    chunk_point: Array  # (n, c, e) int32
    chunk_weight: Array  # (n, c, e)
    chunk_vertex: Array  # (n, c) int32, ascending
    neighbours: Array  # (n, f, 2, v) int32


class Packing(NamedTuple):
    """How a vertex becomes an integer: its remainder and its coordinates less their lowest values, in mixed radix."""

    lowest: tuple[int, ...]
    strides: tuple[int, ...]
    entry_bits: int


def build(features: Float[Array, "n p d"], valid: Bool[Array, "n p"], span: tuple[float, ...]) -> Lattice:
    """Embeds the points of a batch. Trap: not under `jit`, since the number of vertices decides the shapes.

    Args:
        features: positions in standard deviations of the filter.
        valid: points that take part.
        span: no feature of these is below 0 or above this, one number for each of d.

    Raises:
        ValueError: the span is so wide that keys do not fit in 64 bits.
    """
    packing = pack(features.shape[1], span)
    with jax.enable_x64(True):
        entries, weight, count = sorted_entries(features, valid, packing=packing)
        return link(entries, weight, packing=packing, vertices=round_up(int(jax.device_get(jnp.max(count)))))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def gaussian_filter(lattice: Lattice, values: Array, reverse: bool = False) -> Array:
    """Filters (p, k) values of one image, that is with the leading axis of `lattice` mapped over.

    Linear; its transpose blurs the axes in the other order, `reverse`.
    """
    vertices = lattice.neighbours.shape[-1]
    parts = [
        values.at[lattice.chunk_point[:, e]].get(mode="promise_in_bounds") * lattice.chunk_weight[:, e, None]
        for e in range(CHUNK)
    ]
    splat = jax.ops.segment_sum(sum(parts), lattice.chunk_vertex, vertices, indices_are_sorted=True)

    def blur(x, neighbours):
        ahead, behind = (x.at[neighbours[i]].get(mode="fill", fill_value=0) for i in range(2))
        return x + 0.5 * (ahead + behind), None

    blurred, _ = jax.lax.scan(blur, splat, lattice.neighbours, reverse=reverse)
    corners = lattice.vertex.shape[-1]
    parts = [
        blurred.at[lattice.vertex[:, f]].get(mode="fill", fill_value=0) * lattice.weight[:, f, None]
        for f in range(corners)
    ]
    return sum(parts[1:], parts[0]) / (1 + 2.0 ** (1 - corners))


def _filter_forward(lattice, values, reverse):
    return gaussian_filter(lattice, values, reverse), lattice


def _filter_backward(reverse, lattice, gradient):
    return None, gaussian_filter(lattice, gradient, not reverse)


gaussian_filter.defvjp(_filter_forward, _filter_backward)


@jax.jit
def normalized_symmetrically(lattice: Lattice) -> Lattice:
    """Scales the weights of a batch so that the filter K becomes N^(-1/2) K N^(-1/2), N its row sums."""

    def one(lattice):
        valid = is_valid(lattice)
        total = gaussian_filter(lattice, valid[:, None].astype(jnp.float32))[:, 0]
        norm = jnp.where(valid, jax.lax.rsqrt(total + 1e-20), 0.0)
        chunk_weight = lattice.chunk_weight * norm[lattice.chunk_point]
        return lattice._replace(weight=lattice.weight * norm[:, None], chunk_weight=chunk_weight)

    return over_batch(one, lattice)


def is_valid(lattice: Lattice) -> Array:
    """(p,) which points of one image take part."""
    return jnp.sum(lattice.weight, axis=1) > 0


def over_batch(function: Callable, *arrays):
    """One image after the other on a CPU, whose caches hold one; all together elsewhere."""

    def one_by_one(*arrays):
        return jax.lax.map(lambda row: function(*row), arrays)

    return jax.lax.platform_dependent(*arrays, cpu=one_by_one, default=jax.vmap(function))


def _elevation(d: int) -> np.ndarray:
    """(d + 1, d): features to the plane of coordinates that sum to 0, at the scale that splat, blur and slice widen."""
    matrix = np.zeros((d + 1, d))
    for j in range(d):
        matrix[: j + 1, j], matrix[j + 1, j] = 1, -(j + 1)
        matrix[:, j] *= math.sqrt(2 / 3) * (d + 1) / math.sqrt((j + 1) * (j + 2))
    return matrix


def pack(points: int, span: tuple[float, ...]) -> Packing:
    d = len(span)
    reach = _elevation(d)[:d] / (d + 1) * np.array([span])
    # 2 cells of margin: one for the rounding to a simplex, one for its neighbours
    lowest = np.floor(np.minimum(reach, 0).sum(1)).astype(int) - 2
    lengths = np.ceil(np.maximum(reach, 0).sum(1)).astype(int) + 3 - lowest
    strides = [d + 1]
    for length in lengths.tolist():
        strides.append(strides[-1] * length)
    entry_bits = (points * (d + 1)).bit_length()
    if strides[-1].bit_length() + entry_bits > 62:
        raise ValueError(
            f"the CRF's kernels are too narrow for backend 'jax': {points} pixels span {span} of their widths;"
            " take wider kernels, a smaller image, or backend 'pydensecrf'"
        )
    return Packing(tuple(lowest.tolist()), tuple(strides[:-1]), entry_bits)


def round_up(count: int) -> int:
    """To the next 2^i or 3 * 2^i, at most a half more, so that few shapes are compiled."""
    power = 1 << max(count - 1, 1).bit_length()
    return power * 3 // 4 if power * 3 // 4 >= count else power


@functools.partial(jax.jit, static_argnames="packing")
def sorted_entries(features, valid, *, packing):
    """Each image's sorted entries (key, then number of the point's corner), weights and number of vertices."""

    def one(features, valid):
        coordinates, weight = _simplex(features)
        key = jnp.broadcast_to(jnp.arange(weight.shape[1], dtype=jnp.int64)[None], weight.shape)
        for i, (lowest, stride) in enumerate(zip(packing.lowest, packing.strides, strict=True)):
            key = key + (coordinates[..., i].astype(jnp.int64) - lowest) * stride
        number = jnp.arange(key.size, dtype=jnp.int64).reshape(key.shape)
        entries = jnp.where(valid[:, None], (key << packing.entry_bits) | number, EMPTY)
        entries = jnp.sort(entries.reshape(-1))
        return entries, jnp.where(valid[:, None], weight, 0.0), jnp.sum(_starts_vertex(entries, packing))

    return over_batch(one, features, valid)


def _starts_vertex(entries: Array, packing: Packing) -> Array:
    key = entries >> packing.entry_bits
    return jnp.concatenate([jnp.ones(1, bool), key[1:] != key[:-1]]) & (entries != EMPTY)


def _simplex(features: Array) -> tuple[Array, Array]:
    """The f corners around each of (p, d) points: coordinates // f (p, f, d) int32 and barycentric weights (p, f)."""
    d = features.shape[1]
    f = d + 1
    matrix = jnp.asarray(_elevation(d) / f, jnp.float32)
    elevated = sum(features[:, j, None] * matrix[None, :, j] for j in range(d))
    cell = jnp.round(elevated)
    rest = elevated - cell
    axis = np.arange(f, dtype=np.int32)
    higher = (rest[:, None] > rest[:, :, None]) | ((rest[:, None] == rest[:, :, None]) & (axis < axis[:, None])[None])
    # a cell off the plane of sum 0 returns to it along the coordinates that were rounded furthest
    rank = jnp.sum(higher, axis=2, dtype=jnp.int32) + jnp.sum(cell, axis=1, keepdims=True).astype(jnp.int32)
    move = (rank < 0).astype(jnp.int32) - (rank > d).astype(jnp.int32)
    rank, cell = rank + f * move, cell.astype(jnp.int32) + move
    rest = elevated - cell.astype(jnp.float32)
    ranked = jnp.sum(jnp.where(rank[:, :, None] == axis[None, None], rest[:, :, None], 0.0), axis=1)
    last = ranked[:, d:] + 1 - ranked[:, :1]
    weight = jnp.concatenate([last, (ranked[:, :-1] - ranked[:, 1:])[:, ::-1]], axis=1)
    beyond = rank[:, None, :d] > d - axis[None, :, None]
    return cell[:, None, :d] - beyond.astype(jnp.int32), weight


@functools.partial(jax.jit, static_argnames=("packing", "vertices"))
def link(entries, weight, *, packing, vertices):
    def one(entries, weight):
        valid, number = entries != EMPTY, (entries & ((1 << packing.entry_bits) - 1)).astype(jnp.int32)
        owner = jnp.cumsum(_starts_vertex(entries, packing), dtype=jnp.int32) - 1
        owner = jnp.where(valid, owner, vertices)
        starts = jnp.searchsorted(owner, jnp.arange(vertices + 1, dtype=jnp.int32)).astype(jnp.int32)
        number = jnp.where(valid, number, weight.size)
        vertex = jnp.full(weight.size, vertices, jnp.int32).at[number].set(owner, mode="drop").reshape(weight.shape)
        keys = entries.at[starts[:-1]].get(mode="clip") >> packing.entry_bits
        keys = jnp.where(starts[:-1] < starts[-1], keys, EMPTY)
        return Lattice(vertex, weight, *_chunks(number, weight, starts), _neighbours(keys, packing))

    return over_batch(one, entries, weight)


def _chunks(number: Array, weight: Array, starts: Array) -> tuple[Array, Array, Array]:
    """Each vertex's entries in groups of CHUNK: points, weights (0 where a group is not full), vertex."""
    vertices, points = starts.shape[0] - 1, weight.shape[0]
    first = jnp.cumsum(-(-jnp.diff(starts) // CHUNK), dtype=jnp.int32)
    first = jnp.concatenate([jnp.zeros(1, jnp.int32), first])
    chunk = jnp.arange(vertices + weight.size // CHUNK, dtype=jnp.int32)
    owner = jnp.searchsorted(first[1:], chunk, side="right").astype(jnp.int32)
    start = starts[owner] + (chunk - first[owner]) * CHUNK
    position = start[:, None] + jnp.arange(CHUNK, dtype=jnp.int32)[None]
    inside = position < starts[jnp.minimum(owner + 1, vertices)][:, None]
    entry = number.at[position].get(mode="clip")
    point = jnp.minimum(entry // weight.shape[1], points - 1)
    return point, jnp.where(inside, weight.reshape(-1).at[entry].get(mode="clip"), 0.0), owner


def _neighbours(keys: Array, packing: Packing) -> Array:
    """(f, 2, v): along each axis the vertex one step on, and the one a step back."""
    vertices, d = keys.shape[0], len(packing.strides)
    remainder = keys % (d + 1)
    # one step takes 1 from every coordinate but one, which gains d; so the remainder falls by 1 or returns from 0 to d
    step = jnp.where(remainder > 0, -1, d - sum(packing.strides))
    index = jnp.arange(vertices, dtype=jnp.int32)
    both = []
    for stride in (*packing.strides, 0):
        wanted = keys + step + stride
        place = jnp.minimum(jnp.searchsorted(keys, wanted), vertices - 1).astype(jnp.int32)
        ahead = jnp.where((keys[place] == wanted) & (keys != EMPTY), place, vertices)
        behind = jnp.full(vertices, vertices, jnp.int32).at[ahead].set(index, mode="drop")
        both.append(jnp.stack([ahead, behind]))
    return jnp.stack(both)
