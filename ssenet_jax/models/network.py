"""The table of backbones, and what every network on one of them shares."""

import importlib

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ssenet_jax.models.backbone import Backbone
from ssenet_jax.models.layers import strided_sizes, zero_outside

# the files in this folder that hold a backbone, or several variants of one, in a table BACKBONES
_FILES = ("resnet38", "efficientnet_lite")

BACKBONES: dict[str, Backbone] = {}
for _file in _FILES:
    BACKBONES |= importlib.import_module(f"ssenet_jax.models.{_file}").BACKBONES

NORMS = ("frozen", "batch")


def backbone_row(name: str) -> Backbone:
    """The row of `BACKBONES` of that name.

    Raises:
        ValueError: there is none; the message lists those that there are.
    """
    if name not in BACKBONES:
        raise ValueError(f"backbone is {name!r}; expected one of {', '.join(BACKBONES)}")
    return BACKBONES[name]


def default_frozen(backbone: str) -> tuple[str, ...]:
    """Regexes over the parameters that keep their imported values, unless a config says otherwise."""
    return backbone_row(backbone).frozen


def output_size(sizes: Int[Array, "*n 2"], backbone: str, output_stride: int = 0) -> Int[Array, "*n 2"]:
    """Valid height and width of the output of CamNet, SeamNet and DeepLab; AffinityNet has a stride of its own.

    Args:
        sizes: valid height and width of images, in pixels; a NumPy or JAX array of integers.
        backbone: a key of `BACKBONES`.
        output_stride: as for `Network`.

    Returns:
        The same in cells; sizes that the stride does not divide are rounded up.
    """
    stride = backbone_row(backbone).strides_at(output_stride)[-1]
    return (sizes + (stride - 1)) // stride


class Network(nn.Module):
    """The settings that all networks share; they say what their head adds.

    Gradients are of reverse mode (`jax.grad`, `jax.vjp`); there is no `jax.jvp` of them.

    Args:
        backbone: a key of `BACKBONES`.
        width: factor on every channel count of the backbone and the head's hidden layers.
        norm: "frozen" or "batch", for the backbone's norms (see `layers.Norm`).
        dtype: of the computation; parameters and statistics stay float32, and so does the output.
        dropout: factor on the published dropout rates; a narrow network from scratch learns faster with less.
        remat: keep only the blocks' inputs for the gradient and compute the rest again: less memory, more time.
        output_stride: pixels that a cell of the backbone's output spans, one of its row's; 0 for its own.
    """

    backbone: str = "resnet38"
    width: float = 1.0
    norm: str = "frozen"
    dtype: jnp.dtype = jnp.float32
    dropout: float = 1.0
    remat: bool = False
    output_stride: int = 0

    @property
    def tap_strides(self) -> tuple[int, int, int]:
        """Pixels that a cell of conv4, conv5 and conv6 spans."""
        return backbone_row(self.backbone).strides_at(self.output_stride)

    def run_backbone(self, images, train, sizes):
        if self.norm not in NORMS:
            raise ValueError(f"norm is {self.norm!r}; expected one of {', '.join(NORMS)}")
        if train and sizes is not None:
            raise ValueError("sizes was given with train=True; padded batches are for inference, train on equal crops")
        settings = {"width": self.width, "norm": self.norm, "dtype": self.dtype, "dropout": self.dropout}
        settings |= {"remat": self.remat, "output_stride": self.tap_strides[-1]}
        return backbone_row(self.backbone).build(**settings, name="backbone")(images, train, sizes)


def finish(x: Float[Array, "n h w f"], sizes: Int[Array, "n 2"] | None, stride: int) -> Float[Array, "n h w f"]:
    """A head's output: zero outside the valid cells, float32."""
    return zero_outside(x, strided_sizes(sizes, stride)).astype(jnp.float32)
