"""Fully connected CRF: refines class scores so that they follow the image's edges."""

import numpy as np
from jaxtyping import Float, UInt8

from ssenet_jax.crf import pydensecrf_backend

BACKENDS = ("auto", "pydensecrf")


def dense_crf(
    image: UInt8[np.ndarray, "h w 3"],
    scores: Float[np.ndarray, "h w k"],
    *,
    iterations: int = 10,
    backend: str = "auto",
    sxy_gaussian: int | float = 3,
    compat_gaussian: int | float = 3,
    sxy_bilateral: int | float = 80,
    srgb: int | float = 13,
    compat_bilateral: int | float = 10,
) -> Float[np.ndarray, "h w k"]:
    """Mean-field marginals of a fully connected CRF with a Gaussian and a bilateral Potts term.

    Holds the interpreter lock: run several images in processes, not threads.

    Args:
        image: RGB, 0..255.
        scores: probability-like, one map per class; clipped to [1e-5, 1] and taken as exp(-unary); need not sum to 1.
        iterations: of mean field, >= 0.
        backend: "pydensecrf"; "auto" takes the best one available.
        sxy_gaussian: width of the Gaussian kernel, pixels.
        compat_gaussian: weight of the Gaussian term.
        sxy_bilateral: spatial width of the bilateral kernel, pixels.
        srgb: colour width of the bilateral kernel, of 255.
        compat_bilateral: weight of the bilateral term.

    Returns:
        float32 marginals that sum to 1 over the classes.

    Raises:
        ValueError: unknown backend, or image and scores of different sizes.
        ImportError: pydensecrf is not installed.

    Source: METHOD "CAM inference"; Kraehenbuehl and Koltun 2011.
    """
    if backend not in BACKENDS:
        raise ValueError(f"dense_crf: backend must be one of {', '.join(BACKENDS)}, got {backend!r}")
    image, scores = np.ascontiguousarray(image), np.asarray(scores, np.float32)
    if image.shape[:2] != scores.shape[:2]:
        raise ValueError(f"dense_crf: the image is {image.shape[:2]} pixels, the scores {scores.shape[:2]}")
    return pydensecrf_backend.mean_field(
        image,
        scores,
        iterations=iterations,
        gaussian=(sxy_gaussian, compat_gaussian),
        bilateral=(sxy_bilateral, srgb, compat_bilateral),
    )
