"""Weakly supervised semantic segmentation in JAX: SSENet and the pipeline around it.

The pure functions and the models can be taken from here, ``from ssenet_jax import ser_loss``, or from their modules.
Nothing is imported until it is asked for, so a loss does not bring in the network library or the data pipeline.
"""

import importlib

__version__ = "0.1.0"

_HOME = {
    "equivariance": "resize hflip vflip rot90 rotate translate affine compose",
    "losses": "multilabel_soft_margin_loss ser_loss affinity_loss softmax_cross_entropy_ignore",
    "ser": "two_branch_loss",
    "seam": "pixel_correlation seam_loss",
    "cam": "normalize_cam add_background add_background_power cam_to_labels fuse_scales",
    "contrast": "border_contrast",
    "crf": "dense_crf",
    "affinity": "pair_offsets affinity_labels pair_affinity",
    "random_walk": "transition",
    "metrics": "confusion_matrix iou mean_iou m_fn m_fp alpha_sweep",
    "models": "CamNet SeamNet AffinityNet DeepLab",
    "segmenter": "load",
    "pretrained": "read_mxnet_params read_torch_checkpoint read_npz from_torch from_mxnet",
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names.split()}

__all__ = sorted(_MODULE_OF)


def __getattr__(name: str):
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'ssenet_jax' has no attribute {name!r}")
    return getattr(importlib.import_module(f"ssenet_jax.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
