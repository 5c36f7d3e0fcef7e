"""Reading a whole split once, to name or to leave out what cannot be used."""

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ssenet_jax.datasets.records import Record, Source
from ssenet_jax.messages import one_line

_AT_ONCE = 4096
_MOST_WARNINGS = 20


def problems(source: Source) -> Iterator[tuple[str, str | None]]:
    """Reads every record of a source, in order.

    Args:
        source: a split, from `load` with on_error "raise" or "skip".

    Returns:
        Pairs of the record's id and what is wrong with it, None where nothing is.
    """

    def check(index: int) -> tuple[str, str | None]:
        try:
            source[index]
        except ValueError as error:
            return source.ids[index], str(error)
        return source.ids[index], None

    with ThreadPoolExecutor() as pool:
        for start in range(0, len(source), _AT_ONCE):  # or the pool would keep a task for each record of the split
            yield from pool.map(check, range(start, min(start + _AT_ONCE, len(source))))


def drop_broken(source: Source) -> Source:
    """The records of a source that can be read, in their order; warnings name the first 20 others and count the rest.

    Raises:
        ValueError: no record can be read.
    """
    keep, wrong = [], []
    for index, (_, problem) in enumerate(problems(source)):
        if problem is None:
            keep.append(index)
        else:
            wrong.append(problem)
    for problem in wrong[:_MOST_WARNINGS]:
        logging.warning("left out: %s", one_line(problem))
    if len(wrong) > _MOST_WARNINGS:
        logging.warning("left out: %d more; `ssenet verify-data` tells why", len(wrong) - _MOST_WARNINGS)
    if not keep:
        raise ValueError(f"none of the {len(source)} records can be read; the first: {wrong[0]}")
    return source if len(keep) == len(source) else _Subset(source, keep)


class _Subset:
    """Some records of a source, by position."""

    def __init__(self, source: Source, positions: list[int]):
        self._source, self._positions = source, positions
        self.class_names, self.has_masks = source.class_names, source.has_masks
        self.ids = [source.ids[position] for position in positions]
        self.photos = [source.photos[position] for position in positions]

    @property
    def identity(self) -> dict[str, Any]:
        return self._source.identity

    def fingerprints(self) -> dict[str, str]:
        return self._own(self._source.fingerprints())

    def mask_fingerprints(self) -> dict[str, str]:
        return self._own(self._source.mask_fingerprints())

    def _own(self, of_all: dict[str, str]) -> dict[str, str]:
        return {image_id: of_all[image_id] for image_id in self.ids if image_id in of_all}

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, index: int) -> Record:
        return self._source[self._positions[index]]
