"""The three networks: a classifier that gives class activation maps, AffinityNet, and DeepLab.

Each is a backbone and a head; the backbone's variables sit under "backbone" in all three, so that weights move between
them.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ssenet_jax.models.backbone import Backbone
from ssenet_jax.models.efficientnet_lite import EfficientNetLite0
from ssenet_jax.models.layers import (
    Conv,
    Norm,
    channel_dropout,
    fill_outside,
    scale_width,
    strided_sizes,
    zero_outside,
)
from ssenet_jax.models.resnet38 import ResNet38

BACKBONES = {
    "resnet38": Backbone(ResNet38, 8, (8, 8, 8), (123.675, 116.28, 103.53), (58.395, 57.12, 57.375),
        (r"backbone/(conv1a|b2(_\d)?)/.*", r"backbone/(.*/)?bn[^/]*/.*")),
    "efficientnet_lite0": Backbone(EfficientNetLite0, 16, (8, 16, 16), (127.0,) * 3, (128.0,) * 3,
        (r"backbone/(conv_stem|blocks_[0-4])/.*", r"backbone/(.*/)?bn[^/]*/.*")),
}
AFFINITY_STRIDE = 8
NORMS = ("frozen", "batch")


def output_size(sizes: Int[Array, "*n 2"], backbone: str) -> Int[Array, "*n 2"]:
    """Valid height and width of CamNet's and DeepLab's output; AffinityNet's cells are `AFFINITY_STRIDE` pixels.

    Args:
        sizes: valid height and width of images, in pixels; a NumPy or JAX array of integers.
        backbone: a key of `BACKBONES`.

    Returns:
        The same in cells; sizes that the stride does not divide are rounded up.
    """
    return strided_sizes(sizes, BACKBONES[backbone].output_stride)


class _Network(nn.Module):
    """The settings that the three networks share; they say what their head adds.

    Args:
        backbone: a key of `BACKBONES`.
        width: factor on every channel count of the backbone and the head's hidden layers.
        norm: "frozen" or "batch", for the backbone's norms (see `layers.Norm`).
        dtype: of the computation; parameters and statistics stay float32, and so does the output.
        dropout: factor on the published dropout rates; a narrow network from scratch learns faster with less.
        remat: keep only the blocks' inputs for the gradient and compute the rest again: less memory, more time.
    """

    backbone: str = "resnet38"
    width: float = 1.0
    norm: str = "frozen"
    dtype: jnp.dtype = jnp.float32
    dropout: float = 1.0
    remat: bool = False

    def run_backbone(self, images, train, sizes):
        if self.backbone not in BACKBONES:
            raise ValueError(f"backbone is {self.backbone!r}; expected one of {', '.join(BACKBONES)}")
        if self.norm not in NORMS:
            raise ValueError(f"norm is {self.norm!r}; expected one of {', '.join(NORMS)}")
        if train and sizes is not None:
            raise ValueError("sizes was given with train=True; padded batches are for inference, train on equal crops")
        build = BACKBONES[self.backbone].build
        settings = {"width": self.width, "norm": self.norm, "dtype": self.dtype, "dropout": self.dropout}
        network = build(**settings, remat=self.remat, name="backbone")
        return network(images, train, sizes)


class CamNet(_Network):
    """The classifier whose output is the raw class activation map (n, h', w', c); its mean over cells is the score."""

    num_classes: int = 20

    @nn.compact
    def __call__(
        self, images: Float[Array, "n h w 3"], train: bool = False, sizes: Int[Array, "n 2"] | None = None
    ) -> tuple[Float[Array, "n h2 w2 c"], dict[str, Array]]:
        """Computes the maps.

        Args:
            images: normalised with the backbone's mean and std.
            train: draw channel dropout from the "dropout" key; use the batch's statistics where norm is "batch".
            sizes: valid height and width of zero-padded images. The map is zero outside the valid cells.

        Returns:
            The map, and the taps conv4, conv5 and conv6 (undefined outside the valid cells).

        METHOD: Xavier uniform weights, no bias, channel dropout of one half.
        """
        features, taps = self.run_backbone(images, train, sizes)
        features = channel_dropout(0.5 * self.dropout, "dropout7")(features, deterministic=not train)
        xavier = nn.initializers.xavier_uniform()
        cam = Conv(self.num_classes, 1, kernel_init=xavier, dtype=self.dtype, name="fc8")(features)
        return _finish(cam, sizes, BACKBONES[self.backbone].output_stride), taps


class AffinityNet(_Network):
    """Features (n, h/8, w/8, 448 * width) whose L1 distance tells whether two cells belong together."""

    @nn.compact
    def __call__(
        self, images: Float[Array, "n h w 3"], train: bool = False, sizes: Int[Array, "n 2"] | None = None
    ) -> tuple[Float[Array, "n h2 w2 f"], dict[str, Array]]:
        """Computes the features at stride 8, whatever the backbone's strides are.

        Args:
            images: normalised with the backbone's mean and std.
            train: as for `CamNet`.
            sizes: as for `CamNet`; the features are zero outside the valid cells.
        """
        _, taps = self.run_backbone(images, train, sizes)
        strides = BACKBONES[self.backbone].tap_strides
        parts = []
        for (tap, name, channels), stride in zip(_AFFINITY_BRANCHES, strides, strict=True):
            branch = Conv(scale_width(channels, self.width), 1, dtype=self.dtype, name=name)
            part = nn.elu(branch(taps[tap]))
            if stride == 2 * AFFINITY_STRIDE:
                part = _double(part, strided_sizes(sizes, stride), parts[0].shape[1:3])
            parts.append(part)
        merged = jnp.concatenate(parts, axis=-1)
        gain_4 = nn.initializers.variance_scaling(16.0, "fan_avg", "uniform")
        features = nn.elu(Conv(merged.shape[-1], 1, kernel_init=gain_4, dtype=self.dtype, name="f9")(merged))
        return _finish(features, sizes, AFFINITY_STRIDE), taps


_AFFINITY_BRANCHES = (("conv4", "f8_3", 64), ("conv5", "f8_4", 128), ("conv6", "f8_5", 256))


class DeepLab(_Network):
    """Logits (n, h', w', k) at the backbone's output stride; the caller brings them to the image's size.

    The head's two norms are new, without stored statistics worth freezing: they use the batch's whatever `norm` says.
    """

    num_classes: int = 21

    @nn.compact
    def __call__(
        self, images: Float[Array, "n h w 3"], train: bool = False, sizes: Int[Array, "n 2"] | None = None
    ) -> tuple[Float[Array, "n h2 w2 k"], dict[str, Array]]:
        """Computes the logits.

        Args:
            images: normalised with the backbone's mean and std.
            train: as for `CamNet`.
            sizes: as for `CamNet`; the logits are zero outside the valid cells.
        """
        _, taps = self.run_backbone(images, train, sizes)
        stride = BACKBONES[self.backbone].output_stride
        hidden = scale_width(512, self.width)
        # the same field of view in pixels at every output stride
        wide = Conv(hidden, 3, 1, 12 * 8 // stride, dtype=self.dtype, name="fc6")
        x = wide(taps["conv6"], strided_sizes(sizes, stride))
        x = nn.relu(Norm("batch", dtype=self.dtype, name="bn_fc6")(x, train))
        x = Conv(hidden, 1, dtype=self.dtype, name="fc7")(x)
        x = nn.relu(Norm("batch", dtype=self.dtype, name="bn_fc7")(x, train))
        x = nn.Dropout(0.5 * self.dropout, name="dropout7")(x, deterministic=not train)
        logits = Conv(self.num_classes, 1, use_bias=True, dtype=self.dtype, name="fc8")(x)
        return _finish(logits, sizes, stride), taps


def _finish(x, sizes, stride):
    return zero_outside(x, strided_sizes(sizes, stride)).astype(jnp.float32)


def _double(x, sizes, shape):
    """Bilinear enlargement by exactly two, half-pixel centres, cut to the finer grid's shape."""
    x = fill_outside(x, sizes)
    for axis, length in zip((1, 2), shape, strict=True):
        x = _double_axis(x, axis, length)
    return x


def _double_axis(x, axis, length):
    cells = x.shape[axis]
    before = jnp.take(x, jnp.maximum(jnp.arange(cells) - 1, 0), axis=axis)
    after = jnp.take(x, jnp.minimum(jnp.arange(cells) + 1, cells - 1), axis=axis)
    pairs = jnp.stack([0.25 * before + 0.75 * x, 0.75 * x + 0.25 * after], axis=axis + 1)
    doubled = pairs.reshape(*x.shape[:axis], 2 * cells, *x.shape[axis + 1 :])
    return jnp.take(doubled, jnp.arange(length), axis=axis)
