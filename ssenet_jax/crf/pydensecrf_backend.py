"""Mean field by pydensecrf (C++, permutohedral lattice); imported when called, for it may be absent."""

import numpy as np


def mean_field(
    image: np.ndarray,
    scores: np.ndarray,
    *,
    iterations: int,
    gaussian: tuple[int | float, ...],
    bilateral: tuple[int | float, ...],
) -> np.ndarray:
    """Marginals (h, w, k); `gaussian` is (sxy, compat), `bilateral` (sxy, srgb, compat); see `crf.dense_crf`."""
    try:
        from pydensecrf import densecrf
        from pydensecrf.utils import unary_from_softmax
    except ImportError as e:
        raise ImportError("dense_crf: backend pydensecrf is not installed; pip install pydensecrf2") from e
    h, w, k = scores.shape
    crf = densecrf.DenseCRF2D(w, h, k)
    crf.setUnaryEnergy(np.ascontiguousarray(unary_from_softmax(scores.transpose(2, 0, 1))))
    normalize = {"kernel": densecrf.DIAG_KERNEL, "normalization": densecrf.NORMALIZE_SYMMETRIC}
    crf.addPairwiseGaussian(sxy=gaussian[0], compat=gaussian[1], **normalize)
    crf.addPairwiseBilateral(sxy=bilateral[0], srgb=bilateral[1], rgbim=image, compat=bilateral[2], **normalize)
    marginals = np.asarray(crf.inference(iterations), np.float32)
    return np.ascontiguousarray(marginals.reshape(k, h, w).transpose(1, 2, 0))
