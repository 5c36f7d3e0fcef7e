"""Where what can be made again is kept between runs."""

import os
from pathlib import Path


def folder(*parts: str) -> Path:
    """A folder below ``ssenet_jax`` in the user's cache, which XDG_CACHE_HOME moves from ``~/.cache``; not made."""
    root = os.environ.get("XDG_CACHE_HOME", "") or "~/.cache"
    return Path(root, "ssenet_jax", *parts).expanduser()


def keep_compiled() -> None:
    """Keeps compiled programs, so that a run that goes on does not compile again what it had compiled.

    They lie below `folder`, or where JAX_COMPILATION_CACHE_DIR says; set to nothing it keeps none.
    """
    import jax  # here, for the processes that read photos

    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(folder("compiled")))
