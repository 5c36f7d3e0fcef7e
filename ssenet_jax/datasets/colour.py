"""Colour jitter of an 8-bit image, on Pillow's own loops."""

import functools

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageFilter

Rgb = UInt8[np.ndarray, "h w 3"]
SMALLER = 8  # the side of a whole image, by as much, is enough for its mean grey
GRID = 17  # colours a side of a hue's table: 16 levels apart


def colour_jitter(
    image: Rgb,
    rng: np.random.Generator,
    *,
    brightness: float,
    contrast: float,
    saturation: float,
    hue: float,
    whole: Rgb | None = None,
) -> Rgb:
    """Changes brightness, contrast, saturation and hue, in a random order, by factors drawn from the generator.

    Args:
        image: (h,w,3) uint8.
        rng: the generator.
        brightness: the factor is uniform in [1 - brightness, 1 + brightness], not below 0.
        contrast: the same, for the blend with the mean grey.
        saturation: the same, for the blend with the grey image.
        hue: the shift is uniform in [-hue, hue], as a share of the colour circle, at most 0.5.
        whole: what the image is a part of, itself when None: contrast is about the mean grey of this one.

    Returns:
        The image, (h,w,3) uint8, rounded after every change.

    Source: the order and the blends of torchvision's ColorJitter on Pillow images.
    """
    if not any((brightness, contrast, saturation, hue)):
        return image
    strengths = (brightness, contrast, saturation)
    factors = [rng.uniform(max(0.0, 1 - strength), 1 + strength) for strength in strengths]
    shift = rng.uniform(-hue, hue)
    changes = (
        (brightness, lambda picture, mean: picture.point(_linear_table(factors[0], 0.0))),
        (contrast, lambda picture, mean: picture.point(_linear_table(factors[1], mean))),
        (saturation, lambda picture, mean: Image.blend(_grey(picture), picture, factors[2])),
        (hue, lambda picture, mean: _shift_hue(picture, shift)),
    )
    picture = Image.fromarray(image)
    small = picture if whole is None else Image.fromarray(whole).reduce(SMALLER)
    for position in rng.permutation(len(changes)):
        strength, change = changes[position]
        if strength:
            mean = _mean_grey(small)
            small, picture = change(small, mean), change(picture, mean)
    return np.asarray(picture)


def _linear_table(factor: float, centre: float) -> list[int]:
    """The 3 x 256 lookup table of centre + factor * (value - centre)."""
    values = centre + factor * (np.arange(256) - centre)
    return np.clip(values + 0.5, 0, 255).astype(int).tolist() * 3


def _mean_grey(picture: Image.Image) -> float:
    counts = np.asarray(picture.convert("L").histogram())
    return float(round(counts @ np.arange(256) / counts.sum()))


def _grey(picture: Image.Image) -> Image.Image:
    return picture.convert("L").convert("RGB")


def _shift_hue(picture: Image.Image, shift: float) -> Image.Image:
    return picture.filter(_hue_table(round(shift * 255)))


@functools.cache  # there are 255 of them, and 52 within the published strength
def _hue_table(steps: int) -> ImageFilter.Color3DLUT:
    """A turn of the colour circle as a table of a few colours, between which Pillow interpolates: half of the time
    of the way there and back through hue, saturation and value."""
    levels = np.linspace(0, 1, GRID)
    blue, green, red = np.meshgrid(levels, levels, levels, indexing="ij")
    turned = _turn(np.stack([red, green, blue], axis=-1).reshape(-1, 3), steps / 255)
    return ImageFilter.Color3DLUT(GRID, turned.astype(np.float32).ravel())


def _turn(colours: np.ndarray, share: float) -> np.ndarray:
    """Turns the hue of (n,3) colours in [0, 1] by a share of the circle; value and saturation stay."""
    value, least = colours.max(1), colours.min(1)
    chroma = value - least
    red, green, blue = ((value - channel) / np.where(chroma > 0, chroma, 1) for channel in colours.T)
    sixths = np.select([red == 0, green == 0], [blue - green, 2 + red - blue], 4 + green - red) + 6 * share
    shifted = (np.array([[5.0, 3.0, 1.0]]) + sixths[:, None]) % 6
    return value[:, None] - chroma[:, None] * np.clip(np.minimum(shifted, 4 - shifted), 0, 1)
