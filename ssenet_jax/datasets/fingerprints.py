"""What tells one state of a data set's files from another, without reading them."""

import hashlib
import os
import stat
from pathlib import Path


def file_state(path: Path) -> tuple[int, int] | None:
    """Size in bytes and time of change in nanoseconds of a file; None where there is none."""
    try:
        state = os.stat(path)
    except (OSError, ValueError):
        return None
    return (state.st_size, state.st_mtime_ns) if stat.S_ISREG(state.st_mode) else None


def fingerprint(*parts) -> str:
    """16 hexadecimal digits that stand for the parts, whose `repr` must say all of them."""
    return hashlib.sha256(repr(parts).encode("utf-8", "backslashreplace")).hexdigest()[:16]
