"""ResNet-38, model A1 of Wu, Shen and van den Hengel (arXiv 1611.10080), with an output stride of 8."""

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ssenet_jax.models.backbone import MXNET_LEAVES, Backbone
from ssenet_jax.models.layers import Conv, Norm, channel_dropout, rematerialised, scale_width, strided_sizes


class _Block(NamedTuple):
    name: str
    middle: int
    out: int
    stride: int = 1
    first_dilation: int = 1
    dilation: int = 1


_BLOCKS = (
    _Block("b2", 128, 128, stride=2),
    *(_Block(f"b2_{i}", 128, 128) for i in (1, 2)),
    _Block("b3", 256, 256, stride=2),
    *(_Block(f"b3_{i}", 256, 256) for i in (1, 2)),
    _Block("b4", 512, 512, stride=2),
    *(_Block(f"b4_{i}", 512, 512) for i in range(1, 6)),
    _Block("b5", 512, 1024, first_dilation=1, dilation=2),
    *(_Block(f"b5_{i}", 512, 1024, first_dilation=2, dilation=2) for i in (1, 2)),
)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions after norm and relu. Returns the sum and the activated input.

    A projection shortcut takes the activated input, an identity the raw one.
    """

    middle: int
    out: int
    stride: int
    first_dilation: int
    dilation: int
    norm: str
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x, sizes, train):
        activated = nn.relu(Norm(self.norm, dtype=self.dtype, name="bn_branch2a")(x, train))
        if self.stride == 1 and x.shape[-1] == self.out:
            shortcut = x
        else:
            shortcut = Conv(self.out, 1, self.stride, dtype=self.dtype, name="conv_branch1")(activated)
        first = Conv(self.middle, 3, self.stride, self.first_dilation, dtype=self.dtype, name="conv_branch2a")
        y = first(activated, sizes)
        y = nn.relu(Norm(self.norm, dtype=self.dtype, name="bn_branch2b1")(y, train))
        second = Conv(self.out, 3, 1, self.dilation, dtype=self.dtype, name="conv_branch2b1")
        return shortcut + second(y, strided_sizes(sizes, self.stride)), activated


class BottleneckBlock(nn.Module):
    """1x1, dilated 3x3, 1x1, with channel dropout before the last two. Returns the sum and the activated input."""

    out: int
    dilation: int
    dropout: float
    norm: str
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x, sizes, train):
        activated = nn.relu(Norm(self.norm, dtype=self.dtype, name="bn_branch2a")(x, train))
        shortcut = Conv(self.out, 1, dtype=self.dtype, name="conv_branch1")(activated)
        y = Conv(max(1, self.out // 4), 1, dtype=self.dtype, name="conv_branch2a")(activated)
        y = nn.relu(Norm(self.norm, dtype=self.dtype, name="bn_branch2b1")(y, train))
        y = channel_dropout(self.dropout, "dropout_2b1")(y, deterministic=not train)
        filters = Conv(max(1, self.out // 2), 3, 1, self.dilation, dtype=self.dtype, name="conv_branch2b1")
        y = nn.relu(Norm(self.norm, dtype=self.dtype, name="bn_branch2b2")(filters(y, sizes), train))
        y = channel_dropout(self.dropout, "dropout_2b2")(y, deterministic=not train)
        return shortcut + Conv(self.out, 1, dtype=self.dtype, name="conv_branch2b2")(y), activated


class ResNet38(nn.Module):
    """Returns conv6 (4096 channels times width) and the taps conv4, conv5 and conv6, all at stride 8.

    Args:
        output_stride: as for every backbone; this one has 8 alone.
    """

    width: float = 1.0
    norm: str = "frozen"
    dtype: jnp.dtype = jnp.float32
    dropout: float = 1.0
    remat: bool = False
    output_stride: int = 8

    @nn.compact
    def __call__(
        self, images: Float[Array, "n h w 3"], train: bool = False, sizes: Int[Array, "n 2"] | None = None
    ) -> tuple[Float[Array, "n h2 w2 f"], dict[str, Array]]:
        def channels(count):
            return scale_width(count, self.width)

        x = Conv(channels(64), 3, dtype=self.dtype, name="conv1a")(images, sizes)
        taps = {}
        basic, bottleneck = (rematerialised(block, self.remat) for block in (BasicBlock, BottleneckBlock))
        for block in _BLOCKS:
            settings = (channels(block.middle), channels(block.out), block.stride, block.first_dilation, block.dilation)
            module = basic(*settings, self.norm, self.dtype, name=block.name)
            x, activated = module(x, sizes, train)
            sizes = strided_sizes(sizes, block.stride)
            if block.name == "b5":
                taps["conv4"] = activated
        b6 = bottleneck(channels(2048), 4, 0.3 * self.dropout, self.norm, self.dtype, name="b6")
        x, taps["conv5"] = b6(x, sizes, train)
        b7 = bottleneck(channels(4096), 4, 0.5 * self.dropout, self.norm, self.dtype, name="b7")
        x, _ = b7(x, sizes, train)
        taps["conv6"] = nn.relu(Norm(self.norm, dtype=self.dtype, name="bn7")(x, train))
        return taps["conv6"], taps


def mxnet_name(path: tuple[str, ...]) -> str:
    """The name in the published MXNet file: b2 is 2a there, b2_1 is 2b1; layers are `res2b1_branch2a`, `bn2b1_...`."""
    kind, leaf = MXNET_LEAVES[path[-1]]
    module, *member = path[:-1]
    if not member:
        return f"{kind}:{module}_{leaf}"
    stage, _, repeat = module.removeprefix("b").partition("_")
    block = f"{stage}b{repeat}" if repeat else f"{stage}a"
    prefix, branch = member[0].split("_", 1)
    return f"{kind}:{'res' if prefix == 'conv' else 'bn'}{block}_{branch}_{leaf}"


BACKBONES = {
    "resnet38": Backbone(
        build=ResNet38,
        tap_strides={8: (8, 8, 8)},
        mean=(123.675, 116.28, 103.53),
        std=(58.395, 57.12, 57.375),
        frozen=(r"backbone/(conv1a|b2(_\d)?)/.*", r"backbone/(.*/)?bn[^/]*/.*"),
        mxnet_name=mxnet_name,
        dropped=r"arg:linear1000_.*",
    )
}
