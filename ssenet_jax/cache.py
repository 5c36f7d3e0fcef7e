"""Where what can be made again is kept between runs."""

import os
from pathlib import Path


def folder(*parts: str) -> Path:
    """A folder below ``ssenet_jax`` in the user's cache, which XDG_CACHE_HOME moves from ``~/.cache``; not made."""
    root = os.environ.get("XDG_CACHE_HOME", "") or "~/.cache"
    return Path(root, "ssenet_jax", *parts).expanduser()
