"""The steps of augmentation in numpy and Pillow, HWC; `transforms` makes those of the three trainings of them.

Every random choice comes from the generator passed in. A mask or score map follows its image.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image

Rgb = UInt8[np.ndarray, "h w 3"]
Mask = UInt8[np.ndarray, "h w"]
Normalised = Float32[np.ndarray, "h w 3"]

IGNORE = 255


def resize_image(image: Rgb, size: tuple[int, int]) -> Rgb:
    """Resizes with Pillow's bicubic filter, which antialiases when it shrinks.

    Args:
        image: (h,w,3) uint8.
        size: the new height and width.
    """
    if image.shape[:2] == tuple(size):
        return image
    return np.asarray(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BICUBIC))


def resize_mask(mask: Mask, size: tuple[int, int]) -> Mask:
    """Resizes class numbers to a height and width by the nearest pixel."""
    if mask.shape == tuple(size):
        return mask
    return np.asarray(Image.fromarray(mask).resize((size[1], size[0]), Image.Resampling.NEAREST))


def normalize(image: Rgb, mean: tuple[float, float, float], std: tuple[float, float, float]) -> Normalised:
    """(image - mean) / std for each channel; mean and std are on the scale 0..255."""
    height, width, channels = image.shape
    scale = np.tile(1 / np.asarray(std, np.float32), width)  # a whole row at a time: numpy is slow over an axis of 3
    shift = np.tile(np.asarray(mean, np.float32), width) * scale
    result = image.reshape(height, width * channels) * scale[None]
    result -= shift[None]
    return result.reshape(image.shape)


def centre_crop(image: Rgb, crop: int, mean: tuple[float, float, float], std: tuple[float, float, float]) -> Normalised:
    """The middle square of an image, normalised, its shorter side brought to `crop` pixels."""
    height, width = image.shape[:2]
    scale = crop / min(height, width)
    size = max(crop, round(height * scale)), max(crop, round(width * scale))
    top, left = ((side - crop) // 2 for side in size)
    return normalize(resize_image(image, size)[top : top + crop, left : left + crop], mean, std)


def long_edge_size(height: int, width: int, long_edge: int) -> tuple[int, int]:
    """The size of the same aspect ratio whose longer side is `long_edge`; no side is below 1 pixel."""
    scale = long_edge / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


class Window(NamedTuple):
    """A crop of fixed size: the part taken from the image, and the corner in the crop where it lands."""

    top: int
    left: int
    height: int
    width: int
    pad_top: int
    pad_left: int
    crop: int


def random_window(rng: np.random.Generator, height: int, width: int, crop: int) -> Window:
    """A random square of `crop` pixels; along a side that is shorter, the image lands at a random place in it."""
    top, pad_top = _random_offset(rng, height, crop)
    left, pad_left = _random_offset(rng, width, crop)
    return Window(top, left, min(height, crop), min(width, crop), pad_top, pad_left, crop)


def _random_offset(rng: np.random.Generator, length: int, crop: int) -> tuple[int, int]:
    spare = length - crop
    place = int(rng.integers(abs(spare) + 1))
    return (place, 0) if spare > 0 else (0, place)


def cut(array: np.ndarray, window: Window) -> np.ndarray:
    """The part of (h,w,...) that the window takes; no padding."""
    return array[window.top : window.top + window.height, window.left : window.left + window.width]


def resize_part(picture: Image.Image, size: tuple[int, int], window: Window) -> Image.Image:
    """What `cut` takes of the resized picture, at most a level apart; only that part of it is computed."""
    width, height = picture.size
    new_height, new_width = size
    left, right = (min(edge * width / new_width, width) for edge in (window.left, window.left + window.width))
    top, bottom = (min(edge * height / new_height, height) for edge in (window.top, window.top + window.height))
    return picture.resize((window.width, window.height), Image.Resampling.BICUBIC, box=(left, top, right, bottom))


def pad(part: np.ndarray, window: Window, fill: float) -> np.ndarray:
    """Lays what `cut` took into the full crop, (crop,crop,...), the rest being `fill`."""
    if part.shape[:2] == (window.crop, window.crop):
        return np.ascontiguousarray(part)
    canvas = np.full((window.crop, window.crop, *part.shape[2:]), fill, part.dtype)
    canvas[window.pad_top : window.pad_top + window.height, window.pad_left : window.pad_left + window.width] = part
    return canvas


def flip_lr(array: np.ndarray) -> np.ndarray:
    """Mirrors (h,w,...) left to right."""
    return array[:, ::-1]
