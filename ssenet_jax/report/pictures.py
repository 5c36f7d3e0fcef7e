"""Label maps and CAMs as pictures: numpy arrays in, uint8 RGB arrays out, for the report, TensorBoard and `predict`."""

import matplotlib
import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image

from ssenet_jax.palette import palette

IGNORE = 255
IGNORE_COLOR = (224, 224, 192)


def to_long_edge(image: UInt8[np.ndarray, "h w 3"], long_edge: int) -> UInt8[np.ndarray, "h2 w2 3"]:
    """The image with its long edge at `long_edge` pixels: a small one is enlarged, so that outlines on it are thin.

    Args:
        image: RGB.
        long_edge: in pixels.
    Returns:
        RGB, same aspect ratio to the nearest pixel.
    """
    height, width = image.shape[:2]
    scale = long_edge / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(Image.fromarray(image).resize(size, Image.BICUBIC))


def overlay_labels(
    image: UInt8[np.ndarray, "h w 3"], labels: UInt8[np.ndarray, "h2 w2"], *, opacity: float = 0.65
) -> UInt8[np.ndarray, "h w 3"]:
    """A label map in VOC's colours over its image, regions outlined; background leaves the image as it is.

    Args:
        image: RGB.
        labels: 0 background, 255 ignored; of any size, brought to the image's by nearest neighbour.
        opacity: of the colours, 0 to 1.
    Returns:
        RGB, the size of the image.
    """
    height, width = image.shape[:2]
    labels = np.asarray(Image.fromarray(labels).resize((width, height), Image.NEAREST))
    colors = palette(256).astype(np.float32)
    colors[IGNORE] = IGNORE_COLOR
    base = image.astype(np.float32)
    blend = np.where((labels != 0)[..., None], (1 - opacity) * base + opacity * colors[labels], base)
    blend[_outline(labels)] = 255
    return blend.round().astype(np.uint8)


def cam_picture(
    image: UInt8[np.ndarray, "h w 3"], cam: Float[np.ndarray, "h2 w2 m"], *, alpha: float | None = None
) -> UInt8[np.ndarray, "h w 3"]:
    """A CAM as a heat map over its greyed image: the largest score of any class at each pixel.

    Args:
        image: RGB.
        cam: scores in [0, 1] of the classes to show; of any size, brought to the image's bilinearly.
        alpha: background score; where given, the border of what it leaves as foreground is drawn.
    Returns:
        RGB, the size of the image.
    """
    height, width = image.shape[:2]
    strongest = cam.astype(np.float32).max(axis=-1, initial=0.0).clip(0.0, 1.0)
    strongest = np.asarray(Image.fromarray(strongest).resize((width, height), Image.BILINEAR))
    heat = matplotlib.colormaps["inferno"](strongest)[..., :3] * 255
    grey = image.astype(np.float32).mean(axis=-1, keepdims=True)
    blend = 0.4 * grey + 0.6 * heat
    if alpha is not None:
        blend[_outline(strongest > alpha)] = 255
    return blend.round().astype(np.uint8)


def _outline(regions: np.ndarray) -> Bool[np.ndarray, "h w"]:
    """The pixels whose right or lower neighbour belongs to another region."""
    edge = np.zeros(regions.shape, bool)
    edge[:, :-1] |= regions[:, :-1] != regions[:, 1:]
    edge[:-1] |= regions[:-1] != regions[1:]
    return edge
