"""What `gpu.py` asks of a device before it times anything: the results of the CPU, and of the authors' code."""

import math
import zlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict
from PIL import Image

from ssenet_jax.crf import jax_backend
from ssenet_jax.losses import affinity_loss, multilabel_soft_margin_loss, ser_loss, softmax_cross_entropy_ignore
from ssenet_jax.models import CamNet
from ssenet_jax.pretrained import from_torch
from ssenet_jax.pretrained.names import torch_names
from ssenet_jax.random_walk import random_walk, transition

GOLDEN = Path(__file__).parents[1] / "tests" / "golden" / "model_backbone.npz"
_BICUBIC = Image.Resampling.BICUBIC
CRF = {
    "iterations": 10,
    "sxy_gaussian": 3,
    "compat_gaussian": 3,
    "sxy_bilateral": 80,
    "srgb": 13,
    "compat_bilateral": 10,
}


def checks(tiny: bool) -> list[dict]:
    """One row a check: the largest difference as a share of the largest value, and what is allowed."""
    rng = np.random.default_rng(0)
    compared = {**_losses(rng), **_walks(rng, (6, 8) if tiny else (47, 63))}
    # squaring rounds: on a CPU too the dense walk is 3e-5 from an exact one
    allowed = {"walk, dense": 1e-4}
    rows = [_row(name, *_both(*case), allowed.get(name, 1e-5)) for name, case in compared.items()]
    rows.append(_row("dense CRF, mean field", *_both_crf(rng, (20, 24) if tiny else (375, 500)), 1e-3))
    with jax.default_matmul_precision("highest"):
        rows.append(_network(1 / 32 if tiny else 1.0))
    return rows


def _row(name: str, found, wanted, allowed: float) -> dict:
    found, wanted = (np.asarray(jax.device_get(x), np.float64) for x in (found, wanted))
    apart = np.abs(found - wanted).max() / max(np.abs(wanted).max(), 1e-30)
    return {"check": name, "difference": f"{apart:.1e}", "allowed": f"{allowed:.0e}",
            "passed": bool(np.isfinite(found).all() and apart <= allowed)}  # fmt: skip


def _both(function, arguments: tuple) -> tuple:
    """The results of the default device and of the CPU."""
    host = jax.devices("cpu")[0]
    return tuple(jax.jit(function)(*jax.device_put(arguments, device)) for device in (jax.devices()[0], host))


def _losses(rng) -> dict:
    def normal(*shape):
        return rng.standard_normal(shape, np.float32)

    labels = (rng.random((4, 20)) < 0.2).astype(np.float32)
    pairs = [(rng.random((4, 34, 50)) < 0.3).astype(np.float32) for _ in range(3)]
    masks = rng.integers(0, 21, (2, 32, 32)).astype(np.uint8)
    return {
        "soft margin loss": (multilabel_soft_margin_loss, (normal(4, 20), labels)),
        "SER loss": (ser_loss, (normal(4, 14, 14, 20), normal(4, 14, 14, 20), labels)),
        "affinity loss": (lambda *a: affinity_loss(*a)["loss"], (rng.random((4, 34, 50), np.float32), *pairs)),
        "cross entropy": (softmax_cross_entropy_ignore, (normal(2, 32, 32, 21), masks)),
    }


def _walks(rng, cells: tuple[int, int]) -> dict:
    features, scores = rng.standard_normal((*cells, 16), np.float32), rng.random((*cells, 4), np.float32)

    def walk(method):
        return lambda features, scores: random_walk(scores, transition(features), method=method)

    return {f"walk, {method}": (walk(method), (features, scores)) for method in ("stencil", "chebyshev", "dense")}


def _both_crf(rng, size: tuple[int, int]) -> tuple:
    """The CRF's, on smooth maps: on noise a change of 1e-6 in one width turns a pixel's label on a CPU alone."""

    def smooth(channels, largest):
        maps = [Image.fromarray(rng.random((6, 8), np.float32)).resize(size[::-1], _BICUBIC) for _ in range(channels)]
        return largest * np.stack(maps, axis=-1)[None].clip(1e-3, 1)

    image, scores = smooth(3, 255).astype(np.uint8), smooth(3, 1)
    results = []
    for device in (jax.devices()[0], jax.devices("cpu")[0]):
        with jax.default_device(device):
            results.append(jax_backend.mean_field(image, scores, **CRF))
    return tuple(results)


def _network(width: float) -> dict:
    """ResNet-38's CAM of the authors' code; a narrow one, which has no stored result, against the CPU."""
    model, rng = CamNet(width=width), np.random.default_rng(0)
    variables = drawn_variables(model)
    images = rng.standard_normal((1, 3, 70, 93), dtype=np.float32).transpose(0, 2, 3, 1)

    def cam(variables, images):
        return model.apply(variables, images)[0]

    if width != 1:
        return _row("narrow ResNet-38's CAM", *_both(cam, (variables, images)), 1e-4)
    with np.load(GOLDEN) as theirs:
        return _row("ResNet-38's CAM, authors' code", jax.jit(cam)(variables, images).transpose(0, 3, 1, 2),
                    theirs["cam_feature"], 1e-3)  # fmt: skip


def drawn_variables(model: CamNet) -> dict:
    """The variables that the stored results were made with: each leaf drawn by its name in PyTorch."""
    shapes, name_of = flatten_dict(jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))), {}
    for path, leaf in shapes.items():
        name = torch_names(model.backbone)(path)
        shape = tuple(leaf.shape[axis] for axis in (3, 2, 0, 1)) if leaf.ndim == 4 else leaf.shape
        name_of[name] = _drawn(np.random.default_rng(zlib.crc32(name.encode())), path[-1], shape)
    return from_torch(name_of, model)


def _drawn(rng, kind: str, shape: tuple[int, ...]) -> np.ndarray:
    if len(shape) == 4:
        return rng.standard_normal(shape, dtype=np.float32) * np.float32(np.sqrt(1 / math.prod(shape[1:])))
    if kind in ("scale", "var"):
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    return (0.1 * rng.standard_normal(shape)).astype(np.float32)
