"""The depthwise convolution, with a CPU form that is many times faster than XLA's own.

On CPU, XLA runs a grouped convolution in a scalar loop. The sum over the kernel's taps of a shifted slice times a weight
is one vectorised loop; its gradients are written the same way. Elsewhere the library's convolution is used.
"""

from functools import partial, reduce

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def depthwise_conv(
    x: Float[Array, "n h w f"], kernel: Float[Array, "p q 1 f"], stride: int, dilation: int
) -> Float[Array, "n h2 w2 f"]:
    """A VALID depthwise convolution.

    Args:
        x: input, padded already.
        kernel: one filter a channel, HWIO.
        stride: step between output cells, in both directions.
        dilation: step between the kernel's taps.
    """
    return lax.platform_dependent(
        x, kernel, cpu=partial(_taps_sum, stride=stride, dilation=dilation), default=_library(stride, dilation)
    )


def _forward(x, kernel, stride, dilation):
    return depthwise_conv(x, kernel, stride, dilation), (x, kernel)


def _backward(stride, dilation, residuals, gradient):
    settings = {"stride": stride, "dilation": dilation}

    def library_gradient(index):
        def pull_back(x, kernel, gradient):
            return jax.vjp(_library(stride, dilation), x, kernel)[1](gradient)[index]

        return pull_back

    operands = (*residuals, gradient)
    return (
        lax.platform_dependent(*operands, cpu=partial(_input_gradient, **settings), default=library_gradient(0)),
        lax.platform_dependent(*operands, cpu=partial(_kernel_gradient, **settings), default=library_gradient(1)),
    )


depthwise_conv.defvjp(_forward, _backward)


def _library(stride: int, dilation: int):
    def convolve(x, kernel):
        return lax.conv_general_dilated(
            x,
            kernel,
            window_strides=(stride, stride),
            padding="VALID",
            rhs_dilation=(dilation, dilation),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=x.shape[-1],
        )

    return convolve


def _shifted_slices(x, kernel_shape, stride, dilation):
    """The slices of x that each tap of the kernel meets, row by row."""
    n, height, width, channels = x.shape
    rows, columns = kernel_shape[:2]
    out_h = (height - (rows - 1) * dilation - 1) // stride + 1
    out_w = (width - (columns - 1) * dilation - 1) // stride + 1
    for i in range(rows):
        for j in range(columns):
            start = (0, i * dilation, j * dilation, 0)
            stop = (n, start[1] + (out_h - 1) * stride + 1, start[2] + (out_w - 1) * stride + 1, channels)
            yield i, j, lax.slice(x, start, stop, (1, stride, stride, 1))


def _taps_sum(x, kernel, *, stride, dilation):
    weights = kernel.astype(jnp.float32)
    products = (
        piece.astype(jnp.float32) * weights[i, j][None, None]
        for i, j, piece in _shifted_slices(x, kernel.shape, stride, dilation)
    )
    return reduce(jnp.add, products).astype(x.dtype)


def _input_gradient(x, kernel, gradient, *, stride, dilation):
    reach = ((kernel.shape[0] - 1) * dilation, (kernel.shape[1] - 1) * dilation)
    zero = jnp.zeros((), gradient.dtype)
    pads = [(0, 0, 0)]
    for length, cells, extent in zip(x.shape[1:3], gradient.shape[1:3], reach, strict=True):
        unused = length - ((cells - 1) * stride + extent + 1)
        pads.append((extent, extent + unused, stride - 1))
    spread = lax.pad(gradient, zero, [*pads, (0, 0, 0)])
    return lax.optimization_barrier(_taps_sum(lax.optimization_barrier(spread), kernel[::-1, ::-1], stride=1, dilation=dilation))


def _kernel_gradient(x, kernel, gradient, *, stride, dilation):
    """One image at a time, so that its slices stay in cache; rows by fused additions, columns by a product with ones."""

    def add_image(total, image):
        piece, cotangent = (array[None].astype(jnp.float32) for array in image)
        sums = []
        for _, _, shifted in _shifted_slices(piece, kernel.shape, stride, dilation):
            by_column = reduce(jnp.add, [shifted[0, row] * cotangent[0, row] for row in range(cotangent.shape[1])])
            sums.append(jnp.ones((1, by_column.shape[0])) @ by_column)
        return total + jnp.stack(sums).reshape(kernel.shape), None

    total = lax.scan(add_image, jnp.zeros(kernel.shape, jnp.float32), (x, gradient))[0]
    return total.astype(kernel.dtype)
