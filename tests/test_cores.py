"""The cores that a process may use: its affinity, and the quotas of the cgroups that it lies in."""

import os

import pytest

from ssenet_jax import cores

FILES = {  # what the kernel shows -> the cores of a process whose affinity allows 8
    "no cgroup": ({}, 8),
    "no quota": ({"cpu.max": "max 100000\n"}, 8),
    "two cores": ({"cpu.max": "200000 100000\n"}, 2),
    "half a core": ({"cpu.max": "50000 100000\n"}, 1),
    "one and a half": ({"cpu.max": "150000 100000\n"}, 2),
    "more than the affinity": ({"cpu.max": "6400000 100000\n"}, 8),
    "of the group above": ({"cpu.max": "300000 100000\n", "pod/a/cpu.max": "max 100000\n"}, 3),
    "of a group between": ({"pod/cpu.max": "300000 100000\n", "pod/a/cpu.max": "400000 100000\n"}, 3),
    "version 1": ({"cpu/cpu.cfs_quota_us": "250000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
    "version 1 without": ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8),
    "damaged": ({"cpu.max": "\n"}, 8),
    "a period of none": ({"cpu.max": "100000 0\n"}, 8),
}


@pytest.mark.parametrize("name", FILES)
def test_the_quota_cuts_the_affinity(tmp_path, monkeypatch, name):
    files, expected = FILES[name]
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    own = ["0::/pod/a", "3:cpu:/kubepods/b", "4:memory:/kubepods/b"]
    read = cores._lines
    monkeypatch.setattr(cores, "_lines", lambda path: own if str(path) == "/proc/self/cgroup" else read(path))
    monkeypatch.setattr(cores, "_CGROUPS", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert cores.available() == expected


def test_here_there_is_at_least_one():
    assert 1 <= cores.available() <= os.cpu_count()
