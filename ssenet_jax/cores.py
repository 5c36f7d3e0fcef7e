"""How many processor cores this process may use."""

import os
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")


def available() -> int:
    """The cores that the scheduler gives this process: its affinity, cut to the quota of its cgroup; at least 1.

    `os.cpu_count` is that of the host: in a container with 2 cores of 96, 96 threads would share them.
    """
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    return max(1, min([cores, *_quotas()]))


def _quotas() -> list[int]:
    """The quotas, rounded up to whole cores, of this process's cgroup and of those that it lies in."""
    found = []
    for line in _lines(Path("/proc/self/cgroup")):
        _, controllers, name = line.split(":", 2)
        if controllers not in ("", "cpu", "cpu,cpuacct"):
            continue
        root = _CGROUPS / controllers
        own = root / name.lstrip("/")
        # inside a container the name is that of the host, and the files lie at the root
        for folder in (own, *own.parents, root):
            if folder.is_relative_to(root):
                found += _quota_of(folder)
    return found


def _quota_of(folder: Path) -> list[int]:
    words = [word for line in _lines(folder / "cpu.max") for word in line.split()]
    if not words:
        words = _lines(folder / "cpu.cfs_quota_us") + _lines(folder / "cpu.cfs_period_us")
    if len(words) != 2 or not all(word.isdigit() for word in words) or not int(words[1]):
        return []  # "max" and -1: no quota
    return [-(-int(words[0]) // int(words[1]))]


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
