"""How our parameter paths are called in files made elsewhere: the backbone's by its row, the heads' by one rule."""

from ssenet_jax.models import backbone_row
from ssenet_jax.models.backbone import MXNET_LEAVES, NameMap, torch_name


def torch_names(backbone: str) -> NameMap:
    """The names in a PyTorch state dict of the networks on a backbone; ("params", "fc8", "kernel") is fc8.weight."""
    return _with_heads(backbone_row(backbone).torch_name, torch_name)


def mxnet_names(backbone: str) -> NameMap:
    """The same in a `.params` file.

    Raises:
        ValueError: the backbone has no such names.
    """
    below = backbone_row(backbone).mxnet_name
    if below is None:
        raise ValueError(f"the names of backbone {backbone} in MXNet files are not known; give a .pth or .npz file")
    return _with_heads(below, lambda path: f"{MXNET_LEAVES[path[-1]][0]}:{path[0]}_{MXNET_LEAVES[path[-1]][1]}")


def dropped(backbone: str) -> str:
    """A regex over the names that a file may hold beyond the model: ImageNet classifiers, counters."""
    return rf".*\.num_batches_tracked|{backbone_row(backbone).dropped}"


def _with_heads(below: NameMap, head: NameMap) -> NameMap:
    return lambda path: below(path[2:]) if path[1] == "backbone" else head(path[1:])
