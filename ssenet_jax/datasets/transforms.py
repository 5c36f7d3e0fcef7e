"""The augmentation of the three trainings: from a record and a generator to what a network learns from.

Every random choice comes from the generator passed in. A mask or score map follows its image.
"""

import functools
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageOps

from ssenet_jax.datasets.augment import (
    IGNORE,
    Mask,
    cut,
    flip_lr,
    long_edge_size,
    normalize,
    pad,
    random_window,
    resize_mask,
    resize_part,
)
from ssenet_jax.datasets.colour import colour_jitter

Transform = Callable[[dict, np.random.Generator], dict]


def classifier_transform(
    crop: int,
    *,
    long_edge: tuple[int, int],
    flip: bool,
    brightness: float,
    contrast: float,
    saturation: float,
    hue: float,
    brightness_shift: float,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
) -> Transform:
    """The classifier's augmentation: rescale, flip, colour jitter, normalise, crop.

    Args:
        crop: side of the square crop in pixels; what lies outside the image is 0 after normalisation.
        long_edge: bounds of the longer side in pixels, both included.
        flip: whether half of the images are mirrored.
        brightness, contrast, saturation, hue: see `colour_jitter`; 0 leaves one out.
        brightness_shift: bound of the number added to the normalised image, 0 for none.
        mean, std: of each channel, on the scale 0..255.

    Returns:
        A function of a record and a generator that gives "id", "image" (crop,crop,3) float32 and "labels".

    Raises:
        ValueError: a crop below 1 or bounds that are not 1 <= low <= high.
    """
    _check_crop(crop)
    low, high = long_edge
    if not 1 <= low <= high:
        raise ValueError(f"long_edge is {tuple(long_edge)}; expected two sizes in pixels, the smaller first")
    jitter = functools.partial(colour_jitter, brightness=brightness, contrast=contrast, saturation=saturation, hue=hue)

    def transform(record: dict, rng: np.random.Generator) -> dict:
        picture = Image.fromarray(record["image"])
        size = long_edge_size(picture.height, picture.width, int(rng.integers(low, high + 1)))
        window = random_window(rng, *size, crop)
        part = jitter(resize_part(picture, size, window), rng, whole=picture)
        part = ImageOps.mirror(part) if flip and rng.random() < 0.5 else part
        values = normalize(np.asarray(part), mean, std)
        if brightness_shift:
            values += np.float32(rng.uniform(-brightness_shift, brightness_shift))
        return {"id": record["id"], "image": pad(values, window, 0), "labels": record["labels"]}

    return transform


def affinity_transform(
    crop: int,
    *,
    flip: bool,
    brightness: float,
    contrast: float,
    saturation: float,
    hue: float,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    stride: int = 8,
) -> Transform:
    """AffinityNet's augmentation: flip, colour jitter, normalise, crop; no rescaling. The seeds follow the image.

    A record carries the seeds' score maps "low" and "high", (h,w,m+1) with the background first, and "classes", the m
    class indices of their other channels, the first class being 0.

    Args:
        crop: side of the square crop in pixels, a multiple of `stride`.
        flip, brightness, contrast, saturation, hue, mean, std: as for the classifier.
        stride: pixels that one cell of the affinity labels covers.

    Returns:
        A function of a record and a generator that gives "id", "image" (crop,crop,3) float32 and "seeds"
        (crop/stride,crop/stride) uint8: 0 background, 1.. the classes, 255 where the seeds do not tell.

    Raises:
        ValueError: a crop that is no multiple of the stride; score maps of another size than their image.
    """
    _check_crop(crop)
    if crop % stride:
        raise ValueError(f"the affinity crop is {crop} pixels; expected a multiple of {stride}")
    jitter = functools.partial(colour_jitter, brightness=brightness, contrast=contrast, saturation=saturation, hue=hue)

    def transform(record: dict, rng: np.random.Generator) -> dict:
        maps = record["image"], record["low"], record["high"]
        _check_sizes(record["id"], *maps)
        height, width = maps[0].shape[:2]
        window = random_window(rng, height, width, crop)
        image, low, high = (cut(array, window) for array in maps)
        part = jitter(Image.fromarray(image), rng, whole=Image.fromarray(maps[0]))
        if flip and rng.random() < 0.5:
            part, low, high = ImageOps.mirror(part), flip_lr(low), flip_lr(high)
        low, high = (_mean_pool(pad(scores, window, 0), stride) for scores in (low, high))
        return {
            "id": record["id"],
            "image": pad(normalize(np.asarray(part), mean, std), window, 0),
            "seeds": seed_labels(low, high, record["classes"]),
        }

    return transform


def seed_labels(low, high, classes) -> Mask:
    """What two seeds say together: a class where low says so, background where high says so (high wins), 255 else.

    Args:
        low: (h,w,m+1) scores at the low alpha, background first; all zero outside the image.
        high: the same at the high alpha.
        classes: (m,) class indices of the channels after the first, the first class being 0.

    Returns:
        (h,w) uint8: 0 background, 1.. the classes, 255 where neither tells.
    """
    numbers = np.concatenate([[IGNORE], np.asarray(classes, np.int64) + 1]).astype(np.uint8)
    labels = numbers[low.argmax(-1)]
    labels[high.argmax(-1) == 0] = 0
    labels[np.maximum(low.max(-1), high.max(-1)) < 1e-5] = IGNORE
    return labels


def _mean_pool(scores: np.ndarray, stride: int) -> np.ndarray:
    rows, columns = scores.shape[0] // stride, scores.shape[1] // stride
    return scores.reshape(rows, stride, columns, stride, -1).mean((1, 3), dtype=np.float32)


def segmenter_transform(
    crop: int,
    *,
    scale: tuple[float, float],
    flip: bool,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
) -> Transform:
    """DeepLab's augmentation: rescale, flip, normalise, crop. The mask follows, 255 outside the image.

    Args:
        crop: side of the square crop in pixels.
        scale: bounds of the factor on the image's size.
        flip: whether half of the images are mirrored.
        mean, std: of each channel, on the scale 0..255.

    Returns:
        A function of a record and a generator that gives "id", "image" (crop,crop,3) float32, "mask" (crop,crop) uint8.

    Raises:
        ValueError: bounds that are not 0 < low <= high; a record without a mask, or with one of another size.
    """
    _check_crop(crop)
    low, high = scale
    if not 0 < low <= high:
        raise ValueError(f"scale is {tuple(scale)}; expected two positive factors, the smaller first")

    def transform(record: dict, rng: np.random.Generator) -> dict:
        if "mask" not in record:
            raise ValueError(f"image {record['id']} has no mask to train on; make its pseudo label, or leave it out")
        image, mask = record["image"], record["mask"]
        _check_sizes(record["id"], image, mask)
        factor = rng.uniform(low, high)
        height, width = (max(1, round(length * factor)) for length in mask.shape)
        window = random_window(rng, height, width, crop)
        part = resize_part(Image.fromarray(image), (height, width), window)
        mask = cut(resize_mask(mask, (height, width)), window)
        if flip and rng.random() < 0.5:
            part, mask = ImageOps.mirror(part), flip_lr(mask)
        return {
            "id": record["id"],
            "image": pad(normalize(np.asarray(part), mean, std), window, 0),
            "mask": pad(mask, window, IGNORE),
        }

    return transform


def _check_crop(crop: int) -> None:
    if crop < 1:
        raise ValueError(f"the crop is {crop} pixels; expected at least 1")


def _check_sizes(image_id: str, image: np.ndarray, *maps: np.ndarray) -> None:
    for array in maps:
        if array.shape[:2] != image.shape[:2]:
            raise ValueError(
                f"image {image_id} is {image.shape[1]} x {image.shape[0]} pixels but its seed or mask is"
                f" {array.shape[1]} x {array.shape[0]}; run the stage that made it again"
            )
