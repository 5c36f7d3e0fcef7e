"""predictions.html: photos beside their label maps, as one file that needs nothing else to be shown."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from ssenet_jax.palette import palette
from ssenet_jax.report.gallery import jpeg_uri
from ssenet_jax.report.pictures import IGNORE, to_long_edge
from ssenet_jax.report.templates import template

FILE = "predictions.html"
THUMBNAIL = 320  # long edge of a picture, in pixels


class Entry(NamedTuple):
    """What the page shows of one photo: two pictures as data URIs, and the share of the pixels that each label has."""

    name: str
    photo: str
    overlay: str
    shares: dict[int, float]


def entry(name: str, photo: UInt8[np.ndarray, "h w 3"], overlay: UInt8[np.ndarray, "h w 3"], labels) -> Entry:
    """An entry, which holds thumbnails and not the photo."""
    counts = np.bincount(labels.ravel(), minlength=256)
    shares = {int(label): counts[label] / labels.size for label in np.flatnonzero(counts) if label not in (0, IGNORE)}
    small, small_overlay = (jpeg_uri(to_long_edge(picture, THUMBNAIL)) for picture in (photo, overlay))
    return Entry(name, small, small_overlay, shares)


def page(entries: Sequence[Entry], class_names: Sequence[str], generator: str) -> str:
    """The page: one figure a photo, in the order given, with its classes, the largest first.

    Args:
        entries: of `entry`.
        class_names: of the foreground classes.
        generator: stands in the page, for `is_by`.
    """
    colours = [f"#{bytes(colour).hex()}" for colour in palette(len(class_names) + 1)]
    rows = [
        (entry, [(class_names[label - 1], colours[label], share) for label, share in _largest_first(entry.shares)])
        for entry in entries
    ]
    return template("album.html.j2").render(rows=rows, generator=generator)


def is_by(path: Path, generator: str) -> bool:
    """Whether a file is a page that `page` made for this generator."""
    try:
        with path.open("rb") as file:
            return f'<meta name="generator" content="{generator}">'.encode() in file.read(1000)
    except OSError:
        return False


def _largest_first(shares: dict[int, float]) -> list[tuple[int, float]]:
    return sorted(shares.items(), key=lambda pair: -pair[1])
