"""Huge memory pages for XLA's buffers on a CPU.

XLA gives its large buffers back after every call and gets them anew, page by page: a fifth to a quarter of a training
step on a CPU. glibc asks for huge pages where GLIBC_TUNABLES says so, which it reads before a process starts.
"""

import os
import platform
import sys
from pathlib import Path

TUNABLES = "glibc.malloc.hugetlb=1"
_KERNEL = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def start_with() -> None:
    """Replaces this process by itself with huge pages asked for.

    It does nothing where GLIBC_TUNABLES is set already, and where the kernel gives huge pages to all who do not ask or
    to none.
    """
    if "GLIBC_TUNABLES" in os.environ or not sys.executable or platform.libc_ver()[0] != "glibc":
        return
    try:
        on_request = "[madvise]" in _KERNEL.read_text()
    except OSError:
        return
    if on_request:
        words = [sys.executable, *sys.orig_argv[1:]]
        os.execve(sys.executable, words, {**os.environ, "GLIBC_TUNABLES": TUNABLES})
