"""What a person decides, saved one photo at a time: a save that does not know of the one before is refused."""

import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from ssenet_jax.stages import reviewed
from ssenet_jax.stages.reviewed import Decision


class Conflict(Exception):
    """Another page saved the photo in the meantime; `current` is what it left there, None for nothing."""

    def __init__(self, current: Decision | None):
        super().__init__("another page changed this photo in the meantime")
        self.current = current


class Ledger:
    """The decisions about the photos of one workdir, for several threads of one process.

    Args:
        workdir: of the run; held by `artifacts.locked` so that no second server writes there.
    """

    def __init__(self, workdir: Path):
        self._workdir = workdir
        self._decisions = reviewed.read_decisions(workdir)
        self._changed: list[str] = []
        self._lock = threading.Lock()

    def of(self, image_id: str) -> Decision | None:
        return self._decisions.get(image_id)

    def since(self, count: int) -> tuple[int, dict[str, Decision | None]]:
        """How many saves there were, and what those after the first `count` left."""
        with self._lock:
            return len(self._changed), {image_id: self.of(image_id) for image_id in self._changed[max(0, count) :]}

    def save(
        self, image_id: str, decision: str, alpha: float | None, known: str, mask_of: Callable[[], np.ndarray] | None
    ) -> Decision:
        """Saves a decision: its mask, and the row that makes it count.

        Args:
            image_id: of a photo of the run.
            decision: one of `reviewed.DECISIONS`.
            alpha: see `Decision`.
            known: the time of the decision that this one takes the place of, "" for none.
            mask_of: gives the mask, (h, w) uint8 at the photo's own size; None leaves that which there is.

        Raises:
            Conflict: the photo has another decision than the known one; nothing was written.
            OSError: it could not be written; the decision before still holds.
        """
        with self._lock:
            self._check(image_id, known)
            masks = {} if mask_of is None else {image_id: mask_of()}
            row = Decision(image_id, decision, alpha, reviewed.now())
            self._write(image_id, {**self._decisions, image_id: row}, masks)
            return row

    def clear(self, image_id: str, known: str) -> None:
        """Takes a decision back, its mask with it; raises as `save`."""
        with self._lock:
            self._check(image_id, known)
            self._write(image_id, {key: row for key, row in self._decisions.items() if key != image_id})
            reviewed.mask_path(self._workdir, image_id).unlink(missing_ok=True)

    def _check(self, image_id: str, known: str) -> None:
        current = self.of(image_id)
        if (current.time if current else "") != known:
            raise Conflict(current)

    def _write(
        self, image_id: str, decisions: dict[str, Decision], masks: Mapping[str, np.ndarray] | None = None
    ) -> None:
        reviewed.write_decisions(self._workdir, decisions, masks)
        self._decisions = decisions
        self._changed.append(image_id)
