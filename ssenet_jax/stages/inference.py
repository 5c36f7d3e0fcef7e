"""Networks applied to images of every size: padded to a few shapes, all scales and mirror images in one compiled call.

A padded image gives inside its valid area what the image alone would give (``sizes`` of the models), so one compilation
serves every image of a bucket.
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ssenet_jax.cam import add_background, add_background_power, fuse_scales
from ssenet_jax.datasets.augment import normalize, resize_image
from ssenet_jax.equivariance import resize_valid
from ssenet_jax.models import AFFINITY_STRIDE, BACKBONES, output_size
from ssenet_jax.random_walk import random_walk, transition
from ssenet_jax.training.sharding import make_mesh, over_batch, replicated

CLASS_SLOTS = 4  # classes an image is computed for at once; images with more get a compilation of their own


class Views(NamedTuple):
    """A batch of images of one bucket at several scales, zero-padded at the bottom and the right."""

    images: tuple[np.ndarray, ...]  # per scale (n, h, w, 3), normalised
    sizes: tuple[np.ndarray, ...]  # per scale (n, 2), the valid heights and widths
    original: np.ndarray  # (n, 2)


def bucket_of(height: int, width: int, multiple: int) -> tuple[int, int]:
    """The padded shape that an image of this size is computed in."""
    return -(-height // multiple) * multiple, -(-width // multiple) * multiple


def by_bucket(records: Iterable[dict], batch_size: int, multiple: int) -> Iterator[tuple[tuple[int, int], list[dict]]]:
    """Groups a stream of records by bucket; holds back less than a batch of each."""
    waiting: dict[tuple[int, int], list[dict]] = {}
    for record in records:
        canvas = bucket_of(*record["image"].shape[:2], multiple)
        group = waiting.setdefault(canvas, [])
        group.append(record)
        if len(group) == batch_size:
            yield canvas, waiting.pop(canvas)
    yield from waiting.items()


def views(
    images: Sequence[np.ndarray], canvas: tuple[int, int], scales: Sequence[float], backbone: str, rows: int
) -> Views:
    """Resizes (bicubic), normalises and pads a batch; its last image fills the rows that are left over."""
    mean, std = BACKBONES[backbone].mean, BACKBONES[backbone].std
    images = [*images, *[images[-1]] * (rows - len(images))]
    padded, sizes = [], []
    for scale in scales:
        batch = np.zeros((rows, *(int(np.ceil(side * scale)) for side in canvas), 3), np.float32)
        size = np.zeros((rows, 2), np.int32)
        for row, image in enumerate(images):
            height, width = (max(1, round(side * scale)) for side in image.shape[:2])
            batch[row, :height, :width] = normalize(resize_image(image, (height, width)), mean, std)
            size[row] = height, width
        padded.append(batch)
        sizes.append(size)
    return Views(tuple(padded), tuple(sizes), np.array([image.shape[:2] for image in images], np.int32))


def flip_valid(x: Float[Array, "n h w c"], widths: Int[Array, "n"]) -> Float[Array, "n h w c"]:
    """Mirrors the valid columns of each image and leaves its padding where it is."""
    columns = jnp.arange(x.shape[2], dtype=jnp.int32)[None]
    source = jnp.where(columns < widths[:, None], widths[:, None] - 1 - columns, columns)
    return jnp.take_along_axis(x, source[:, None, :, None], axis=2)


def _multi_scale(network: Callable, batch: Views, canvas: tuple[int, int], stride_sizes: Callable, flip: bool) -> Array:
    """The sum over scales and mirror images of ``network``'s maps, each brought to its image's size."""
    total = 0.0
    for images, sizes in zip(batch.images, batch.sizes, strict=True):
        maps_size = stride_sizes(sizes)
        if flip:
            both = jnp.concatenate([images, flip_valid(images, sizes[:, 1])])
            maps, mirrored = jnp.split(network(both, jnp.concatenate([sizes, sizes])), 2)
            maps = maps + flip_valid(mirrored, maps_size[:, 1])
        else:
            maps = network(images, sizes)
        total = total + resize_valid(maps, maps_size, batch.original, canvas)
    return total


@functools.cache  # the classifiers with and without the second branch share the compiled programs
def cam_function(model: Any, *, scales: tuple[float, ...], flip: bool) -> Callable:
    """Builds the fused multi-scale CAM of a batch of records (METHOD: CAM inference).

    Returns:
        ``f(variables, batch, classes, present, canvas)`` -> (n, h, w, m) in [0, 1], for the m classes that
        ``classes (n, m)`` names for each image; slots with ``present`` 0 are zero.
    """

    def fused(variables, batch, classes, present, canvas):
        def network(images, sizes):
            cam, _ = model.apply(variables, images, sizes=sizes)
            repeats = images.shape[0] // classes.shape[0]
            wanted = jnp.tile(classes, (repeats, 1))[:, None, None]
            cam = jnp.take_along_axis(cam.astype(jnp.float32), wanted, axis=3)
            # the authors' network enlarges the map to its own input before the relu
            return jax.nn.relu(resize_valid(cam, output_size(sizes, model.backbone), sizes, images.shape[1:3]))

        cams = _multi_scale(network, batch, canvas, lambda sizes: sizes, flip)
        return fuse_scales((cams * present[:, None, None])[None])

    return jax.jit(fused, static_argnames="canvas")


def walk_function(
    model: Any, *, background: str, alpha: float, radius: int, beta: float, steps: int, border: str, method: str
) -> Callable:
    """Builds the random walk on the CAMs of a batch.

    Returns:
        ``f(variables, batch, cams, canvas)`` -> (n, h, w) uint8: 0 for background, j + 1 for the class in slot j.
    """
    if background not in ("constant", "power"):
        raise ValueError(f"random_walk.background is {background!r}; it must be 'constant' or 'power'")
    with_background = add_background if background == "constant" else add_background_power

    def propagate(variables, batch, cams, canvas):
        (images,), (sizes,) = batch.images, batch.sizes
        features, _ = model.apply(variables, images, sizes=sizes)
        cells = -(-sizes // AFFINITY_STRIDE)
        scores = _pool(_zero_outside(with_background(cams, alpha), sizes), AFFINITY_STRIDE)

        def one(features, scores, size):
            walk = transition(features, radius=radius, beta=beta, border=border, size=size)
            return random_walk(scores, walk, steps=steps, method=method)

        walked = jax.vmap(one)(features.astype(jnp.float32), scores, cells)
        full = resize_valid(walked, cells, cells * AFFINITY_STRIDE, canvas)
        return jnp.argmax(full, axis=-1).astype(jnp.uint8)

    return jax.jit(propagate, static_argnames="canvas")


def segmenter_function(model: Any, *, scales: Sequence[float], flip: bool) -> Callable:
    """Builds the multi-scale prediction: ``f(variables, batch, canvas)`` -> (n, h, w, k) class probabilities."""
    views_per_image = len(scales) * (2 if flip else 1)

    def probabilities(variables, batch, canvas):
        def network(images, sizes):
            return model.apply(variables, images, sizes=sizes)[0].astype(jnp.float32)

        logits = _multi_scale(network, batch, canvas, lambda sizes: output_size(sizes, model.backbone), flip)
        return jax.nn.softmax(logits / views_per_image)

    return jax.jit(probabilities, static_argnames="canvas")


def class_slots(labels: Sequence[np.ndarray], rows: int) -> tuple[np.ndarray, np.ndarray]:
    """The present classes of each image in slots: indices (n, m) int32 and a float32 mask (n, m)."""
    present = [np.flatnonzero(label) for label in labels]
    most = max(len(classes) for classes in present)
    slots = CLASS_SLOTS if most <= CLASS_SLOTS else len(labels[0])
    slots = min(slots, len(labels[0]))
    classes, mask = np.zeros((rows, slots), np.int32), np.zeros((rows, slots), np.float32)
    for row, indices in enumerate(present):
        classes[row, : len(indices)] = indices
        mask[row, : len(indices)] = 1
    return classes, mask


def padded_images(images: Sequence[np.ndarray], canvas: tuple[int, int], rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Images (h, w, 3) of different sizes in one zero-padded array (n, h, w, 3), and their sizes (n, 2)."""
    batch, sizes = np.zeros((rows, *canvas, 3), np.uint8), np.tile(np.int32([canvas]), (rows, 1))
    for row, image in enumerate(images):
        batch[row, : image.shape[0], : image.shape[1]] = image
        sizes[row] = image.shape[:2]
    return batch, sizes


def padded_cams(cams: Sequence[np.ndarray], canvas: tuple[int, int], rows: int) -> np.ndarray:
    """CAMs (h, w, m) of different images in one zero-padded array (n, h, w, slots)."""
    most = max(cam.shape[-1] for cam in cams)
    slots = CLASS_SLOTS if most <= CLASS_SLOTS else -(-most // 16) * 16
    batch = np.zeros((rows, *canvas, slots), np.float32)
    for row, cam in enumerate(cams):
        height, width, classes = cam.shape
        batch[row, :height, :width, :classes] = cam
    return batch


def run(
    records: Iterable[dict],
    prepare: Callable[[list[dict], tuple[int, int], int], tuple],
    function: Callable,
    variables: dict,
    finish: Callable[[dict, np.ndarray], None],
    *,
    batch_size: int,
    bucket: int,
) -> None:
    """Streams records through a network: read ahead, computed in batches of one bucket, finished in threads.

    Args:
        records: what a source gives, read in a thread.
        prepare: (records, canvas, rows) -> arrays with a leading batch axis of ``rows``.
        function: (variables, *arrays, canvas=...) -> an array with that leading axis; one of those built above.
        variables: of the network.
        finish: takes a record and its row; writes the result.
        batch_size: rounded up to a whole number per local device.
        bucket: sides are padded to multiples of this.
    """
    mesh = make_mesh(devices=jax.local_devices())
    rows = -(-batch_size // mesh.size) * mesh.size
    variables = jax.device_put(variables, replicated(mesh))
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(2) as writer:

        def prepared(group):
            canvas, batch = group
            return batch, canvas, prepare(batch, canvas, rows)

        pending: list[Future] = []
        computed = None
        for batch, canvas, arrays in _ahead(prepared, by_bucket(records, rows, bucket), reader):
            result = function(variables, *jax.device_put(arrays, over_batch(mesh)), canvas=canvas)
            if computed is not None:
                pending = _finish(computed, finish, writer, pending)
            computed = batch, result
        if computed is not None:
            pending = _finish(computed, finish, writer, pending)
        for future in pending:
            future.result()


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
    rows = np.asarray(result)
    return [writer.submit(finish, record, row) for record, row in zip(batch, rows, strict=False)]


def _zero_outside(x: Array, sizes: Array) -> Array:
    inside_rows = jnp.arange(x.shape[1])[None] < sizes[:, :1]
    inside_columns = jnp.arange(x.shape[2])[None] < sizes[:, 1:]
    return jnp.where((inside_rows[:, :, None] & inside_columns[:, None, :])[..., None], x, 0)


def _pool(x: Array, stride: int) -> Array:
    n, h, w, k = x.shape
    return x.reshape(n, h // stride, stride, w // stride, stride, k).mean((2, 4))
