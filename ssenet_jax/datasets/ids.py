"""Ids name the files of a run, so each must be fit to, and no two may be one file anywhere."""

import os
import unicodedata
from collections.abc import Iterable

from ssenet_jax.messages import is_printable, quoted

LONGEST_ID = 200  # bytes; a file's name may have 255, and a run adds to it


def check_ids(listed: Iterable[tuple[str, str]], *, remedy: str = "rename or remove one") -> None:
    """Checks the ids of a data set.

    Args:
        listed: pairs of an id and the place that names it, such as "train.csv, row 3".
        remedy: what to do about two ids that are one.

    Raises:
        ValueError: an id would leave its folder, is too long, holds characters that are not printed, occurs twice, or
            differs from another in letter case or Unicode form alone; names the place.
    """
    first: dict[str, tuple[str, str]] = {}
    for image_id, place in listed:
        _check_id(image_id, place)
        other, where = first.setdefault(_file_key(image_id), (image_id, place))
        if where != place:
            where = _place_beside(where, place)
            if other == image_id:
                raise ValueError(f"{place}: the id {quoted(image_id)} is also that of {where}; {remedy}")
            raise ValueError(
                f"{place}: the id {quoted(image_id)} is one file with {quoted(other)} of {where} on a disk that does"
                " not tell letter case or Unicode forms apart; rename one"
            )


def _place_beside(where: str, place: str) -> str:
    """A place without its file where the other place names the same file: two long paths leave no room for the rest."""
    file, _, line = where.rpartition(", ")
    return line if file == place.rpartition(", ")[0] else where


def _check_id(image_id: str, place: str) -> None:
    if not image_id or image_id in (".", "..") or "/" in image_id or "\\" in image_id:
        raise ValueError(f"{place}: the id {quoted(image_id)} is a path; an id is the name of a photo in its folder")
    if not is_printable(image_id):
        raise ValueError(f"{place}: the id {quoted(image_id)} holds characters that cannot be printed; rename the file")
    length = len(os.fsencode(image_id))
    if length > LONGEST_ID:
        raise ValueError(
            f"{place}: the id {quoted(image_id)} has {length} bytes; shorten the file's name, because results add to it"
            f" and at most {LONGEST_ID} leave room"
        )


def _file_key(image_id: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", image_id).casefold())
