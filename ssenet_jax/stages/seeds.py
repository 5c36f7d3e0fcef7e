"""CRF seeds: where two dense CRFs, one generous with the foreground and one strict, agree on a class or background.

pydensecrf holds the interpreter's lock, so images are worked on in spawned processes. This module is imported by them
and brings in neither flax nor the input pipeline, nor jax unless `refine_batch` is called.
"""

import functools
import multiprocessing
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from ssenet_jax.artifacts import write_arrays
from ssenet_jax.crf import dense_crf


def refine(image: np.ndarray, cam: np.ndarray, alphas: Iterable[float], options: Mapping[str, Any]) -> list[np.ndarray]:
    """Dense CRFs of one image's CAM against a background of (1 - max) ** alpha.

    Args:
        image: (h, w, 3) uint8.
        cam: (h, w, m) in [0, 1], the present classes.
        alphas: a large alpha leaves little to the background.
        options: keywords of ``dense_crf``.

    Returns:
        For each alpha (h, w, m + 1) marginals, background first.
    """
    cam = cam.astype(np.float32)
    # numpy and not cam.add_background_power: a worker process must not open the accelerator
    background = np.maximum(1 - cam.max(axis=-1, keepdims=True), 0)
    return [dense_crf(image, np.concatenate([background**alpha, cam], axis=-1), **options) for alpha in alphas]


def refine_batch(images, cams, sizes, present, alphas: Iterable[float], options: Mapping[str, Any]):
    """`refine` of a padded batch on the accelerator.

    Args:
        images: (n, h, w, 3) uint8.
        cams: (n, h, w, m) in [0, 1].
        sizes: (n, 2) valid heights and widths.
        present: (n, m) bool, the slots that hold a class.
        alphas: as in `refine`.
        options: keywords of ``crf.jax_backend.mean_field``.

    Returns:
        (n, h, w, a, m + 1) marginals, background first, 0 in slots that hold no class.
    """
    import jax.numpy as jnp  # here, for the worker processes

    from ssenet_jax.cam import add_background_power
    from ssenet_jax.crf import jax_backend

    widths = {name: options[name] for name in ("sxy_gaussian", "sxy_bilateral", "srgb")}
    kernels = jax_backend.kernels(images, sizes, **widths)
    compat = jnp.array([options["compat_gaussian"], options["compat_bilateral"]], jnp.float32)
    present = jnp.pad(present, ((0, 0), (1, 0)), constant_values=True)
    scores = [add_background_power(jnp.asarray(cams), alpha) for alpha in alphas]
    infer = functools.partial(jax_backend.infer, iterations=options["iterations"])
    return jnp.stack([infer(kernels, one, present, compat) for one in scores], axis=3)


def refine_to_file(
    path: Path, image: np.ndarray, cam: np.ndarray, classes: np.ndarray, alphas: tuple, options: dict
) -> None:
    """Writes the marginals of the low and the high alpha, as float16, and the classes they belong to."""
    low, high = refine(image, cam, alphas, options)
    write_arrays(path, low=low.astype(np.float16), high=high.astype(np.float16), classes=classes)


def in_processes(function: Callable, calls: Iterable[tuple], workers: int) -> None:
    """Calls ``function`` with each of a stream of argument tuples, in ``workers`` processes, a few ahead.

    Args:
        function: importable by name.
        calls: drawn as processes become free.
        workers: 0 takes one a processor; 1 stays in this process.
    """
    workers = workers or os.cpu_count() or 1
    if workers == 1:
        pool = ThreadPoolExecutor(1)
    else:
        pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))
    running: list[Future] = []
    with pool:
        for call in calls:
            running.append(pool.submit(function, *call))
            if len(running) >= 2 * workers:
                running.pop(0).result()
        for future in running:
            future.result()
