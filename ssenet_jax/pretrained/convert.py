"""Turns a weight file into a checkpoint, which a config names as `init.weights`."""

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from ssenet_jax.checkpoint import Checkpoints
from ssenet_jax.models import BACKBONES, NETWORKS, backbone_row
from ssenet_jax.pretrained.load import place, read_weights, shapes_of


def import_weights(
    file: str | Path, network: str, out: Path, *, backbone: str = "", allow_missing: Iterable[str] = ()
) -> int:
    """Writes what a weight file holds of a network as a checkpoint, under a temporary name until it is complete.

    Modules that the file lacks are not in the checkpoint either: who loads it names them again.

    Args:
        file: a .params, .pth, .pt, .npz or .safetensors file, or a backbone with packaged weights, such as
            "efficientnet_lite0"; these have no head, so all of the network's may be missing.
        network: a key of `NETWORKS`.
        out: a folder that does not exist yet.
        backbone: a key of `BACKBONES`; "" stands for the one whose packaged weights `file` names, else for resnet38.
        allow_missing: modules that the file may lack, such as "fc8".

    Returns:
        The number of arrays written.

    Raises:
        OSError: there is no such file.
        ValueError: the file is damaged or does not fit, an unknown name, or `out` exists.
    """
    if network not in NETWORKS:
        raise ValueError(f"--model is {network!r}; expected one of {', '.join(NETWORKS)}")
    packaged = str(file) in BACKBONES
    backbone = backbone or (str(file) if packaged else "resnet38")
    backbone_row(backbone)
    if out.exists() or out.is_symlink():
        raise ValueError(f"{out} exists already; give --out another name")
    arrays = read_weights(file)
    model = NETWORKS[network](backbone=backbone)
    num_classes = _num_classes(arrays, network)
    if num_classes is not None and num_classes < 1:
        raise ValueError(f"{file}: its classifier fc8 has no class; give another file")
    model = model if num_classes is None else model.clone(num_classes=num_classes)
    shapes = shapes_of(model)
    allowed = {*allow_missing}
    _check_modules(allowed, shapes)
    heads = {path[1] for path in flatten_dict(shapes)} - {"backbone"}
    allowed |= heads if packaged else set()
    try:
        leaves = flatten_dict(place(arrays, model, shapes, allow_missing=allowed))
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
    found = {path: leaf for path, leaf in leaves.items() if not isinstance(leaf, jax.ShapeDtypeStruct)}
    _write(unflatten_dict(found), out)
    return len(found)


def _num_classes(arrays: Mapping[str, np.ndarray], network: str) -> int | None:
    """How many classes the file's classifier has, None without one; SEAM's has a map for the background beside them."""
    heads = [array for name, array in arrays.items() if name in ("fc8.weight", "module.fc8.weight")]
    if not heads or heads[0].ndim != 4 or network == "affinity":
        return None
    return heads[0].shape[0] - (network == "seam")


def _check_modules(names: Iterable[str], shapes: Mapping) -> None:
    paths = flatten_dict(shapes)
    unknown = sorted(set(names) - {module for path in paths for module in path[1:-1]})
    if unknown:
        heads = sorted({path[1] for path in paths} - {"backbone"})
        raise ValueError(f"the network has no module {unknown[0]} to be missing; on its backbone it has {heads}")


def _write(variables: dict, out: Path) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as temporary:
        written = Path(temporary) / "checkpoint"
        # orbax takes no empty tree, and there is no momentum yet
        with Checkpoints(written, keep=1) as checkpoints:
            checkpoints.save(0, variables, {"none": np.zeros(1, np.float32)}, {})
            checkpoints.wait()
        written.rename(out)
