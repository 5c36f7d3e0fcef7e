"""Backbones and the networks built on them. Each returns `(output, taps)`."""

from ssenet_jax.models.heads import AFFINITY_STRIDE, BACKBONES, AffinityNet, CamNet, DeepLab, output_size

__all__ = ["AFFINITY_STRIDE", "BACKBONES", "AffinityNet", "CamNet", "DeepLab", "output_size"]
