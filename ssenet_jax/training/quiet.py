"""Keeps orbax's threads from printing what its next call raises anyway: hundreds of lines for a full disk."""

import functools
import logging
import sys
import threading
import warnings


@functools.cache
def hush_orbax() -> None:
    """Holds from here on, because orbax's threads outlive its calls; what other threads raise is printed as before."""
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # absl's logger asks no filter
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
    thread_hook, unraisable_hook = threading.excepthook, sys.unraisablehook

    def in_thread(arguments):
        if not type(arguments.thread).__module__.startswith("orbax."):
            thread_hook(arguments)

    def unraisable(arguments):
        # loops that could not be opened, and tensorstore's threads that call back into one that is closed by then
        if "EventLoop" not in repr(arguments.object) and "Event loop is closed" not in str(arguments.exc_value):
            unraisable_hook(arguments)

    threading.excepthook, sys.unraisablehook = in_thread, unraisable
