"""Fully connected CRF: refines class scores so that they follow the image's edges."""

import importlib.util
from typing import Any, TypedDict

import numpy as np
from jaxtyping import Float, UInt8

from ssenet_jax.crf import pydensecrf_backend

BACKENDS = ("auto", "jax", "pydensecrf")


class Options(TypedDict):
    """What the backends take; see `dense_crf`."""

    iterations: int
    sxy_gaussian: int | float
    compat_gaussian: int | float
    sxy_bilateral: int | float
    srgb: int | float
    compat_bilateral: int | float


def dense_crf(
    image: UInt8[np.ndarray, "h w 3"],
    scores: Float[Any, "h w k"],
    *,
    iterations: int = 10,
    backend: str = "auto",
    sxy_gaussian: int | float = 3,
    compat_gaussian: int | float = 3,
    sxy_bilateral: int | float = 80,
    srgb: int | float = 13,
    compat_bilateral: int | float = 10,
) -> Float[Any, "h w k"]:
    """Mean-field marginals of a fully connected CRF with a Gaussian and a bilateral Potts term.

    Gradients are of reverse mode, and of "jax" alone. Trap: "pydensecrf" holds the interpreter lock, so run several
    images in processes, not threads; "jax" compiles for each size, so pad images of many sizes and use
    `crf.jax_backend.mean_field`.

    Args:
        image: RGB, 0..255.
        scores: probability-like, one map per class; clipped to [1e-5, 1] and taken as exp(-unary); need not sum to 1.
            With "jax" it may be a jax array, traced by `jax.grad` but not by `jax.jit`.
        iterations: of mean field, >= 0.
        backend: "pydensecrf", "jax", or "auto", see `pick_backend`.
        sxy_gaussian: width of the Gaussian kernel, pixels.
        compat_gaussian: weight of the Gaussian term.
        sxy_bilateral: spatial width of the bilateral kernel, pixels.
        srgb: colour width of the bilateral kernel, of 255.
        compat_bilateral: weight of the bilateral term.

    Returns:
        float32 marginals that sum to 1 over the classes; numpy, or a jax array where the scores were one and the
        backend is "jax".

    Raises:
        ValueError: unknown backend, an image that is not RGB of uint8, image and scores of different sizes, or a
            kernel without a width.
        ImportError: pydensecrf is not installed.

    Source: METHOD "CAM inference"; Kraehenbuehl and Koltun 2011.

    Examples:
        >>> import numpy as np
        >>> image = np.zeros((6, 8, 3), np.uint8)
        >>> image[:, 4:] = 255
        >>> scores = np.full((6, 8, 2), 0.5, np.float32)
        >>> scores[:, :4, 0], scores[:, 4:, 1] = 0.8, 0.8
        >>> dense_crf(image, scores).argmax(-1)[0]
        array([0, 0, 0, 0, 1, 1, 1, 1])
    """
    backend = pick_backend(backend)
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"dense_crf: the image is {image.dtype} {image.shape}; expected uint8 (h, w, 3), RGB")
    if scores.ndim != 3:
        raise ValueError(f"dense_crf: the scores are {scores.shape}; expected (h, w, k)")
    for name, width in (("sxy_gaussian", sxy_gaussian), ("sxy_bilateral", sxy_bilateral), ("srgb", srgb)):
        if not 0 < width < float("inf"):
            raise ValueError(f"dense_crf: {name} is {width}; it must be above 0 and finite")
    if image.shape[:2] != scores.shape[:2]:
        raise ValueError(f"dense_crf: the image is {image.shape[:2]} pixels, the scores {scores.shape[:2]}")
    options = Options(
        iterations=iterations,
        sxy_gaussian=sxy_gaussian,
        compat_gaussian=compat_gaussian,
        sxy_bilateral=sxy_bilateral,
        srgb=srgb,
        compat_bilateral=compat_bilateral,
    )
    if backend == "pydensecrf":
        return pydensecrf_backend.mean_field(image, np.asarray(scores, np.float32), **options)
    from ssenet_jax.crf import jax_backend  # here, so that worker processes of the other backend do without jax

    marginals = jax_backend.mean_field(image[None], scores[None], **options)[0]
    return np.asarray(marginals) if isinstance(scores, np.ndarray) else marginals


def pick_backend(backend: str) -> str:
    """What "auto" means here: "jax" on an accelerator and where pydensecrf is not installed, else "pydensecrf".

    Raises:
        ValueError: unknown backend.
        ImportError: the one that is named is not installed.
    """
    if backend not in BACKENDS:
        raise ValueError(f"dense_crf: backend must be one of {', '.join(BACKENDS)}, got {backend!r}")
    is_installed = importlib.util.find_spec("pydensecrf") is not None
    if backend == "pydensecrf" and not is_installed:
        raise ImportError("dense_crf: backend pydensecrf is not installed; pip install 'ssenet_jax[crf]'")
    if backend != "auto":
        return backend
    if not is_installed:
        return "jax"
    import jax

    return "pydensecrf" if jax.default_backend() == "cpu" else "jax"
