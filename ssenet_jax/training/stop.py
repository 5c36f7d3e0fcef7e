"""Signals that ask a run to stop: they set a flag, which is looked at where nothing is left half done.

An exception raised in a handler would surface in whatever code runs, and be taken for a fault of what that code reads.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator

from ssenet_jax.processes import SIGNALS

_came: list[int] = []


class Preempted(Exception):
    """The run was told to stop, and has saved what it needs to go on."""


@contextlib.contextmanager
def listening() -> Iterator[None]:
    """While this lasts SIGTERM, SIGINT and SIGHUP set the flag; a second SIGINT ends the process at once, with 130.

    A signal that is ignored, as SIGHUP is under nohup, stays ignored. Outside the main thread nothing is listened to.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, _note) for number in heard}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        _came.clear()


def _note(number, frame):
    if number == signal.SIGINT and signal.SIGINT in _came:
        end_at_once("stopped at once; run the same command again to go on")
    _came.append(number)


def end_at_once(line: str) -> None:
    """Ends the process from wherever it is, with a line on standard error and the code of the signal that came."""
    with contextlib.suppress(OSError):
        os.write(2, f"ssenet: {line}\n".encode())
    os._exit(exit_code())


def requested() -> bool:
    """Whether this process was told to stop."""
    return bool(_came)


def exit_code() -> int:
    """Of a run that was stopped and can be continued: 130 after Ctrl-C, else 0, as a scheduler expects it."""
    return 130 if signal.SIGINT in _came else 0
