"""Convolutions without parameters: the library's, and those of 1x1 kernels as matrix products."""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

Pads = tuple[tuple[int, int], tuple[int, int]]

_always_library = ContextVar("_always_library", default=False)


@contextlib.contextmanager
def library_form() -> Iterator[None]:
    """What is traced inside has the library's convolution on every platform: a program for runtimes other than XLA."""
    token = _always_library.set(True)
    try:
        yield
    finally:
        _always_library.reset(token)


def uses_library() -> bool:
    """Whether what is traced now is to have no form of our own."""
    return _always_library.get()


def convolve(
    x: Float[Array, "n h w i"], kernel: Float[Array, "kh kw c o"], *, pads: Pads, stride: int, dilation: int = 1
) -> Float[Array, "n h2 w2 o"]:
    """The library's convolution; each filter sees c of the i channels, in i/c groups."""
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(stride, stride),
        padding=pads,
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1] // kernel.shape[2],
    )


@jax.custom_vjp
def pointwise(x: Float[Array, "n h w i"], kernel: Float[Array, "i o"]) -> Float[Array, "n h w o"]:
    """A 1x1 convolution as a matrix product."""
    return jnp.einsum("nhwi,io->nhwo", x, kernel)


def _pointwise_forward(x, kernel):
    return pointwise(x, kernel), (x, kernel)


def _pointwise_backward(residuals, gradient):
    x, kernel = residuals
    flat_x, flat_gradient = x.reshape(-1, x.shape[-1]), gradient.reshape(-1, gradient.shape[-1])
    # autodiff would make the transposed kernel's gradient and XLA a transposed copy of `gradient` for it
    kernel_gradient = lax.dot_general(flat_x, flat_gradient, (((0,), (0,)), ((), ())))
    return jnp.einsum("nhwo,io->nhwi", gradient, kernel), kernel_gradient


pointwise.defvjp(_pointwise_forward, _pointwise_backward)


def strided_pointwise(x: Float[Array, "n h w i"], kernel: Float[Array, "i o"], stride: int) -> Array:
    """A 1x1 convolution of every so many-th cell: a matrix product of these on a CPU, a convolution elsewhere.

    On a CPU the product with its gradient is six times faster; over a product of a strided slice in ResNet-38 XLA's
    compiler for GPUs ends the process ("Check failed: subdim_size_accumulator == dim_size", jax 0.11.2, an H200).
    """

    def product(x, kernel):
        return pointwise(x[:, ::stride, ::stride], kernel)

    def convolution(x, kernel):
        return convolve(x, kernel[None, None], pads=((0, 0), (0, 0)), stride=stride)

    if uses_library():
        return convolution(x, kernel)
    return lax.platform_dependent(x, kernel, cpu=product, default=convolution)
