"""CRF seeds: where two dense CRFs, one generous with the foreground and one strict, agree on a class or on the background.

pydensecrf holds the interpreter's lock, so images are worked on in spawned processes. This module is imported by them and
brings in neither flax nor the input pipeline.
"""

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


def refine_to_file(path: Path, image: np.ndarray, cam: np.ndarray, classes: np.ndarray, alphas: tuple, options: dict) -> None:
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
