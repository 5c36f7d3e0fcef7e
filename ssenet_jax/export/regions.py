"""A mask of one class as polygons without holes, for formats that know nothing else."""

from collections.abc import Iterator
from typing import cast

import contourpy
import numpy as np
from jaxtyping import Bool, Float64
from scipy import ndimage


def polygons(mask: Bool[np.ndarray, "h w"], *, reach: float = 0.5) -> list[Float64[np.ndarray, "p 2"]]:
    """The outlines (x, y) of regions that together are the mask; a region with holes is cut in pieces without.

    Args:
        mask: of one class.
        reach: how far an outline runs outside the centres of the pixels on the border, above 0 and below 1; a reader
            that asks for each pixel's centre gets the mask back.

    Returns:
        Outlines in pixels from the picture's top left corner, where the first pixel has its centre at 0.5.
    """
    return [_outline(piece, top, left, reach) for piece, top, left in _without_holes(mask)]


def _without_holes(mask: np.ndarray) -> Iterator[tuple[np.ndarray, int, int]]:
    """Connected pieces with the place of their top left corner."""
    waiting = [(mask, 0, 0)]
    while waiting:
        mask, top, left = waiting.pop()
        labels, _ = ndimage.label(mask)
        for number, (rows, columns) in enumerate(ndimage.find_objects(labels), 1):
            piece = labels[rows, columns] == number
            holes = ndimage.binary_fill_holes(piece) & ~piece
            place = top + rows.start, left + columns.start
            if not holes.any():
                yield piece, *place
                continue
            cut = int(np.flatnonzero(holes.any(axis=0))[0]) + 1  # through the hole that begins first
            waiting += [(piece[:, :cut], *place), (piece[:, cut:], place[0], place[1] + cut)]


def _outline(piece: np.ndarray, top: int, left: int, reach: float) -> np.ndarray:
    contours = contourpy.contour_generator(z=np.pad(piece, 1).astype(np.float64), line_type="Separate")
    (line,) = cast(list[np.ndarray], contours.lines(1 - reach))  # what lines are as "Separate"
    return _corners(line[:-1]) + (left - 0.5, top - 0.5)


def _corners(line: np.ndarray) -> np.ndarray:
    """The points at which a closed line turns."""
    before, after = line - np.roll(line, 1, axis=0), np.roll(line, -1, axis=0) - line
    return line[before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]]
