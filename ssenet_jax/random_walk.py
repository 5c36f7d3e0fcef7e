"""Random walk over the affinity graph: scores @ T ** steps, without the hw x hw matrix.

T = A ** beta / column sums, A symmetric with ones on the diagonal. With D the column sums, T = D^(1/2) S D^(-1/2) where
S = D^(-1/2) A^beta D^(-1/2) is symmetric with eigenvalues in [-1, 1]; all methods below walk with S, which is a stencil
of 2 d + 1 taps on the grid.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ssenet_jax.affinity import inside_pairs, pair_affinity, pair_offsets

METHODS = ("auto", "stencil", "chebyshev", "dense")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Transition:
    """The transition matrix of one image in stencil form; a pytree.

    Attributes:
      weights: (d, h, w) affinity ** beta of the pair that starts at a cell, 0 where there is none.
      column_sums: (h, w) sum of a cell's weights in both directions and 1 for itself; 0 for cells that take no part.
      radius: as in `pair_offsets`.
    """

    weights: Array
    column_sums: Array
    radius: int = dataclasses.field(metadata={"static": True})


def transition(
    features: Float[Array, "h w f"],
    *,
    radius: int = 5,
    beta: float = 8.0,
    border: str = "full",
    size: Int[Array, " 2"] | None = None,
) -> Transition:
    """Transition probabilities between the cells of one image.

    Args:
      features: of AffinityNet, for one image.
      radius: pairs lie closer than this, in cells.
      beta: exponent of the affinities.
      border: "full" takes all pairs; "reference" leaves out those that the authors' code leaves out.
      size: valid height and width (may be traced) of features padded at the bottom and right; cells outside take no
        part. None: all of it.

    Returns:
      The transition; its columns sum to 1.

    Source: METHOD "AffinityNet and random walk".
    """
    h, w = features.shape[:2]
    inside = inside_pairs(h, w, radius, border)
    affinity = pair_affinity(features[None].astype(jnp.float32), radius, border="full")[0].reshape(-1, h, w)
    weights = jnp.where(inside, affinity**beta, 0.0)
    cells = jnp.ones((h, w), jnp.float32)
    if size is not None:
        weights, cells = _within(weights, cells, size, radius, border)
    return Transition(weights, _column_sums(weights, cells, radius), radius)


def _within(weights: Array, cells: Array, size: Array, radius: int, border: str) -> tuple[Array, Array]:
    h, w = cells.shape
    y, x = jnp.arange(h, dtype=jnp.int32)[:, None], jnp.arange(w, dtype=jnp.int32)[None, :]
    cells = jnp.where((y < size[0]) & (x < size[1]), cells, 0.0)
    offsets = pair_offsets(radius)[:, :, None, None]
    reach = radius - 1 if border == "reference" else 0
    bottom = size[0] - jnp.maximum(offsets[:, 0], reach)
    right = size[1] - jnp.maximum(offsets[:, 1], reach)
    weights = jnp.where((y[None] < bottom) & (x[None] < right), weights, 0.0)
    return weights * cells[None], cells


def _shifts(width: int, radius: int) -> list[int]:
    # Row by row the cell at offset (dy, dx) is dy * width + dx further on; where that wraps around, the weight is zero.
    return [dy * width + dx for dy, dx in pair_offsets(radius).tolist()]


def _both_ways(weights: Array, width: int, radius: int) -> Array:
    """(d, cells) weights of pairs -> (2 d, cells): the weight towards the partner ahead, then towards the one behind."""
    shifts = _shifts(width, radius)
    pad = max(shifts)
    padded = jnp.pad(weights, [(0, 0), (pad, 0)])
    cells = weights.shape[1]
    behind = [padded[i, pad - shift : pad - shift + cells] for i, shift in enumerate(shifts)]
    return jnp.concatenate([weights, jnp.stack(behind)])


def _column_sums(weights: Array, cells: Array, radius: int) -> Array:
    d, h, w = weights.shape
    taps = _both_ways(weights.reshape(d, h * w), w, radius)
    return jnp.where(cells > 0, jnp.sum(taps, axis=0).reshape(h, w) + 1, 0.0)


def _symmetric_taps(t: Transition) -> tuple[Array, Array, Array]:
    """S as (2 d + 1, cells) taps, the cell itself last, and the roots of D to enter and leave with."""
    d, h, w = t.weights.shape
    sums = t.column_sums.reshape(h * w)
    root = jnp.sqrt(sums)
    inverse = jnp.where(sums > 0, 1 / jnp.where(sums > 0, root, 1.0), 0.0)
    pad = max(_shifts(w, t.radius))
    ahead = jnp.pad(inverse, (0, pad))
    partner = jnp.stack([ahead[shift : shift + h * w] for shift in _shifts(w, t.radius)])
    pairs = t.weights.reshape(d, h * w) * inverse[None] * partner
    taps = jnp.concatenate([_both_ways(pairs, w, t.radius), (inverse * inverse)[None]])
    return taps, root, inverse


def _stencil(x: Array, taps: Array, width: int, radius: int) -> Array:
    """x @ S for x (k, pad + cells + pad) with zeros in the pads -> (k, cells)."""
    shifts = _shifts(width, radius)
    pad, cells = max(shifts), taps.shape[1]
    total = taps[-1][None] * x[:, pad : pad + cells]
    for i, shift in enumerate(shifts + [-shift for shift in shifts]):
        total = total + taps[i][None] * x[:, pad + shift : pad + shift + cells]
    return total


def random_walk(
    scores: Float[Array, "h w k"], transition: Transition, *, steps: int = 256, method: str = "auto"
) -> Float[Array, "h w k"]:
    """Spreads score maps over the affinity graph: scores @ T ** steps.

    Every map walks alone: pass the present classes and the background only. Map over images with `jax.vmap`.

    Args:
      scores: one map per class at the transition's resolution.
      transition: from `transition`.
      steps: number of steps, >= 0, static.
      method: "stencil" applies T `steps` times; "chebyshev" its expansion in about 5 sqrt(steps) times, to 1e-6 of the
        largest score; "dense" squares the hw x hw matrix; "auto" picks.

    Returns:
      The scores after the walk, float32; each map keeps its sum. Cells that take no part are 0.

    Raises:
      ValueError: unknown method, negative steps, or scores on another grid than the transition.
    """
    h, w, k = scores.shape
    if method not in METHODS:
        raise ValueError(f"random_walk: method must be one of {', '.join(METHODS)}, got {method!r}")
    if steps < 0:
        raise ValueError(f"random_walk: steps must be >= 0, got {steps}")
    if transition.column_sums.shape != (h, w):
        raise ValueError(f"random_walk: scores are {(h, w)} cells, the transition {transition.column_sums.shape}")
    method = _pick(h * w, steps) if method == "auto" else method
    taps, root, inverse = _symmetric_taps(transition)
    walk = {"stencil": _walk_stencil, "chebyshev": _walk_chebyshev, "dense": _walk_dense}[method]
    x = scores.astype(jnp.float32).reshape(h * w, k).T * root[None]
    x = walk(x, taps, w, transition.radius, steps) * inverse[None]
    return x.T.reshape(h, w, k)


def _pick(cells: int, steps: int) -> str:
    return "chebyshev" if len(chebyshev_coefficients(steps)) <= steps // 2 else "stencil"


def _walk_stencil(x: Array, taps: Array, width: int, radius: int, steps: int) -> Array:
    pad = max(_shifts(width, radius))

    def step(_: Array, padded: Array) -> Array:
        return padded.at[:, pad:-pad].set(_stencil(padded, taps, width, radius))

    return jax.lax.fori_loop(0, steps, step, jnp.pad(x, [(0, 0), (pad, pad)]))[:, pad:-pad]


@functools.lru_cache(maxsize=32)
def chebyshev_coefficients(steps: int, tolerance: float = 1e-6) -> tuple[float, ...]:
    """Chebyshev series of x ** steps, cut where the rest sums to less than the tolerance, scaled to be 1 at x = 1.

    Returns:
      Coefficients of T_0, T_1, ..; those of the other parity than `steps` are 0.
    """
    full = np.zeros(steps + 1)
    for m in range(steps // 2 + 1):
        degree = steps - 2 * m
        full[degree] = math.comb(steps, m) / 2**steps * (2 if degree else 1)
    kept = np.searchsorted(-np.cumsum(full[::-1])[::-1], -tolerance) if steps else 1
    return tuple((full[:kept] / full[:kept].sum()).tolist())


def _walk_chebyshev(x: Array, taps: Array, width: int, radius: int, steps: int) -> Array:
    coefficients = jnp.asarray(chebyshev_coefficients(steps), jnp.float32)
    pad = max(_shifts(width, radius))
    padded = jnp.pad(x, [(0, 0), (pad, pad)])
    if len(coefficients) == 1:
        return x * coefficients[0]
    first = padded.at[:, pad:-pad].set(_stencil(padded, taps, width, radius))
    total = coefficients[0] * x + coefficients[1] * first[:, pad:-pad]

    def step(i: Array, state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        before, now, total = state
        after = 2 * _stencil(now, taps, width, radius) - before[:, pad:-pad]
        return now, before.at[:, pad:-pad].set(after), total + coefficients[i] * after

    return jax.lax.fori_loop(2, len(coefficients), step, (padded, first, total))[2]


def _walk_dense(x: Array, taps: Array, width: int, radius: int, steps: int) -> Array:
    cells = taps.shape[1]
    shifts = [*_shifts(width, radius), *(-shift for shift in _shifts(width, radius)), 0]
    column = np.arange(cells)
    row = np.clip(column[None, :] + np.array(shifts)[:, None], 0, cells - 1)
    matrix = jnp.zeros((cells, cells), jnp.float32).at[row, np.broadcast_to(column, row.shape)].add(taps)
    highest = jax.lax.Precision.HIGHEST
    while steps:
        if steps % 2:
            x = jnp.matmul(x, matrix, precision=highest)
        steps //= 2
        matrix = jnp.matmul(matrix, matrix, precision=highest) if steps else matrix
    return x
