"""Dense CRFs of scores against a background, as seeds and as labels, in processes or on the accelerator.

pydensecrf holds the interpreter's lock, so images are worked on in spawned processes. This module is imported by them
and brings in neither flax nor the input pipeline, nor jax unless `refine_batch` is called.
"""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ssenet_jax import cores, processes
from ssenet_jax.artifacts import Cam, write_arrays, write_mask
from ssenet_jax.crf import dense_crf
from ssenet_jax.datasets.augment import resize_mask


class Background(NamedTuple):
    """The score of the background.

    Attributes:
        kind: "constant": alpha itself; "power": (1 - the largest score) ** alpha.
        alpha: 0 to 1 where constant, above 0 for a power.
    """

    kind: str
    alpha: float

    def before(self, scores: np.ndarray) -> np.ndarray:
        """Puts the background in front of the scores (h, w, m) of the classes: (h, w, m + 1) float32.

        numpy and not `cam`: a worker process must not open the accelerator.
        """
        scores = scores.astype(np.float32)
        best = scores.max(axis=-1, keepdims=True, initial=0.0)
        constant = np.full_like(best, self.alpha)
        background = constant if self.kind == "constant" else np.maximum(1 - best, 0) ** self.alpha
        return np.concatenate([background, scores], axis=-1)


def refine(
    image: np.ndarray, scores: np.ndarray, backgrounds: Iterable[Background], options: Mapping[str, Any]
) -> list[np.ndarray]:
    """Dense CRFs of one image's scores, one for each background.

    Args:
        image: (h, w, 3) uint8.
        scores: (h, w, m) in [0, 1], the present classes.
        backgrounds: see `Background`.
        options: keywords of ``dense_crf``.

    Returns:
        For each background (h, w, m + 1) marginals, background first.
    """
    if not scores.shape[-1]:
        return [np.ones((*scores.shape[:2], 1), np.float32) for _ in backgrounds]
    return [dense_crf(image, background.before(scores), **options) for background in backgrounds]


def refine_batch(photos, scores, present, backgrounds: Sequence[Background], options: Mapping[str, Any]):
    """`refine` of a padded batch on the accelerator.

    Args:
        photos: images (n, h, w, 3) uint8 and valid heights and widths (n, 2).
        scores: (n, h, w, m) in [0, 1].
        present: (n, m) bool, the slots that hold a class.
        backgrounds: as in `refine`.
        options: keywords of ``crf.jax_backend.mean_field``.

    Returns:
        (n, b, h, w, m + 1) float16 marginals as `on_grid` rounds them, background first, 0 in slots without a class.
    """
    import jax.numpy as jnp  # here, for the worker processes

    from ssenet_jax.cam import add_background, add_background_power
    from ssenet_jax.crf import jax_backend

    widths = {name: options[name] for name in ("sxy_gaussian", "sxy_bilateral", "srgb")}
    kernels = jax_backend.kernels(*photos, **widths)
    compat = jnp.array([options["compat_gaussian"], options["compat_bilateral"]], jnp.float32)
    present = jnp.pad(present, ((0, 0), (1, 0)), constant_values=True)
    add = {"constant": add_background, "power": add_background_power}
    scores = jnp.asarray(scores, jnp.float32)
    each = [add[background.kind](scores, background.alpha) for background in backgrounds]
    infer = functools.partial(jax_backend.infer, iterations=options["iterations"])
    marginals = jnp.stack([infer(kernels, one, present, compat) for one in each], axis=1)
    return on_grid(marginals, jnp)


def on_grid(marginals, xp=np):
    """Marginals as float16 multiples of 1/2048, its step below 1: the many near 0 lose digits that no one reads.

    Args:
        marginals: in [0, 1].
        xp: numpy or jax.numpy, whichever they are arrays of.
    """
    return (xp.rint(marginals * 2048) / 2048).astype(xp.float16)


def write_seeds(path: Path, marginals: Sequence[np.ndarray], classes: np.ndarray, size: tuple[int, int]) -> None:
    """Writes the marginals of the low and the high alpha, on a grid in float16, and the classes they belong to."""
    low, high = (on_grid(maps) for maps in marginals)
    write_arrays(path, low=low, high=high, classes=classes)


def write_labels(path: Path, marginals: Sequence[np.ndarray], classes: np.ndarray, size: tuple[int, int]) -> None:
    """Writes the label map of one image's marginals, or other scores with the background first, at a height and width.

    Args:
        path: of the PNG.
        marginals: one array (h, w, m + 1).
        classes: (m,) class indices, the first class being 0.
        size: height and width of the label map.
    """
    (scores,) = marginals
    write_mask(path, resize_mask(Cam(scores, classes).labels_of(scores.argmax(-1)), size))


def write_label_stack(path: Path, marginals: Sequence[np.ndarray], classes: np.ndarray, size: tuple[int, int]) -> None:
    """Writes the label maps of several marginals of one image, (b, h, w) uint8 at the marginals' own size."""
    write_arrays(path, labels=np.stack([Cam(maps, classes).labels_of(maps.argmax(-1)) for maps in marginals]))


def refine_to_file(write: Callable, path: Path, record: Mapping, backgrounds: tuple, options: Mapping) -> None:
    """Refines a record's "cam" on its "image" and writes the marginals by `write_seeds` or `write_labels`."""
    scores, classes = record["cam"]
    write(path, refine(record["image"], scores, backgrounds, options), classes, record["size"])


def in_processes(function: Callable, calls: Iterable[tuple], workers: int) -> None:
    """Calls ``function`` with each of a stream of argument tuples, in ``workers`` processes, a few ahead.

    Args:
        function: importable by name.
        calls: drawn as processes become free.
        workers: 0 takes one for each core of this process; 1 stays in this process.

    Raises:
        OSError: a process was killed.
    """
    workers = workers or cores.available()
    pool: Executor = ThreadPoolExecutor(1) if workers == 1 else processes.start(workers)
    running: list[Future] = []
    try:
        with processes.naming_a_kill(workers, "CRF", "crf.workers"):
            for call in calls:
                with processes.held_signals():
                    running.append(pool.submit(function, *call))
                if len(running) >= 2 * workers:
                    running.pop(0).result()
            for future in running:
                future.result()
    finally:
        pool.shutdown(cancel_futures=True)
