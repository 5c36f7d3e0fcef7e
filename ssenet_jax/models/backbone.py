"""What a head needs to know of a backbone before it is built."""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn


class Backbone(NamedTuple):
    """Facts of a backbone.

    Args:
        build: makes the module; takes width, norm, dtype, dropout, remat and name.
        output_stride: pixels a cell of conv6 and of the CAM spans.
        tap_strides: the same for conv4, conv5 and conv6.
        mean: subtracted from an image with values 0 to 255, a channel.
        std: divides the difference.
    """

    build: Callable[..., nn.Module]
    output_stride: int
    tap_strides: tuple[int, int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    frozen: tuple[str, ...]
