"""Backbones and the networks built on them. Each returns `(output, taps)`."""

from ssenet_jax.models.backbone import Backbone
from ssenet_jax.models.heads import AFFINITY_STRIDE, AffinityNet, CamNet, DeepLab, FixedFeatures
from ssenet_jax.models.network import BACKBONES, backbone_row, default_frozen, output_size
from ssenet_jax.models.seamnet import SeamNet

NETWORKS = {"cam": CamNet, "seam": SeamNet, "affinity": AffinityNet, "segmenter": DeepLab}

__all__ = [
    "AFFINITY_STRIDE",
    "BACKBONES",
    "NETWORKS",
    "AffinityNet",
    "Backbone",
    "CamNet",
    "DeepLab",
    "FixedFeatures",
    "SeamNet",
    "backbone_row",
    "default_frozen",
    "output_size",
]
