"""Random walk over the affinity graph: scores @ T ** steps, without the hw x hw matrix.

T = A ** beta / column sums, A symmetric with ones on the diagonal, so T is a stencil of 2 d + 1 taps on the grid. With
D the column sums, T = D^(1/2) S D^(-1/2) for a symmetric S: its eigenvalues are real and in [-1, 1], which is what the
Chebyshev expansion needs.
"""

import dataclasses
import functools
import math
import operator
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ssenet_jax.affinity import inside_pairs, pair_affinity, pair_offsets

# Up to which an accelerator squares the whole matrix: for four images at once as long as 78 short kernels of 10 us.
DENSE_CELLS = 512


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
    beta: int | float | Float[Array, ""] = 8.0,
    border: str = "full",
    size: Int[Array, " 2"] | None = None,
) -> Transition:
    """Transition probabilities between the cells of one image.

    Args:
        features: of AffinityNet, for one image.
        radius: pairs lie closer than this, in cells.
        beta: exponent of the affinities; may be traced.
        border: "full" takes all pairs; "reference" leaves out those that the authors' code leaves out.
        size: valid height and width (may be traced) of features padded at the bottom and right; cells outside take no
            part. None: all of it.

    Returns:
        The transition; its columns sum to 1.

    Examples:
        >>> import jax.numpy as jnp
        >>> transition(jnp.zeros((3, 4, 8)), radius=2).column_sums.shape
        (3, 4)
    """
    affinity = pair_affinity(features[None].astype(jnp.float32), radius, border="full")[0]
    return _from_affinity(affinity.reshape(-1, *features.shape[:2]), radius, beta, border, size)


def _from_affinity(
    affinity: Array, radius: int, beta: int | float | Array, border: str, size: Array | None
) -> Transition:
    d, h, w = affinity.shape
    weights = jnp.where(inside_pairs(h, w, radius, border), affinity**beta, 0.0)
    valid = jnp.ones((h, w), bool)
    if size is not None:
        weights, valid = _within(weights, size, radius, border)
    both = _both_ways(weights.reshape(d, h * w), w, radius)
    column_sums = jnp.where(valid, jnp.sum(both, axis=0).reshape(h, w) + 1, 0.0)
    return Transition(weights, column_sums, radius)


def _within(weights: Array, size: Array, radius: int, border: str) -> tuple[Array, Array]:
    _, h, w = weights.shape
    y, x = jnp.arange(h, dtype=jnp.int32)[:, None], jnp.arange(w, dtype=jnp.int32)[None, :]
    valid = (y < size[0]) & (x < size[1])
    offsets = pair_offsets(radius)[:, :, None, None]
    # "reference" starts no pair within the reach of the far sides, whichever way the pair points.
    reach = radius - 1 if border == "reference" else 0
    bottom, right = size[0] - np.maximum(offsets[:, 0], reach), size[1] - np.maximum(offsets[:, 1], reach)
    keep = valid[None] & (y[None] < bottom) & (x[None] < right)
    return jnp.where(keep, weights, 0.0), valid


def _shifts(width: int, radius: int) -> list[int]:
    # Row by row, the cell at offset (dy, dx) is dy * width + dx further on; where that wraps around, the weight is 0.
    return [dy * width + dx for dy, dx in pair_offsets(radius).tolist()]


def _both_ways(weights: Array, width: int, radius: int) -> Array:
    """(d, cells) weights of pairs -> (2 d, cells): towards the partner ahead, then towards the one behind."""
    shifts, cells = _shifts(width, radius), weights.shape[1]
    pad = max(map(abs, shifts))  # on a grid narrower than the radius a partner ahead may lie before the cell
    padded = jnp.pad(weights, [(0, 0), (pad, pad)])
    behind = [padded[i, pad - shift : pad - shift + cells] for i, shift in enumerate(shifts)]
    return jnp.concatenate([weights, jnp.stack(behind)])


def random_walk(
    scores: Float[Array, "h w k"], transition: Transition, *, steps: int | np.integer = 256, method: str = "auto"
) -> Float[Array, "h w k"]:
    """Spreads score maps over the affinity graph: scores @ T ** steps.

    Every map walks alone: pass the present classes and the background only. Map over images with `jax.vmap`.

    Args:
        scores: one map per class at the transition's resolution.
        transition: from `transition`.
        steps: number of steps, >= 0, static.
        method: "stencil" applies T `steps` times; "chebyshev" sums its expansion, about 5 sqrt(steps) applications, to
            1e-6 of the largest score; "dense" squares the hw x hw matrix; "auto" takes whichever of the first two is
            less work, and on an accelerator "dense" for small grids.

    Returns:
        The scores after the walk, float32. A constant map stays as it is, scores that sum to 1 over the classes still
        do, and the sum over cells of score times column sum is kept. Cells that take no part are 0.

    Raises:
        ValueError: unknown method, negative steps, or scores on another grid than the transition.

    Examples:
        >>> import jax.numpy as jnp
        >>> features = jnp.array([0.0, 0.0, 9.0, 9.0]).reshape(1, 4, 1)  # two regions
        >>> scores = jnp.array([1.0, 0.0, 0.5, 0.0]).reshape(1, 4, 1)
        >>> print(random_walk(scores, transition(features, radius=2), steps=16).ravel().round(2))
        [0.5  0.5  0.25 0.25]
    """
    h, w, k = scores.shape
    steps = operator.index(steps)
    if method not in ("auto", "stencil", "chebyshev", "dense"):
        raise ValueError(f'random_walk: method must be "auto", "stencil", "chebyshev" or "dense", got {method!r}')
    if steps < 0:
        raise ValueError(f"random_walk: steps must be >= 0, got {steps}")
    if transition.column_sums.shape != (h, w):
        raise ValueError(f"random_walk: scores are {(h, w)} cells, the transition {transition.column_sums.shape}")
    taps, valid = _taps(transition)
    maps = jnp.where(valid[None], scores.astype(jnp.float32).reshape(h * w, k).T, 0.0)
    forward = _shifts(w, transition.radius)
    shifts = np.array(forward + [-shift for shift in forward], np.int32)

    def walk(on_cpu: bool) -> Callable[[Array, Array], Array]:
        chosen = pick_method(h * w, steps, on_cpu=on_cpu) if method == "auto" else method
        return functools.partial(_walk, shifts=shifts, steps=steps, method=chosen, on_cpu=on_cpu)

    walked = jax.lax.platform_dependent(maps, taps, cpu=walk(True), default=walk(False))
    return walked.T.reshape(h, w, k)


def pick_method(cells: int, steps: int, *, on_cpu: bool) -> str:
    """What "auto" means for a grid of so many cells; docs/accelerators.md has the operations and bytes behind it."""
    terms = len(chebyshev_coefficients(steps))
    # A small matrix is squared in fewer kernels than one application of the stencil takes.
    if not on_cpu and cells <= DENSE_CELLS:
        return "dense"
    return "chebyshev" if terms <= steps // 2 else "stencil"


def _walk(maps: Array, taps: Array, *, shifts: np.ndarray, steps: int, method: str, on_cpu: bool) -> Array:
    if method == "dense":
        return _walk_dense(maps, taps, shifts, steps)
    # One map at a time stays in a CPU's first cache: 4 times faster at 47 x 63 x 21. Elsewhere all at once.
    flow = functools.partial(_flow, taps=taps, shifts=shifts, unroll=4 if on_cpu else len(shifts))
    walk = functools.partial(_walk_stencil if method == "stencil" else _walk_chebyshev, flow=flow, steps=steps)
    return jax.lax.map(walk, maps) if on_cpu else jax.vmap(walk)(maps)


def _taps(transition: Transition) -> tuple[Array, Array]:
    """T without its diagonal as (2 d, cells) taps in the order of `_both_ways`, and which cells take part."""
    d, h, w = transition.weights.shape
    sums = transition.column_sums.reshape(h * w)
    taps = _both_ways(transition.weights.reshape(d, h * w), w, transition.radius)
    return taps / jnp.where(sums > 0, sums, 1.0)[None], sums > 0


def _flow(x: Array, *, taps: Array, shifts: np.ndarray, unroll: int) -> Array:
    """What one step adds to one map: x @ T - x, (cells,), summed as differences to the neighbours.

    Adding this keeps a constant map constant whatever the rounding of the taps, an error that else grows with the steps
    (to 2e-5 of the largest score after 256).
    """
    pad, cells = int(shifts.max()), x.shape[0]
    padded, starts = jnp.pad(x, pad), jnp.asarray(pad + shifts)

    def tap(i: Array, total: Array) -> Array:
        return total + taps[i] * (jax.lax.dynamic_slice(padded, (starts[i],), (cells,)) - x)

    return jax.lax.fori_loop(0, len(shifts), tap, jnp.zeros_like(x), unroll=unroll)


def _walk_stencil(x: Array, *, flow: Callable[[Array], Array], steps: int) -> Array:
    return jax.lax.fori_loop(0, steps, lambda _, y: y + flow(y), x)


@functools.lru_cache(maxsize=32)
def chebyshev_coefficients(steps: int, tolerance: float = 1e-6) -> tuple[float, ...]:
    """Chebyshev series of x ** steps, cut where the rest sums to at most the tolerance, scaled to be 1 at x = 1.

    The series is finite and positive: x^n = 2^(1-n) sum over m of C(n, m) T_(n-2m), the T_0 term halved.

    Returns:
        Coefficients of T_0, T_1, ..; those of the other parity than `steps` are 0.
    """
    full = np.zeros(steps + 1)
    for m in range(steps // 2 + 1):
        # in logarithms: of many steps the integers are long
        chosen = math.lgamma(steps + 1) - math.lgamma(m + 1) - math.lgamma(steps - m + 1)
        degree = steps - 2 * m
        full[degree] = math.exp(chosen - steps * math.log(2)) * (2 if degree else 1)
    rest = np.append(np.cumsum(full[::-1])[::-1], 0.0)
    kept = full[: max(1, int(np.argmax(rest <= tolerance)))]
    return tuple((kept / kept.sum()).tolist())


def _walk_chebyshev(x: Array, *, flow: Callable[[Array], Array], steps: int) -> Array:
    coefficients = chebyshev_coefficients(steps)
    if len(coefficients) == 1:
        return x
    series, change = jnp.asarray(coefficients, jnp.float32), flow(x)
    first = x + change

    def step(i: Array, state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        # T_(i) = 2 T_(i-1) T - T_(i-2), carried as the change between two terms to lose fewer digits.
        change, term, total = state
        change = change + 2 * flow(term)
        term = term + change
        return change, term, total + series[i] * term

    return jax.lax.fori_loop(2, len(series), step, (change, first, series[0] * x + series[1] * first))[2]


def _walk_dense(maps: Array, taps: Array, shifts: np.ndarray, steps: int) -> Array:
    cells = taps.shape[1]
    column = np.broadcast_to(np.arange(cells), taps.shape)
    row = np.clip(column + shifts[:, None], 0, cells - 1)
    matrix = jnp.zeros((cells, cells), jnp.float32).at[row, column].add(taps)
    matrix = matrix + jnp.diag(1 - jnp.sum(taps, axis=0))
    matmul: Callable[[Array, Array], Array] = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
    while steps:
        if steps % 2:
            maps = matmul(maps, matrix)
        steps //= 2
        matrix = matmul(matrix, matrix) if steps else matrix
    return maps
