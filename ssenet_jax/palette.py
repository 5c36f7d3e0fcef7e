"""The colours of PASCAL VOC, in files and in pictures."""

import numpy as np
from jaxtyping import UInt8
from PIL import Image


def palette(num_classes: int) -> UInt8[np.ndarray, "k 3"]:
    """The colours of PASCAL VOC, background (black) first.

    Args:
        num_classes: how many colours, background included, 1 to 256.
    Returns:
        One RGB colour per label.
    Raises:
        ValueError: more colours asked for than a uint8 label can name.
    """
    if not 1 <= num_classes <= 256:
        raise ValueError(f"a palette has 1 to 256 colours, got num_classes={num_classes}")
    bits = (np.arange(num_classes)[:, None] >> np.arange(9)[None, :]) & 1
    # Bits 0, 3, 6 of the label are the leading bits of red; 1, 4, 7 of green; 2, 5, 8 of blue.
    channels = bits.reshape(num_classes, 3, 3)
    return (channels * np.array([128, 64, 32])[None, :, None]).sum(axis=1).astype(np.uint8)


def indexed(mask: UInt8[np.ndarray, "h w"]) -> Image.Image:
    """A label map as a palette image: a viewer shows colours, a reader gets the labels."""
    image = Image.fromarray(mask)
    image.putpalette(palette(256).tobytes())
    return image
