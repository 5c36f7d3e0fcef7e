"""Processes that work for this one: no signal that stops a run reaches them, and they end when it ends."""

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)  # what asks a run to stop


def start(count: int, prepare: Callable[..., None] | None = None, *given) -> ProcessPoolExecutor:
    """A pool of spawned processes; submit to it under `held_signals`, which is when they start.

    Args:
        count: how many.
        prepare: called in each of them with `given` before its first work; importable by name.
        given: what pickle can hold.
    """
    spawn = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(count, mp_context=spawn, initializer=_begin, initargs=(prepare, given))


@contextlib.contextmanager
def held_signals() -> Iterator[None]:
    """A process that is started here never gets the signals that stop a run: the one that started it decides."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def naming_a_kill(count: int, what: str, key: str) -> Iterator[None]:
    """What is raised when a process of a pool was killed becomes one line.

    Args:
        count: of the processes.
        what: they do.
        key: of the config that sets their number.

    Raises:
        OSError: a process was killed; the others are ended.
    """
    try:
        yield
    except BrokenProcessPool as error:
        for worker in multiprocessing.active_children():
            worker.kill()  # the pool asks them by SIGTERM, which they do not get
        raise OSError(
            f"one of {count} {what} processes was killed, most often for lack of memory; set --config.{key} to fewer, "
            "and run the same command again: what is finished stays"
        ) from error


def _begin(prepare: Callable[..., None] | None, given: tuple) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if prepare is not None:
        prepare(*given)


def _end_with_parent() -> None:
    """Ends this process when its parent is gone, however that ended."""
    parent = multiprocessing.parent_process()
    assert parent is not None  # a spawned process has one
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)
