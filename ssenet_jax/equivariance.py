"""Spatial operators A of the equivariance loss, and the bilinear resizing that everything else shares.

An operator takes (n, h, w, *) to (n, h2, w2, *), is linear in its values, and is defined in fractions of the height
and width, so that one operator serves an image and its smaller CAM.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped

from ssenet_jax.sampling import numpy_of, product, radians, sample_affine

Matrices = tuple[np.ndarray | Array, np.ndarray | Array]


@dataclasses.dataclass(frozen=True)
class Operator:
    """A linear spatial operator: a callable (n, h, w, *) -> (n, h2, w2, *) of floating point; TypeError for others.

    Attributes:
        apply: the operator itself.
        matrices: for operators that act on rows and columns separately, `matrices(h, w)` gives the same operator as two
            float64 matrices (h2, h) and (w2, w); None for the others.
    """

    apply: Callable[[Array], Array]
    matrices: Callable[[int, int], Matrices] | None = None

    def __call__(self, x: Array) -> Array:
        _check_floating(x)
        return self.apply(x)


def linear_matrix(size: int, out: int, *, step: float | None = None) -> np.ndarray:
    """Bilinear interpolation along one axis as a matrix, half-pixel centres, no antialiasing.

    Positions are rounded to float32 as PyTorch does, which moves a weight by up to 4e-6 at 60 pixels.

    Args:
        size: length of the input axis.
        out: length of the output axis.
        step: input cells between two output samples; None stands for size / out.

    Returns:
        (out, size) float64; every row sums to 1. Samples beyond the first or last centre take that centre's value.
    """
    step = np.float64(np.float32(size / out if step is None else step))
    # One rounding after product and difference: a fused multiply-add.
    position = np.float32((np.arange(out) + 0.5) * step - 0.5)
    position = np.clip(position, 0, size - 1).astype(np.float64)
    return np.maximum(0.0, 1.0 - np.abs(position[:, None] - np.arange(size)[None, :]))


def apply_matrices(rows: np.ndarray | Array, cols: np.ndarray | Array, x: Shaped[Array, "n h w *m"]) -> Array:
    """Multiplies the rows of x by one matrix and its columns by another, in float32 precision on every device."""
    _check_floating(x)
    rows, cols = jnp.asarray(rows, x.dtype), jnp.asarray(cols, x.dtype)
    highest = jax.lax.Precision.HIGHEST

    def along_rows(y: Array) -> Array:
        return jnp.einsum("ph,nh...->np...", rows, y, precision=highest)

    def along_cols(y: Array) -> Array:
        return jnp.einsum("qw,nhw...->nhq...", cols, y, precision=highest)

    # The axis that shrinks more goes first, so that the array in between is the smaller one.
    if rows.shape[0] * cols.shape[1] <= rows.shape[1] * cols.shape[0]:
        return along_cols(along_rows(x))
    return along_rows(along_cols(x))


def resize_to(x: Shaped[Array, "n h w *m"], size: tuple[int, int]) -> Array:
    """Bilinear resizing to a given size, half-pixel centres, no antialiasing.

    Equal to `jax.image.resize(..., antialias=False)` and to PyTorch's `interpolate(align_corners=False)`.

    Args:
        x: (n, h, w, *) floating point.
        size: output height and width.

    Returns:
        (n, *size, *), dtype of x.

    Raises:
        TypeError: x is not floating point.
    """
    _check_floating(x)
    if x.shape[1:3] == tuple(size):
        return x
    return apply_matrices(linear_matrix(x.shape[1], size[0]), linear_matrix(x.shape[2], size[1]), x)


def _check_floating(x: Array) -> None:
    # in the dtype of an image of bytes every weight below 1 is 0
    if not jnp.issubdtype(x.dtype, jnp.inexact):
        raise TypeError(f"got an array of {x.dtype}; convert it first: x.astype(jnp.float32)")


def _valid_matrix(size_in: Array, size_out: Array, length_in: int, length_out: int) -> Array:
    # In integers: position = ((2 i + 1) in - out) / (2 out). A float32 position loses 3e-5 of a weight at pixel 500.
    size_in, size_out = jnp.maximum(size_in, 1), jnp.maximum(size_out, 1)
    index = jnp.arange(length_out, dtype=jnp.int32)
    numerator = jnp.clip((2 * index + 1) * size_in - size_out, 0, 2 * size_out * (size_in - 1))
    cell = (numerator // (2 * size_out))[:, None]
    fraction = ((numerator % (2 * size_out)) / (2 * size_out)).astype(jnp.float32)[:, None]
    source = jnp.arange(length_in, dtype=jnp.int32)[None, :]
    weights = jnp.where(source == cell, 1 - fraction, 0.0) + jnp.where(source == cell + 1, fraction, 0.0)
    return jnp.where(index[:, None] < size_out, weights, 0.0)


def resize_valid(
    x: Float[Array, "n h w c"], sizes_in: Int[Array, "n 2"], sizes_out: Int[Array, "n 2"], canvas_out: tuple[int, int]
) -> Float[Array, "n h2 w2 c"]:
    """Resizes the valid area of each padded array as `resize_to` would resize it alone; sizes may be traced.

    What lies outside the valid area of x must be finite; it has no influence. The weights are exact, those of
    `resize_to` rounded as PyTorch's: up to 4e-6 apart at 60 pixels, 3e-5 at 500.

    Args:
        x: padded at the bottom and right.
        sizes_in: valid height and width of each x, at least 1.
        sizes_out: height and width that the valid area is resized to.
        canvas_out: static shape of the result; what a size exceeds it by is cut off.

    Returns:
        The resized areas at the top left, zero elsewhere.
    """
    _check_floating(x)
    rows = jax.vmap(lambda a, b: _valid_matrix(a, b, x.shape[1], canvas_out[0]))(sizes_in[:, 0], sizes_out[:, 0])
    cols = jax.vmap(lambda a, b: _valid_matrix(a, b, x.shape[2], canvas_out[1]))(sizes_in[:, 1], sizes_out[:, 1])
    highest = jax.lax.Precision.HIGHEST
    narrow = jnp.einsum("nqw,nhwc->nhqc", cols.astype(x.dtype), x, precision=highest)
    return jnp.einsum("nph,nhqc->npqc", rows.astype(x.dtype), narrow, precision=highest)


def resize(rate: int | float, *, sampling: str = "size") -> Operator:
    """Bilinear scaling by a rate to floor(size * rate), half-pixel centres, no antialiasing.

    Args:
        rate: output size over input size, > 0.
        sampling: "size" samples every size / output pixels (the authors' PyTorch 0.4); "rate" every 1 / rate pixels
            (later PyTorch, unless told to recompute the scale factor).

    Raises:
        ValueError: rate or sampling out of range, or, when applied, an output without pixels.

    Examples:
        >>> import jax.numpy as jnp
        >>> resize(0.5)(jnp.ones((1, 10, 7, 3))).shape
        (1, 5, 3, 3)
    """
    if not rate > 0:
        raise ValueError(f"resize: rate must be > 0, got {rate}")
    if sampling not in ("size", "rate"):
        raise ValueError(f'resize: sampling must be "size" or "rate", got {sampling!r}')

    def matrix(size: int) -> np.ndarray:
        out = math.floor(size * rate)
        if out < 1:
            raise ValueError(f"resize: {size} pixels at rate {rate} leave none; use a larger rate or larger images")
        return linear_matrix(size, out, step=1 / rate if sampling == "rate" else None)

    return _separable(matrix, matrix)


def _separable(rows: Callable[[int], np.ndarray | Array], cols: Callable[[int], np.ndarray | Array]) -> Operator:
    def matrices(h: int, w: int) -> Matrices:
        return rows(h), cols(w)

    return Operator(lambda x: apply_matrices(*matrices(x.shape[1], x.shape[2]), x), matrices)


def hflip() -> Operator:
    """Mirrors left and right.

    Examples:
        >>> import jax.numpy as jnp
        >>> print(hflip()(jnp.array([[[1.0, 2.0, 3.0]]])))
        [[[3. 2. 1.]]]
    """
    return Operator(lambda x: x[:, :, ::-1], lambda h, w: (np.eye(h), np.eye(w)[::-1]))


def vflip() -> Operator:
    """Mirrors top and bottom.

    Examples:
        >>> import jax.numpy as jnp
        >>> print(vflip()(jnp.array([[[1.0], [2.0]]])).ravel())
        [2. 1.]
    """
    return Operator(lambda x: x[:, ::-1], lambda h, w: (np.eye(h)[::-1], np.eye(w)))


def rot90(k: int = 1) -> Operator:
    """Turns by k quarter turns, counterclockwise as `jnp.rot90`.

    Examples:
        >>> import jax.numpy as jnp
        >>> rot90(1)(jnp.ones((1, 4, 6, 3))).shape
        (1, 6, 4, 3)
    """
    return Operator(lambda x: jnp.rot90(x, k, axes=(1, 2)))


def translate(dy: int | float | Array, dx: int | float | Array) -> Operator:
    """Moves content down by dy of the height and right by dx of the width; zeros move in; bilinear.

    Args:
        dy: fraction of the height, positive is down; may be traced.
        dx: fraction of the width, positive is right; may be traced.

    Examples:
        >>> import jax.numpy as jnp
        >>> print(translate(0.0, 0.5)(jnp.array([[[1.0, 2.0, 3.0, 4.0]]])))
        [[[0. 0. 1. 2.]]]
    """

    def matrix(size: int, fraction: int | float | Array) -> np.ndarray | Array:
        xp = numpy_of(fraction)
        cells = xp.arange(size, dtype=float)
        return xp.maximum(0.0, 1.0 - xp.abs((cells - fraction * size)[:, None] - cells[None, :]))

    return _separable(lambda h: matrix(h, dy), lambda w: matrix(w, dx))


def rotate(degrees: int | float | Array) -> Operator:
    """Turns counterclockwise about the centre, keeping the shape; zeros outside; bilinear.

    Args:
        degrees: may be traced.

    Examples:
        >>> import jax.numpy as jnp
        >>> print(rotate(180)(jnp.array([[[1.0, 2.0], [3.0, 4.0]]])))
        [[[4. 3.]
          [2. 1.]]]
    """
    xp, angle = numpy_of(degrees), radians(degrees)
    cos, sin = xp.cos(angle), xp.sin(angle)

    def to_input(h: int, w: int) -> np.ndarray | Array:
        # The angle is one between pixels: in half heights and half widths the off-diagonal takes the aspect.
        return xp.stack([xp.stack([cos, sin * w / h, 0.0 * cos]), xp.stack([-sin * h / w, cos, 0.0 * cos])])

    return Operator(lambda x: sample_affine(x, to_input(x.shape[1], x.shape[2])))


def affine(matrix_2x3: Sequence[Sequence[int | float]] | np.ndarray) -> Operator:
    """Samples the input at an affine map of the output's coordinates, keeping the shape; zeros outside; bilinear.

    The map goes from the output to the input: to move content by +t, write -t.

    Args:
        matrix_2x3: takes (y, x, 1) of an output pixel to (y, x) in the input, both in units of half the height and half
            the width from the centre: the array spans -1..1 in each.

    Raises:
        ValueError: the matrix is not (2, 3) or not finite.

    Examples:
        >>> import jax.numpy as jnp
        >>> print(affine([[1, 0, 0], [0, -1, 0]])(jnp.array([[[1.0, 2.0, 3.0]]])))
        [[[3. 2. 1.]]]
    """
    matrix = np.asarray(matrix_2x3, np.float64)
    if matrix.shape != (2, 3) or not np.isfinite(matrix).all():
        raise ValueError(f"affine: expected a finite (2, 3) matrix, got {matrix.tolist()}")
    return Operator(lambda x: sample_affine(x, matrix))


def compose(*ops: Callable[[Array], Array]) -> Operator:
    """Applies operators one after the other, the first argument first.

    Examples:
        >>> import jax.numpy as jnp
        >>> print(compose(hflip(), translate(0.0, 0.5))(jnp.array([[[1.0, 2.0, 3.0, 4.0]]])))
        [[[0. 0. 4. 3.]]]
    """

    def apply(x: Array) -> Array:
        for op in ops:
            x = op(x)
        return x

    def matrices(h: int, w: int) -> Matrices:
        whole: Matrices = (np.eye(h), np.eye(w))
        for part in parts:
            rows, cols = part(whole[0].shape[0], whole[1].shape[0])
            whole = (product(rows, whole[0]), product(cols, whole[1]))
        return whole

    parts = [op.matrices for op in ops if isinstance(op, Operator) and op.matrices is not None]
    return Operator(apply, matrices if len(parts) == len(ops) else None)
