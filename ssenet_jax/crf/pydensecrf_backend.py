"""Mean field by pydensecrf (C++, permutohedral lattice); imported when called, for it may be absent."""

import numpy as np


def mean_field(
    image: np.ndarray,
    scores: np.ndarray,
    *,
    iterations: int,
    sxy_gaussian: int | float,
    compat_gaussian: int | float,
    sxy_bilateral: int | float,
    srgb: int | float,
    compat_bilateral: int | float,
) -> np.ndarray:
    """Marginals (h, w, k); the arguments are those of `crf.dense_crf`."""
    from pydensecrf import densecrf
    from pydensecrf.utils import unary_from_softmax

    h, w, k = scores.shape
    crf = densecrf.DenseCRF2D(w, h, k)
    crf.setUnaryEnergy(np.ascontiguousarray(unary_from_softmax(scores.transpose(2, 0, 1))))
    normalize = {"kernel": densecrf.DIAG_KERNEL, "normalization": densecrf.NORMALIZE_SYMMETRIC}
    crf.addPairwiseGaussian(sxy=sxy_gaussian, compat=compat_gaussian, **normalize)
    image = np.require(image, requirements=["C", "W"])  # its C++ takes no read-only array, such as Pillow's
    crf.addPairwiseBilateral(sxy=sxy_bilateral, srgb=srgb, rgbim=image, compat=compat_bilateral, **normalize)
    marginals = np.asarray(crf.inference(iterations), np.float32)
    return np.ascontiguousarray(marginals.reshape(k, h, w).transpose(1, 2, 0))
