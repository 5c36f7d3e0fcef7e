"""What a person decided about the masks of a run: `reviewed/` in its workdir, a mask a photo and a CSV.

The CSV says which masks count: a photo that was rejected keeps the mask it had.
"""

import csv
import hashlib
import io
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ssenet_jax.artifacts import replacing, write_mask
from ssenet_jax.datasets.records import IGNORE, decode_mask

REVIEWED = "reviewed"  # the folder below the workdir
ACCEPTED, CORRECTED, REJECTED = DECISIONS = ("accepted", "corrected", "rejected")


class Decision(NamedTuple):
    """A row of `reviewed.csv`.

    Attributes:
        id: of the photo.
        decision: one of DECISIONS.
        alpha: that the mask was cut at; None where it began as the label map of the run.
        time: of the decision, UTC; no two saves of a photo have the same.
    """

    id: str
    decision: str
    alpha: float | None
    time: str


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


def mask_path(workdir: Path, image_id: str) -> Path:
    return workdir / REVIEWED / f"{image_id}.png"


def read_decisions(workdir: Path) -> dict[str, Decision]:
    """The decisions by id; none where nothing was reviewed.

    Raises:
        ValueError: the CSV was changed by hand into something that it cannot say; names the row.
    """
    path = workdir / REVIEWED / "reviewed.csv"
    if not path.exists():
        return {}
    try:
        reader = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig")), strict=True)
        rows = {row.id: row for row in (_decision(path, reader.line_num, entry) for entry in reader)}
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is not a CSV in UTF-8 ({error}); save it as one") from error
    return rows


def _decision(path: Path, line: int, entry: Mapping) -> Decision:
    missing = [name for name in Decision._fields if entry.get(name) is None]
    if missing:
        raise ValueError(f"{path}, row {line}: no {missing[0]}; a row is {','.join(Decision._fields)}")
    if not entry["id"] or set(entry["id"]) & set("/\\\0"):
        raise ValueError(f"{path}, row {line}: {entry['id']!r} is no id of a photo; remove the row")
    if entry["decision"] not in DECISIONS:
        known = ", ".join(DECISIONS)
        raise ValueError(f"{path}, row {line}: the decision is {entry['decision']!r}; it must be one of {known}")
    try:
        alpha = float(entry["alpha"]) if entry["alpha"] else None
    except ValueError:
        raise ValueError(f"{path}, row {line}: alpha is {entry['alpha']!r}; it must be a number or empty") from None
    return Decision(entry["id"], entry["decision"], alpha, entry["time"])


def write_decisions(
    workdir: Path, decisions: Mapping[str, Decision], masks: Mapping[str, np.ndarray] | None = None
) -> None:
    """Writes `reviewed.csv`, and masks by id, (h, w) class indices at the photo's own size, that its rows are of.

    Nothing takes its place before all is written, so that on a full disk row and mask stay what they were.
    """
    text = io.StringIO(newline="")
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(Decision._fields)
    for row in decisions.values():
        alpha = "" if row.alpha is None else f"{row.alpha:g}"
        rows.writerow((row.id, row.decision, alpha, row.time))
    with replacing(workdir / REVIEWED / "reviewed.csv") as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")
        for image_id, mask in (masks or {}).items():
            write_mask(mask_path(workdir, image_id), mask)


def label_map(workdir: Path, decision: Decision, size: tuple[int, int], num_classes: int) -> np.ndarray:
    """What a decision teaches: the mask, or for a rejected photo nothing, (h, w) uint8.

    Raises:
        ValueError: the mask is missing, or somebody put one of another size or with another class there.
    """
    if decision.decision == REJECTED:
        return np.full(size, IGNORE, np.uint8)
    path, (height, width) = str(mask_path(workdir, decision.id)), size
    return decode_mask(_taught(workdir, decision), path, size=(height, width), num_classes=num_classes)


def fingerprints(workdir: Path, decisions: Mapping[str, Decision]) -> dict[str, str]:
    """By id a short name of what a person made of a photo; raises as `label_map`."""
    return {row.id: hashlib.sha256(_taught(workdir, row)).hexdigest()[:16] for row in decisions.values()}


def joined(fingerprints: Mapping[str, str]) -> str:
    """One short name of many fingerprints by id; photos that nobody decided, whose one is empty, may come and go."""
    decided = sorted((image_id, of) for image_id, of in fingerprints.items() if of)
    return hashlib.sha256(repr(decided).encode()).hexdigest()[:16]


def _taught(workdir: Path, decision: Decision) -> bytes:
    """The file of the mask that counts; nothing for a rejected photo."""
    if decision.decision == REJECTED:
        return b""
    path = mask_path(workdir, decision.id)
    try:
        return path.read_bytes()
    except OSError as error:
        remedy = "review the photo again, or remove its row from reviewed.csv"
        raise ValueError(f"cannot read {path} of the {decision.decision} photo ({error.strerror}); {remedy}") from error
