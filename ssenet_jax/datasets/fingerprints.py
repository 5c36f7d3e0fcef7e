"""What tells one state of a data set's files from another: what they hold, each read once while it stays as it is."""

import hashlib
import itertools
import os
import stat
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ssenet_jax import artifacts, cache
from ssenet_jax.datasets.records import PASSING, read_bytes

_READERS = 16  # at once: a shared folder answers late rather than slowly

State = tuple[int, int]  # size in bytes, time of change in nanoseconds


def fingerprint(*parts) -> str:
    """16 hexadecimal digits that stand for the parts, whose `repr` must say all of them."""
    return hashlib.sha256(repr(parts).encode("utf-8", "backslashreplace")).hexdigest()[:16]


def contents(paths: Iterable[Path]) -> dict[Path, str | None]:
    """16 hexadecimal digits that stand for what each file holds; None where there is no file, or none to be read.

    A copy has the same, whatever its time. What was read is noted in the user's cache by path, size and time, and a
    file that still has those is not read again; where the cache cannot be written, it is.

    Raises:
        OSError: the machine is short of memory or open files, or a disk fails.
    """
    found: dict[Path, str | None] = {}
    for folder, files in itertools.groupby(sorted(set(paths), key=_by_folder), key=lambda path: path.parent):
        found |= _contents_of(folder, list(files))
    return found


def _by_folder(path: Path) -> tuple[Path, str]:
    return path.parent, path.name


def _contents_of(folder: Path, paths: list[Path]) -> dict[Path, str | None]:
    notes = _notes_on(folder)
    noted = _read_notes(notes)
    states = {path: _state(path) for path in paths}
    unread = [path for path, state in states.items() if state and noted.get(path.name, [])[:2] != [*state]]
    with ThreadPoolExecutor(_READERS) as pool:
        for path, digest in zip(unread, pool.map(_digest, unread), strict=True):
            noted[path.name] = [*(states[path] or ()), digest]
    if unread:
        _write_notes(notes, noted)
    return {path: noted[path.name][2] if state else None for path, state in states.items()}


def _state(path: Path) -> State | None:
    try:
        state = os.stat(path)
    except ValueError:
        return None
    except OSError as error:
        if error.errno in PASSING:
            raise
        return None
    return (state.st_size, state.st_mtime_ns) if stat.S_ISREG(state.st_mode) else None


def _digest(path: Path) -> str | None:
    try:
        return hashlib.sha256(read_bytes(path)).hexdigest()[:16]
    except ValueError:
        return None


def _notes_on(folder: Path) -> Path | None:
    """Where the cache has what the files of a folder hold; None without a home."""
    try:
        return cache.folder("contents", f"{fingerprint(str(folder.resolve()))}.json")
    except RuntimeError:
        return None


def _read_notes(notes: Path | None) -> dict[str, list]:
    try:
        held = artifacts.read_json(notes) if notes else {}
    except (OSError, ValueError):
        return {}
    return {
        name: entry
        for name, entry in (held.items() if isinstance(held, dict) else ())
        if isinstance(entry, list) and len(entry) == 3 and isinstance(entry[2], str)
    }


def _write_notes(notes: Path | None, noted: dict[str, list]) -> None:
    try:
        if notes:
            artifacts.write_json(notes, noted)
    except OSError:
        return
