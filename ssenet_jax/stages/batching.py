"""Images of every size as batches of a few shapes: padded, read ahead, computed, finished in threads.

A padded image gives inside its valid area what the image alone would give (``sizes`` of the models), so one compilation
serves every image of a bucket.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import jax
import numpy as np

from ssenet_jax.training.sharding import make_mesh, over_batch, replicated

SLOTS = 4  # classes an image is computed for at once come in multiples of this, each with a compilation of its own
WORKERS = 4  # threads that read, and threads that write: enough for a fast device, and idle threads cost nothing

Group = tuple[tuple[int, int], list[Mapping]]  # the padded height and width, and the records of that size


class Photos(NamedTuple):
    """A batch of images of one bucket, zero-padded at the bottom and the right; all else is the device's work."""

    images: np.ndarray | jax.Array  # (n, h, w, 3) uint8
    sizes: np.ndarray | jax.Array  # (n, 2) int32, the valid heights and widths


def batch_of(batch_size: int, *, on_cpu: bool | None = None) -> int:
    """Images in one call: so many, or for 0 what suits the device.

    A CPU is as fast with one as with several, which only take more memory.

    Args:
        batch_size: of the config's section ``inference``.
        on_cpu: what the device is; None: that which JAX computes on.
    """
    on_cpu = jax.default_backend() == "cpu" if on_cpu is None else on_cpu
    return batch_size or (1 if on_cpu else 4)


def bucket_of(height: int, width: int, multiple: int) -> tuple[int, int]:
    """The padded shape that an image of this size is computed in."""
    return -(-height // multiple) * multiple, -(-width // multiple) * multiple


def by_bucket(records: Iterable[Mapping], batch_size: int, multiple: int) -> Iterator[Group]:
    """Groups a stream of records by bucket; holds back less than a batch of each."""
    waiting: dict[tuple[int, int], list[Mapping]] = {}
    for record in records:
        height, width = record["image"].shape[:2]
        canvas = bucket_of(height, width, multiple)
        group = waiting.setdefault(canvas, [])
        group.append(record)
        if len(group) == batch_size:
            yield canvas, waiting.pop(canvas)
    yield from waiting.items()


def padded_images(images: Sequence[np.ndarray], canvas: tuple[int, int], rows: int) -> Photos:
    """Pads a batch of images (h, w, 3); its last image fills the rows that are left over."""
    padded, sizes = np.zeros((rows, *canvas, 3), np.uint8), np.zeros((rows, 2), np.int32)
    for row, image in enumerate([*images, *[images[-1]] * (rows - len(images))]):
        padded[row, : image.shape[0], : image.shape[1]] = image
        sizes[row] = image.shape[:2]
    return Photos(padded, sizes)


def class_slots(labels: Sequence[np.ndarray], rows: int) -> tuple[np.ndarray, np.ndarray]:
    """The present classes of each image in slots: indices (n, m) int32 and a float32 mask (n, m)."""
    present = [np.flatnonzero(label) for label in labels]
    slots = _slots(max(len(classes) for classes in present))
    classes, mask = np.zeros((rows, slots), np.int32), np.zeros((rows, slots), np.float32)
    for row, indices in enumerate(present):
        classes[row, : len(indices)] = indices
        mask[row, : len(indices)] = 1
    return classes, mask


def padded_cams(cams: Sequence[np.ndarray], canvas: tuple[int, int], rows: int) -> np.ndarray:
    """CAMs (h, w, m) of different images in one zero-padded array (n, h, w, slots)."""
    slots = _slots(max(cam.shape[-1] for cam in cams))
    batch = np.zeros((rows, *canvas, slots), np.float16)
    for row, cam in enumerate(cams):
        height, width, classes = cam.shape
        batch[row, :height, :width, :classes] = cam
    return batch


def photos_and_classes(records: Sequence[Mapping], canvas: tuple[int, int], rows: int) -> tuple:
    """What a CAM is made of, for `run`: the photos, and `class_slots` of their labels."""
    photos = padded_images([record["image"] for record in records], canvas, rows)
    return photos, *class_slots([record["labels"] for record in records], rows)


def photos_and_cams(records: Sequence[Mapping], canvas: tuple[int, int], rows: int) -> tuple:
    """What a walk is made of, for `run`: the photos and their CAMs, a record's "cam"."""
    photos = padded_images([record["image"] for record in records], canvas, rows)
    return photos, padded_cams([record["cam"].maps for record in records], canvas, rows)


def _slots(classes: int) -> int:
    return max(1, -(-classes // SLOTS)) * SLOTS


def run(
    records: Iterable[Mapping],
    prepare: Callable[[list[Mapping], tuple[int, int], int], tuple],
    function: Callable,
    variables: Mapping,
    finish: Callable[[Mapping, np.ndarray], None],
    *,
    batch_size: int,
    bucket: int,
) -> None:
    """Streams records through a network: a batch is made ready, one computed and one finished at any time.

    Args:
        records: what a source gives, drawn in a thread.
        prepare: (records, canvas, rows) -> arrays with a leading batch axis of ``rows``.
        function: (variables, *arrays) -> an array with that leading axis; one of those built in `inference`.
        variables: of the network.
        finish: takes a record and its row; writes the result. Called in threads.
        batch_size: rounded up to a whole number per local device.
        bucket: sides are padded to multiples of this.
    """
    mesh = make_mesh(devices=jax.local_devices())
    rows = -(-batch_size // mesh.size) * mesh.size
    variables = jax.device_put(variables, replicated(mesh))
    with ThreadPoolExecutor(1) as preparer, ThreadPoolExecutor(WORKERS) as writers:

        def prepared(group):
            canvas, batch = group
            return batch, jax.device_put(prepare(batch, canvas, rows), over_batch(mesh))

        pending: list[Future] = []
        computed = None
        for batch, arrays in _ahead(prepared, by_bucket(records, rows, bucket), preparer):
            result = function(variables, *arrays)
            if computed is not None:
                pending = _finish(computed, finish, writers, pending)
            computed = batch, result
        if computed is not None:
            pending = _finish(computed, finish, writers, pending)
        for future in pending:
            future.result()


def read_ahead(read: Callable, items: Iterable) -> Iterator:
    """Maps in threads, in order, a few items ahead: files that are read and decoded beside each other."""
    waiting: deque[Future] = deque()
    with ThreadPoolExecutor(WORKERS) as readers:
        try:
            for item in items:
                waiting.append(readers.submit(read, item))
                if len(waiting) > 2 * WORKERS:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _ahead(function: Callable, items: Iterator, pool: ThreadPoolExecutor) -> Iterator:
    """Maps in a thread that is one item ahead; the items are drawn in that thread too."""
    end = object()

    def step():
        item = next(items, end)
        return end if item is end else function(item)

    items = iter(items)
    future = pool.submit(step)
    while (value := future.result()) is not end:
        future = pool.submit(step)
        yield value


def _finish(computed: tuple, finish: Callable, writer: ThreadPoolExecutor, pending: list[Future]) -> list[Future]:
    for future in pending:
        future.result()
    batch, result = computed
    rows = jax.device_get(result)
    return [writer.submit(finish, record, row) for record, row in zip(batch, rows, strict=False)]
