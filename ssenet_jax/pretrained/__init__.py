"""Weights made elsewhere: readers that need neither MXNet nor PyTorch, and strict name maps."""

from ssenet_jax.pretrained.load import from_mxnet, from_torch, initialise_missing, load_weights, read_weights, shapes_of
from ssenet_jax.pretrained.mxnet import read_mxnet_params
from ssenet_jax.pretrained.npz import read_npz
from ssenet_jax.pretrained.safetensors import read_safetensors
from ssenet_jax.pretrained.torch import read_torch_checkpoint

__all__ = [
    "from_mxnet",
    "from_torch",
    "initialise_missing",
    "load_weights",
    "read_mxnet_params",
    "read_npz",
    "read_safetensors",
    "read_torch_checkpoint",
    "read_weights",
    "shapes_of",
]
