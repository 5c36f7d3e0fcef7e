"""Colour jitter of an 8-bit image, on Pillow's own loops."""

import numpy as np
from jaxtyping import UInt8
from PIL import Image

Rgb = UInt8[np.ndarray, "h w 3"]


def colour_jitter(
    image: Rgb, rng: np.random.Generator, *, brightness: float, contrast: float, saturation: float, hue: float
) -> Rgb:
    """Changes brightness, contrast, saturation and hue, in a random order, by factors drawn from the generator.

    Trap: contrast is about the mean grey of the image it is given, so a crop before or after gives other colours.

    Args:
        image: (h,w,3) uint8.
        rng: the generator.
        brightness: the factor is uniform in [1 - brightness, 1 + brightness], not below 0.
        contrast: the same, for the blend with the mean grey.
        saturation: the same, for the blend with the grey image.
        hue: the shift is uniform in [-hue, hue], as a share of the colour circle, at most 0.5.

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
        (brightness, lambda picture: picture.point(_linear_table(factors[0], 0.0))),
        (contrast, lambda picture: picture.point(_linear_table(factors[1], _mean_grey(picture)))),
        (saturation, lambda picture: Image.blend(_grey(picture), picture, factors[2])),
        (hue, lambda picture: _shift_hue(picture, shift)),
    )
    picture = Image.fromarray(image)
    for position in rng.permutation(len(changes)):
        strength, change = changes[position]
        picture = change(picture) if strength else picture
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
    hue, saturation, value = picture.convert("HSV").split()
    turned = hue.point([(step + round(shift * 255)) % 256 for step in range(256)])
    return Image.merge("HSV", (turned, saturation, value)).convert("RGB")
