"""The networks of the method: a classifier that gives class activation maps, AffinityNet, features to walk over that
nothing is trained for, and DeepLab.

Each is a backbone and a head; the backbone's variables sit under "backbone" in all of them, so that weights move
between them.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ssenet_jax.models.layers import (
    Conv,
    Norm,
    channel_dropout,
    fill_outside,
    pool_cells,
    scale_width,
    strided_sizes,
    zero_outside,
)
from ssenet_jax.models.network import Network, backbone_row, finish

AFFINITY_STRIDE = 8


class CamNet(Network):
    """The classifier whose output is the raw class activation map (n, h', w', c); its mean over cells is the score.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> model, images = CamNet(num_classes=3, width=1 / 16), jnp.zeros((1, 64, 48, 3))
        >>> variables = jax.eval_shape(model.init, jax.random.key(0), images)  # shapes alone; model.init gives values
        >>> cam, taps = jax.eval_shape(model.apply, variables, images)
        >>> cam.shape, taps["conv6"].shape
        ((1, 8, 6, 3), (1, 8, 6, 256))
    """

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
        return finish(cam, sizes, self.tap_strides[-1]), taps


class AffinityNet(Network):
    """Features (n, h/stride, w/stride, 448 * width) whose L1 distance tells whether two cells belong together.

    Args:
        stride: pixels that a cell of the features spans, whatever the backbone's strides are; it divides them. Half the
            default draws finer borders where images are small, at four times the cells.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> model, images = AffinityNet(width=1 / 16), jnp.zeros((1, 64, 48, 3))
        >>> variables = jax.eval_shape(model.init, jax.random.key(0), images)
        >>> jax.eval_shape(model.apply, variables, images)[0].shape
        (1, 8, 6, 28)
    """

    stride: int = AFFINITY_STRIDE

    @nn.compact
    def __call__(
        self, images: Float[Array, "n h w 3"], train: bool = False, sizes: Int[Array, "n 2"] | None = None
    ) -> tuple[Float[Array, "n h2 w2 f"], dict[str, Array]]:
        """Computes the features; taps of coarser cells are enlarged bilinearly.

        Args:
            images: normalised with the backbone's mean and std.
            train: as for `CamNet`.
            sizes: as for `CamNet`; the features are zero outside the valid cells.
        """
        _, taps = self.run_backbone(images, train, sizes)
        shape = tuple(-(-length // self.stride) for length in images.shape[1:3])
        parts = []
        for (tap, name, channels), stride in zip(_AFFINITY_BRANCHES, self.tap_strides, strict=True):
            if stride % self.stride:
                raise ValueError(f"AffinityNet's stride is {self.stride}; it has to divide {tap}'s, {stride}")
            branch = Conv(scale_width(channels, self.width), 1, dtype=self.dtype, name=name)
            part = nn.elu(branch(taps[tap]))
            if stride != self.stride:
                part = _enlarge(part, stride // self.stride, strided_sizes(sizes, stride), shape)
            parts.append(part)
        merged = jnp.concatenate(parts, axis=-1)
        gain_4 = nn.initializers.variance_scaling(16.0, "fan_avg", "uniform")
        features = nn.elu(Conv(merged.shape[-1], 1, kernel_init=gain_4, dtype=self.dtype, name="f9")(merged))
        return finish(features, sizes, self.stride), taps


_AFFINITY_BRANCHES = (("conv4", "f8_3", 64), ("conv5", "f8_4", 128), ("conv6", "f8_5", 256))


class FixedFeatures(Network):
    """Features (n, h/stride, w/stride, 3 + channels of conv4) for the walk that nothing is trained for.

    Where photos are few, colour and the early features of an ImageNet network tell better than an AffinityNet trained
    on their seeds whether two cells belong together (docs/masks.md). Weighed so that the mean absolute difference of
    two cells over all channels, which is what the affinity takes, is ``COLOUR`` times that of their colours (each
    channel from 0 to 1) and ``CONV4`` times that of their conv4 features (centred on the photo's mean and divided by
    their mean distance from it).

    Args:
        stride: as for `AffinityNet`.

    Raises:
        ValueError: the stride does not divide that of conv4.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> model, images = FixedFeatures(width=1 / 16), jnp.zeros((1, 64, 48, 3))
        >>> variables = jax.eval_shape(model.init, jax.random.key(0), images)
        >>> jax.eval_shape(model.apply, variables, images)[0].shape
        (1, 8, 6, 35)
    """

    stride: int = AFFINITY_STRIDE

    @nn.compact
    def __call__(
        self, images: Float[Array, "n h w 3"], train: bool = False, sizes: Int[Array, "n 2"] | None = None
    ) -> tuple[Float[Array, "n h2 w2 f"], dict[str, Array]]:
        """Computes the features.

        Args:
            images: normalised with the backbone's mean and std.
            train: as for `CamNet`.
            sizes: as for `CamNet`; the features are zero outside the valid cells.
        """
        _, taps = self.run_backbone(images, train, sizes)
        inside = zero_outside(jnp.ones((*images.shape[:3], 1), jnp.float32), sizes)
        share = pool_cells(inside, self.stride)
        rows, columns = share.shape[1:3]
        std = jnp.array(backbone_row(self.backbone).std, jnp.float32) / 255
        colour = pool_cells(images * inside * std[None, None, None], self.stride) / jnp.maximum(share, 1e-6)
        conv4, stride = taps["conv4"].astype(jnp.float32), self.tap_strides[0]
        if stride % self.stride:
            raise ValueError(f"FixedFeatures' stride is {self.stride}; it has to divide conv4's, {stride}")
        if stride != self.stride:
            conv4 = _enlarge(conv4, stride // self.stride, strided_sizes(sizes, stride), (rows, columns))
        valid = (share > 0).astype(jnp.float32)
        conv4 = _centred(conv4, valid)
        channels = 3 + conv4.shape[-1]
        parts = [COLOUR * channels / 3 * colour, CONV4 * channels / conv4.shape[-1] * conv4]
        return finish(jnp.concatenate(parts, axis=-1), sizes, self.stride), taps


COLOUR, CONV4 = 2.0, 0.625


def _centred(x, valid):
    """Each image's features minus their mean over the valid cells, divided by the mean distance from it."""
    cells = jnp.maximum(jnp.sum(valid, (1, 2), keepdims=True), 1.0)
    x = (x - jnp.sum(x * valid, (1, 2), keepdims=True) / cells) * valid
    return x / (jnp.sum(jnp.abs(x), (1, 2, 3), keepdims=True) / (cells * x.shape[-1]) + 1e-6)


class DeepLab(Network):
    """Logits (n, h', w', k) at the backbone's output stride; the caller brings them to the image's size.

    The head's two norms are new, without stored statistics worth freezing: they use the batch's whatever `norm` says.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> model = DeepLab(num_classes=4, backbone="efficientnet_lite0", width=1 / 16)
        >>> images = jnp.zeros((1, 64, 48, 3))
        >>> variables = jax.eval_shape(model.init, jax.random.key(0), images)
        >>> jax.eval_shape(model.apply, variables, images)[0].shape
        (1, 4, 3, 4)
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
        stride = self.tap_strides[-1]
        hidden = scale_width(512, self.width)
        # the same field of view in pixels at every output stride
        wide = Conv(hidden, 3, 1, 12 * 8 // stride, dtype=self.dtype, name="fc6")
        x = wide(taps["conv6"], strided_sizes(sizes, stride))
        x = nn.relu(Norm("batch", dtype=self.dtype, name="bn_fc6")(x, train))
        x = Conv(hidden, 1, dtype=self.dtype, name="fc7")(x)
        x = nn.relu(Norm("batch", dtype=self.dtype, name="bn_fc7")(x, train))
        x = nn.Dropout(0.5 * self.dropout, name="dropout7")(x, deterministic=not train)
        logits = Conv(self.num_classes, 1, use_bias=True, dtype=self.dtype, name="fc8")(x)
        return finish(logits, sizes, stride), taps


def _enlarge(x, factor, sizes, shape):
    """Bilinear enlargement by a whole factor, half-pixel centres, cut to the finer grid's shape."""
    x = fill_outside(x, sizes)
    for axis, length in zip((1, 2), shape, strict=True):
        x = _enlarge_axis(x, factor, axis, length)
    return x


def _enlarge_axis(x, factor, axis, length):
    cells = x.shape[axis]
    before = jnp.take(x, jnp.maximum(jnp.arange(cells) - 1, 0), axis=axis)
    after = jnp.take(x, jnp.minimum(jnp.arange(cells) + 1, cells - 1), axis=axis)
    parts = []
    for index in range(factor):
        # the new cell's centre, in cells from the old one's
        shift = (index + 0.5) / factor - 0.5
        parts.append(-shift * before + (1 + shift) * x if shift < 0 else (1 - shift) * x + shift * after)
    finer = jnp.stack(parts, axis=axis + 1).reshape(*x.shape[:axis], factor * cells, *x.shape[axis + 1 :])
    return jnp.take(finer, jnp.arange(length), axis=axis)
