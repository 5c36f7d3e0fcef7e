"""Colour jitter of an 8-bit picture, on Pillow's loops and on numpy's over whole channels of small integers."""

import numpy as np
from jaxtyping import UInt8
from PIL import Image

Channel = UInt8[np.ndarray, "h w"]
GREY = np.array([0.299, 0.587, 0.114])  # Pillow's, of red, green and blue
SMALLER = 8  # the side of a whole picture, by as much, is enough for its mean grey


def colour_jitter(
    picture: Image.Image,
    rng: np.random.Generator,
    *,
    brightness: float,
    contrast: float,
    saturation: float,
    hue: float,
    whole: Image.Image | None = None,
) -> Image.Image:
    """Changes brightness, contrast, saturation and hue, in a random order, by factors drawn from the generator.

    Args:
        picture: of mode RGB.
        rng: the generator.
        brightness: the factor is uniform in [1 - brightness, 1 + brightness], not below 0.
        contrast: the same, for the blend with the mean grey.
        saturation: the same, for the blend with the grey picture.
        hue: the shift is uniform in [-hue, hue], as a share of the colour circle, at most 0.5.
        whole: what the picture is a part of, itself when None: contrast is about the mean grey of this one.

    Returns:
        The picture, rounded after every change.

    Source: the order and the blends of torchvision's ColorJitter on Pillow images.
    """
    if not any((brightness, contrast, saturation, hue)):
        return picture
    strengths = (brightness, contrast, saturation)
    factors = [rng.uniform(max(0.0, 1 - strength), 1 + strength) for strength in strengths]
    shift = rng.uniform(-hue, hue)
    changes = (
        (brightness, lambda picture, mean: picture.point(_linear_table(factors[0], 0.0))),
        (contrast, lambda picture, mean: picture.point(_linear_table(factors[1], mean))),
        (saturation, lambda picture, mean: picture.convert("RGB", _saturation_matrix(factors[2]))),
        (hue, lambda picture, mean: _turn_hue(picture, round(shift * 255) / 255)),
    )
    small = picture if whole is None else whole.reduce(SMALLER)
    for position in rng.permutation(len(changes)):
        strength, change = changes[position]
        if strength:
            mean = _mean_grey(small)
            small, picture = change(small, mean), change(picture, mean)
    return picture


def _linear_table(factor: float, centre: float) -> list[int]:
    """The 3 x 256 lookup table of centre + factor * (value - centre)."""
    values = centre + factor * (np.arange(256) - centre)
    return np.clip(values + 0.5, 0, 255).astype(int).tolist() * 3


def _mean_grey(picture: Image.Image) -> float:
    counts = np.asarray(picture.convert("L").histogram())
    return float(round(counts @ np.arange(256) / counts.sum()))


def _saturation_matrix(factor: float) -> tuple[float, ...]:
    """The rows of grey + factor * (colour - grey), each with a constant of 0."""
    matrix = factor * np.eye(3) + (1 - factor) * GREY
    return tuple(np.pad(matrix, ((0, 0), (0, 1))).ravel().tolist())


def _turn_hue(picture: Image.Image, share: float) -> Image.Image:
    """Turns the hue by a share of the colour circle; value and saturation stay. At most a level off.

    A third of the circle passes each channel on to the next. What remains is at most a sixth, which moves a channel by
    d, this share of a sixth times the chroma, along its trapezoid over the circle: c becomes c - n + (most - d) where
    c >= p, and c - n + (least + d) elsewhere, cut to [least, most]. Most and least are the largest and smallest channel
    of the pixel, n the channel that the turn goes to from c, and p the third one.
    """
    thirds = round(3 * share)
    sixth = 6 * share - 2 * thirds
    channels = [np.asarray(channel) for channel in picture.split()]
    channels = [channels[(position - thirds) % 3] for position in range(3)]
    most = np.maximum(np.maximum(*channels[:2]), channels[2])
    least = np.minimum(np.minimum(*channels[:2]), channels[2])
    d = (most - least) * np.uint16(round(256 * abs(sixth)))
    d = (d + np.uint16(128) >> np.uint16(8)).astype(np.uint8)
    upper, lower = most - d, least + d
    step = 1 if sixth > 0 else -1
    turned = []
    for position, channel in enumerate(channels):
        to, third = channels[(position + step) % 3], channels[(position - step) % 3]
        is_upper = (channel >= third).view(np.uint8)
        moved = (lower + (upper - lower) * is_upper).astype(np.int16)  # modulo 256, as good as a choice, and faster
        moved += channel
        moved -= to
        np.maximum(moved, least, out=moved)
        np.minimum(moved, most, out=moved)
        turned.append(Image.fromarray(moved.astype(np.uint8)))
    return Image.merge("RGB", turned)
