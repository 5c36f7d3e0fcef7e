"""A segmentation network as one program of a fixed size, for runtimes without this package: StableHLO and ONNX.

The program takes one photo of that size, (1, h, w, 3) uint8 RGB, and gives its label map, (1, h, w) uint8. It applies
the network once, without the other scales, the mirror image, the background's weight and the CRF.
"""

from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, UInt8

from ssenet_jax.artifacts import replacing
from ssenet_jax.equivariance import resize_to
from ssenet_jax.models import BACKBONES
from ssenet_jax.models.convolution import library_form
from ssenet_jax.segmenter import Segmenter

PLATFORMS = ("cpu", "cuda", "tpu")
# not in the extra: the converter's package asks for an orbax older than ours, which it does not import
CONVERTER = "pip install 'ssenet_jax[onnx]' && pip install --no-deps jax2onnx==0.17.1"


def labels_of(segmenter: Segmenter, size: tuple[int, int]) -> Callable[[Array], Array]:
    """The program as a function of (1, h, w, 3) uint8 photos of a height and width; the arrays are constants in it."""
    facts = BACKBONES[segmenter.network.backbone]
    mean, std = (np.asarray(values, np.float32)[None, None, None] for values in (facts.mean, facts.std))
    # stored statistics either way; "frozen" also stops gradients, which the converter cannot write
    network = segmenter.network.clone(norm="batch", remat=False, dtype=jnp.float32)

    def labels(image: UInt8[Array, "1 h w 3"]) -> UInt8[Array, "1 h w"]:
        logits, _ = network.apply(segmenter.variables, (image.astype(jnp.float32) - mean) / std)
        return jnp.argmax(resize_to(logits, size), axis=-1).astype(jnp.uint8)

    return labels


def write_stablehlo(segmenter: Segmenter, size: tuple[int, int], path: Path) -> None:
    """Writes the program for CPU, CUDA and TPU; ``jax.export.deserialize`` reads it."""
    exported = jax.export.export(jax.jit(labels_of(segmenter, size)), platforms=PLATFORMS)(_photo(size))
    with replacing(path) as temporary:
        temporary.write_bytes(exported.serialize())


def write_onnx(segmenter: Segmenter, size: tuple[int, int], path: Path) -> None:
    """Writes the program as ONNX, its input named ``image`` and its output ``labels``.

    Raises:
        ImportError: the converter is not installed.
    """
    try:
        import onnx
        from jax2onnx import to_onnx
    except ImportError as error:
        raise ImportError(f"ONNX needs a converter that is not installed ({error}); {CONVERTER}") from error
    names = {"input_names": ["image"], "output_names": ["labels"], "model_name": "segmenter"}
    with library_form():
        model = to_onnx(labels_of(segmenter, size), [_photo(size)], **names)
    with replacing(path) as temporary:
        onnx.save(model, temporary)


def _photo(size: tuple[int, int]) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((1, *size, 3), jnp.uint8)
