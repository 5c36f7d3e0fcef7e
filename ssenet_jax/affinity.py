"""Pixel pairs of AffinityNet: which pairs there are, their labels from seeds, their affinities from features."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from ssenet_jax.losses import at_least_float32


def pair_offsets(radius: int = 5) -> Int[np.ndarray, "d 2"]:
    """Offsets (dy, dx) of the half plane with dy^2 + dx^2 < radius^2, each pair of pixels once.

    Args:
        radius: in cells, at least 2.

    Returns:
        (0, 1) .. (0, radius - 1), then the rows dy = 1, 2, .. from left to right; 34 offsets for radius 5.

    Raises:
        ValueError: the radius leaves no pair.

    Examples:
        >>> pair_offsets(2).tolist()
        [[0, 1], [1, -1], [1, 0], [1, 1]]
        >>> len(pair_offsets(5))
        34
    """
    if radius < 2:
        raise ValueError(f"pair_offsets: radius must be at least 2, got {radius}")
    reach = range(-radius + 1, radius)
    rows = [(dy, dx) for dy in range(radius) for dx in reach if dy * dy + dx * dx < radius * radius]
    return np.array([(dy, dx) for dy, dx in rows if dy > 0 or dx > 0], np.int32)


def pair_starts(h: int, w: int, radius: int = 5, border: str = "full") -> tuple[slice, slice]:
    """Rows and columns of the cells that pairs start from.

    Args:
        h: rows of the grid.
        w: columns of the grid.
        radius: as in `pair_offsets`.
        border: "reference": cells all of whose partners lie inside, as in the authors' code, which loses the pairs
            along three sides; "full": every cell.

    Raises:
        ValueError: unknown border, or a grid too small for "reference".
    """
    if border == "full":
        return slice(0, h), slice(0, w)
    if border != "reference":
        raise ValueError(f'border must be "full" or "reference", got {border!r}')
    reach = radius - 1
    if h <= reach or w <= 2 * reach:
        raise ValueError(
            f'border="reference" needs a grid of at least {reach + 1} x {2 * reach + 1} cells for radius {radius}, '
            f'got {h} x {w}; use border="full"'
        )
    return slice(0, h - reach), slice(reach, w - reach)


def affinity_labels(
    label: UInt8[Array | np.ndarray, "h w"], radius: int = 5, *, border: str = "full"
) -> tuple[Float[Array | np.ndarray, "d p"], ...]:
    """Which pixel pairs are alike, from a label map of seeds; numpy in, numpy out, or jax in, jax out.

    Args:
        label: class index, 0 background, 255 ignored.
        radius: as in `pair_offsets`.
        border: as in `pair_starts`; with "full", p = h * w, and pairs that leave the grid are 0 in all three.

    Returns:
        bg_pos (both background), fg_pos (both of the same foreground class), neg (classes differ): float32, each (d, p)
        in the order of `pair_offsets` and row by row. A pair with an ignored pixel is 0 in all three.

    Examples:
        >>> import numpy as np
        >>> label = np.array([[0, 0, 3], [255, 3, 3]], np.uint8)
        >>> bg_pos, fg_pos, neg = affinity_labels(label, radius=2, border="full")
        >>> [int(pairs.sum()) for pairs in (bg_pos, fg_pos, neg)]
        [1, 3, 4]
    """
    xp = label.__array_namespace__()
    h, w = label.shape
    rows, cols = pair_starts(h, w, radius, border)
    reach = radius - 1
    padded, start = xp.pad(label, [(0, reach), (reach, reach)], constant_values=255), label[rows, cols]
    bg_pos, fg_pos, neg = [], [], []
    for dy, dx in pair_offsets(radius).tolist():
        end = padded[dy + rows.start : dy + rows.stop, dx + reach + cols.start : dx + reach + cols.stop]
        valid, alike = (start != 255) & (end != 255), start == end
        bg_pos.append((valid & alike & (start == 0)).reshape(-1))
        fg_pos.append((valid & alike & (start != 0)).reshape(-1))
        neg.append((valid & ~alike).reshape(-1))
    return tuple(xp.stack(kind).astype(xp.float32) for kind in (bg_pos, fg_pos, neg))


def pair_affinity(features: Float[Array, "n h w f"], radius: int = 5, *, border: str = "full") -> Float[Array, "n d p"]:
    """Affinity exp(-mean |f_i - f_j|) of every pixel pair.

    Args:
        features: of AffinityNet.
        radius: as in `pair_offsets`.
        border: as in `pair_starts`; with "full", p = h * w, and pairs that leave the grid hold a meaningless number.

    Returns:
        In (0, 1], at least float32, in the order of `affinity_labels`.

    Examples:
        >>> import jax.numpy as jnp
        >>> features = jnp.array([[[[0.0], [0.0], [1.0]]]])
        >>> print(pair_affinity(features, radius=2, border="full")[0, 0].round(2))  # the last leaves the grid
        [1.   0.37 0.37]
    """
    n, h, w, _ = features.shape
    features = at_least_float32(features)
    rows, cols = pair_starts(h, w, radius, border)
    reach, offsets = radius - 1, pair_offsets(radius)
    padded = jnp.pad(features, [(0, 0), (0, reach), (reach, reach), (0, 0)])
    start = features[:, rows, cols]

    @jax.checkpoint
    def distance(corner: Array) -> Array:
        zero = jnp.zeros_like(corner[0])  # a literal is of another type under jax_enable_x64
        end = jax.lax.dynamic_slice(padded, (zero, corner[0], corner[1], zero), start.shape)
        return jnp.mean(jnp.abs(end - start), axis=-1)

    # One offset at a time: unrolled, its gradient takes 8 times as long on a CPU and 10 times the memory.
    corners = offsets + np.array([[rows.start, reach + cols.start]], np.int32)
    distances = jax.lax.map(distance, jnp.asarray(corners))
    return jnp.exp(-distances).transpose(1, 0, 2, 3).reshape(n, len(offsets), start.shape[1] * start.shape[2])


def inside_pairs(h: int, w: int, radius: int = 5, border: str = "full") -> np.ndarray:
    """(d, h, w) bool: True where the pair that starts at a cell exists."""
    rows, cols = pair_starts(h, w, radius, border)
    starts = np.zeros((h, w), bool)
    starts[rows, cols] = True
    y, x = np.mgrid[:h, :w]
    offsets = pair_offsets(radius)[:, :, None, None]
    end_y, end_x = y[None] + offsets[:, 0], x[None] + offsets[:, 1]
    return starts[None] & (end_y < h) & (end_x >= 0) & (end_x < w)
