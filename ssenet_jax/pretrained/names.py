"""How our parameter paths are called in files made elsewhere."""

import re
from collections.abc import Callable

_TORCH_LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
_MXNET_LEAVES = {
    "kernel": ("arg", "weight"),
    "scale": ("arg", "gamma"),
    "bias": ("arg", "beta"),
    "mean": ("aux", "moving_mean"),
    "var": ("aux", "moving_var"),
}

# what a file may hold beyond the model: ImageNet classifiers, counters
TORCH_DROPPED = re.compile(r".*\.num_batches_tracked|_fc\.(weight|bias)")
MXNET_DROPPED = re.compile(r"arg:linear1000_.*")

NameMap = Callable[[tuple[str, ...]], str]


def resnet38_torch_name(path: tuple[str, ...]) -> str:
    """The name in the authors' PyTorch code: (..., "b2", "bn_branch2a", "scale") is b2.bn_branch2a.weight."""
    modules = path[2:-1] if path[1] == "backbone" else path[1:-1]
    return ".".join((*modules, _TORCH_LEAVES[path[-1]]))


def efficientnet_lite_torch_name(path: tuple[str, ...]) -> str:
    """The same for EfficientNet-Lite0: `blocks_3/bn1/mean` is `_blocks.3._bn1.running_mean` in the published file."""
    if path[1] != "backbone":
        return resnet38_torch_name(path)
    modules = ["_" + re.sub(r"^blocks_", "blocks.", module) for module in path[2:-1]]
    return ".".join((*modules, _TORCH_LEAVES[path[-1]]))


def resnet38_mxnet_name(path: tuple[str, ...]) -> str:
    """The same in the published MXNet file: b2 is 2a there, b2_1 is 2b1; layers are `res2b1_branch2a`, `bn2b1_...`."""
    kind, leaf = _MXNET_LEAVES[path[-1]]
    if path[1] != "backbone":
        return f"{kind}:{'_'.join(path[1:-1])}_{leaf}"
    module, *member = path[2:-1]
    if not member:
        return f"{kind}:{module}_{leaf}"
    stage, _, repeat = module.removeprefix("b").partition("_")
    block = f"{stage}b{repeat}" if repeat else f"{stage}a"
    prefix, branch = member[0].split("_", 1)
    return f"{kind}:{'res' if prefix == 'conv' else 'bn'}{block}_{branch}_{leaf}"


TORCH_NAMES: dict[str, NameMap] = {
    "resnet38": resnet38_torch_name,
    "efficientnet_lite0": efficientnet_lite_torch_name,
}
