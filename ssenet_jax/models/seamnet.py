"""SEAM's classifier: maps with a background, and the branch that refines them (METHOD: SEAM)."""

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from ssenet_jax.models.layers import Conv, channel_dropout, scale_width, strided_sizes, zero_outside
from ssenet_jax.models.network import Network, finish
from ssenet_jax.seam import correlation_map, pixel_correlation, resize_aligned, resize_aligned_valid


class SeamNet(Network):
    """The classifier whose output is the raw map and the refined one, each (n, h', w', k), background first.

    The refined map trains f8_3, f8_4 and f9 alone: the raw map and the taps go into it without a gradient.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> model, images = SeamNet(num_classes=3, width=1 / 16), jnp.zeros((1, 64, 48, 3))
        >>> variables = jax.eval_shape(model.init, jax.random.key(0), images)
        >>> (cam, refined), _ = jax.eval_shape(model.apply, variables, images)
        >>> cam.shape, refined.shape
        ((1, 8, 6, 4), (1, 8, 6, 4))
    """

    num_classes: int = 20

    @nn.compact
    def __call__(
        self, images: Float[Array, "n h w 3"], train: bool = False, sizes: Int[Array, "n 2"] | None = None
    ) -> tuple[tuple[Float[Array, "n h2 w2 k"], Float[Array, "n h2 w2 k"]], dict[str, Array]]:
        """Computes the maps.

        Args:
            images: normalised with the backbone's mean and std.
            train: as for `CamNet`.
            sizes: as for `CamNet`; both maps are zero outside the valid cells.
        """
        features, taps = self.run_backbone(images, train, sizes)
        features = channel_dropout(0.5 * self.dropout, "dropout7")(features, deterministic=not train)
        xavier = nn.initializers.xavier_uniform()
        cam = Conv(self.num_classes + 1, 1, kernel_init=xavier, dtype=self.dtype, name="fc8")(features)
        cam = finish(cam, sizes, self.tap_strides[-1])
        return (cam, self._refine(cam, images, taps, sizes)), taps

    def _refine(self, cam, images, taps, sizes):
        cells, canvas = strided_sizes(sizes, self.tap_strides[-1]), cam.shape[1:3]

        def to_cells(x, stride):
            """On the cells of the map; a tap of finer cells and the image are resized with corners aligned."""
            x = x.astype(jnp.float32)
            if sizes is None or x.shape[1:3] == canvas:
                return resize_aligned(x, canvas)
            return resize_aligned_valid(x, strided_sizes(sizes, stride), cells, canvas)

        parts = [to_cells(images, 1)]
        for (tap, name, channels), stride in zip(_BRANCHES, self.tap_strides[:2], strict=True):
            branch = Conv(scale_width(channels, self.width), 1, dtype=self.dtype, name=name)
            parts.append(to_cells(nn.relu(branch(lax.stop_gradient(taps[tap]))), stride))
        merged = jnp.concatenate(parts, axis=-1)
        gain_4 = nn.initializers.variance_scaling(16.0, "fan_avg", "uniform")
        outputs = merged.shape[-1] - images.shape[-1]
        features = Conv(outputs, 1, kernel_init=gain_4, dtype=self.dtype, name="f9")(merged)
        # features of zero take a cell out of the correlation
        return pixel_correlation(correlation_map(cam), zero_outside(features.astype(jnp.float32), cells))


_BRANCHES = (("conv4", "f8_3", 64), ("conv5", "f8_4", 128))
