"""EfficientNet-Lite0 with an output stride of 16: the backbone that trains on a laptop.

EfficientNet without squeeze-and-excite and with relu6 (Tan and Le, arXiv 1905.11946; the Lite variants are Google's).
For class activation maps the stage of stride 32 gets stride 1, and dilation 2 after its first block.
"""

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ssenet_jax.models.layers import Conv, DepthwiseConv, Norm, relu6, rematerialised, scale_width, strided_sizes


class _Stage(NamedTuple):
    repeats: int
    kernel: int
    stride: int
    expansion: int
    channels: int


_STAGES = (
    _Stage(1, 3, 1, 1, 16),
    _Stage(2, 3, 2, 6, 24),
    _Stage(2, 5, 2, 6, 40),
    _Stage(3, 3, 2, 6, 80),
    _Stage(3, 5, 1, 6, 112),
    _Stage(4, 5, 2, 6, 192),
    _Stage(1, 3, 1, 6, 320),
)
_LAST_STRIDED_STAGE = 5
_CONV4_STAGE, _CONV5_STAGE = 2, 4
_EPSILON = 1e-3


class InvertedResidual(nn.Module):
    """Widen (1x1), filter a channel at a time, narrow (1x1); added to its input where the shapes agree."""

    channels: int
    kernel: int
    stride: int
    dilation: int
    expansion: int
    norm: str
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x, sizes, train):
        def norm(name):
            return Norm(self.norm, _EPSILON, self.dtype, name=name)

        y = x
        if self.expansion > 1:
            y = Conv(x.shape[-1] * self.expansion, 1, dtype=self.dtype, name="expand_conv")(y)
            y = relu6(norm("bn0")(y, train))
        filters = DepthwiseConv(self.kernel, self.stride, self.dilation, self.dtype, name="depthwise_conv")
        y = relu6(norm("bn1")(filters(y, sizes), train))
        y = norm("bn2")(Conv(self.channels, 1, dtype=self.dtype, name="project_conv")(y), train)
        return x + y if self.stride == 1 and x.shape[-1] == self.channels else y


class EfficientNetLite0(nn.Module):
    """Returns the 1280 head features and the taps conv4 (stride 8), conv5 (stride 16) and conv6 (320 channels).

    Args:
        dropout: as for every backbone; this one has none to scale.
        output_stride: 16 for class activation maps; 32 is the published classifier.
    """

    width: float = 1.0
    norm: str = "frozen"
    dtype: jnp.dtype = jnp.float32
    dropout: float = 1.0
    remat: bool = False
    output_stride: int = 16

    @nn.compact
    def __call__(
        self, images: Float[Array, "n h w 3"], train: bool = False, sizes: Int[Array, "n 2"] | None = None
    ) -> tuple[Float[Array, "n h2 w2 f"], dict[str, Array]]:
        stem = Conv(scale_width(32, self.width), 3, 2, padding="same", dtype=self.dtype, name="conv_stem")
        x = relu6(Norm(self.norm, _EPSILON, self.dtype, name="bn0")(stem(images, sizes), train))
        sizes = strided_sizes(sizes, 2)
        block = rematerialised(InvertedResidual, self.remat)
        stage_outputs = []
        index = 0
        for number, stage in enumerate(_STAGES):
            dense = self.output_stride == 16 and number >= _LAST_STRIDED_STAGE
            for repeat in range(stage.repeats):
                first = repeat == 0
                stride = stage.stride if first and not dense else 1
                x = block(
                    scale_width(stage.channels, self.width),
                    stage.kernel,
                    stride,
                    2 if dense and not (first and stage.stride == 2) else 1,
                    stage.expansion,
                    self.norm,
                    self.dtype,
                    name=f"blocks_{index}",
                )(x, sizes, train)
                sizes = strided_sizes(sizes, stride)
                index += 1
            stage_outputs.append(x)
        taps = {"conv4": stage_outputs[_CONV4_STAGE], "conv5": stage_outputs[_CONV5_STAGE], "conv6": x}
        head = Conv(scale_width(1280, self.width), 1, dtype=self.dtype, name="conv_head")(x)
        return relu6(Norm(self.norm, _EPSILON, self.dtype, name="bn1")(head, train)), taps
