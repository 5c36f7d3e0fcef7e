"""The depthwise convolution, with a CPU form that is many times faster than XLA's own.

On CPU, XLA runs a grouped convolution in a scalar loop. The sum over the kernel's taps of a shifted slice times a
weight is one vectorised loop; its gradients are written the same way. Images are taken one at a time: their slices stay
in cache, and XLA cannot fuse the sum into every consumer and compute it again there. Elsewhere the library's
convolution is used.
"""

from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from ssenet_jax.models.convolution import Pads, convolve, uses_library

# rows that one fused loop of the kernel's gradient adds up; more are slower to compile and little faster
_STRIP_ROWS = 10


@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def depthwise_conv(
    x: Float[Array, "n h w f"], kernel: Float[Array, "p q 1 f"], pads: Pads, stride: int, dilation: int
) -> Float[Array, "n h2 w2 f"]:
    """A depthwise convolution.

    Args:
        x: the input.
        kernel: one filter a channel, HWIO.
        pads: zeros before and after, for the rows and for the columns.
        stride: step between output cells, in both directions.
        dilation: step between the kernel's taps.
    """
    settings: dict[str, Any] = {"pads": pads, "stride": stride, "dilation": dilation}
    if uses_library():
        return convolve(x, kernel, **settings)
    return lax.platform_dependent(
        x, kernel, cpu=partial(_sum_of_taps, **settings), default=partial(convolve, **settings)
    )


def _forward(x, kernel, pads, stride, dilation):
    return depthwise_conv(x, kernel, pads, stride, dilation), (x, kernel)


def _backward(pads, stride, dilation, residuals, gradient):
    settings: dict[str, Any] = {"pads": pads, "stride": stride, "dilation": dilation}

    def library_gradient(index):
        def pull_back(x, kernel, gradient):
            return jax.vjp(partial(convolve, **settings), x, kernel)[1](gradient)[index]

        return pull_back

    operands = (*residuals, gradient)
    return (
        lax.platform_dependent(*operands, cpu=partial(_input_gradient, **settings), default=library_gradient(0)),
        lax.platform_dependent(*operands, cpu=partial(_kernel_gradient, **settings), default=library_gradient(1)),
    )


depthwise_conv.defvjp(_forward, _backward)


def _taps(image, kernel_shape, stride, dilation):
    """The slice of a padded image (h,w,f) that each tap of the kernel meets, row by row."""
    height, width, channels = image.shape
    rows, columns = kernel_shape[:2]
    last_row = (height - (rows - 1) * dilation - 1) // stride * stride
    last_column = (width - (columns - 1) * dilation - 1) // stride * stride
    for top in range(0, rows * dilation, dilation):
        for left in range(0, columns * dilation, dilation):
            stop = (top + last_row + 1, left + last_column + 1, channels)
            yield lax.slice(image, (top, left, 0), stop, (stride, stride, 1))


def _padded(image, row_pads, column_pads, step=1):
    """The image in float32 with zeros around it, and `step - 1` zeros between its cells."""
    pads = ((*row_pads, step - 1), (*column_pads, step - 1), (0, 0, 0))
    return lax.pad(image.astype(jnp.float32), jnp.float32(0), pads)


def weighted_sum(
    image: Float[Array, "h w f"], kernel: Float[Array, "p q 1 f"], stride: int, dilation: int
) -> Float[Array, "h2 w2 f"]:
    """The depthwise convolution of one image, without padding, as a sum of its taps."""
    weights = kernel.astype(jnp.float32).reshape(-1, 1, 1, kernel.shape[-1])
    return reduce(
        jnp.add, (tap * w for tap, w in zip(_taps(image, kernel.shape, stride, dilation), weights, strict=True))
    )


def _sum_of_taps(x, kernel, *, pads, stride, dilation):
    def convolve(image):
        return weighted_sum(_padded(image, *pads), kernel, stride, dilation).astype(x.dtype)

    return lax.map(convolve, x)


def _input_gradient(x, kernel, gradient, *, pads, stride, dilation):
    """The taps in reverse order over the gradient, spread by the stride; a pad takes away what it put on."""
    reach = [(length - 1) * dilation for length in kernel.shape[:2]]
    spread = []
    for length, cells, extent, (before, after) in zip(x.shape[1:3], gradient.shape[1:3], reach, pads, strict=True):
        unused = before + length + after - ((cells - 1) * stride + extent + 1)
        spread.append((extent - before, extent - after + unused))

    def convolve(image):
        return weighted_sum(_padded(image, *spread, stride), kernel[::-1, ::-1], 1, dilation).astype(x.dtype)

    return lax.map(convolve, gradient)


def _kernel_gradient(x, kernel, gradient, *, pads, stride, dilation):
    """Rows of a strip are summed by fused additions, columns by a product with ones.

    XLA's own reduction is three times slower.
    """
    strips = -(-gradient.shape[1] // _STRIP_ROWS)
    rows = -(-gradient.shape[1] // strips)
    extra = strips * rows - gradient.shape[1]
    extent = (rows - 1) * stride + (kernel.shape[0] - 1) * dilation + 1
    row_pads = (pads[0][0], pads[0][1] + extra * stride)

    def add_image(total, operands):
        image, cotangent = _padded(operands[0], row_pads, pads[1]), _padded(operands[1], (0, extra), (0, 0))

        def add_strip(total, strip):
            tile = lax.dynamic_slice_in_dim(image, strip * rows * stride, extent)
            weights = lax.dynamic_slice_in_dim(cotangent, strip * rows, rows)
            return total + _correlate(tile, weights, kernel.shape, stride, dilation), None

        return lax.scan(add_strip, total, jnp.arange(strips))

    total = lax.scan(lambda total, pair: (add_image(total, pair)[0], None), jnp.zeros(kernel.shape), (x, gradient))[0]
    return total.astype(kernel.dtype)


def _correlate(tile, weights, kernel_shape, stride, dilation):
    rows, columns = weights.shape[:2]
    sums = []
    for tap in _taps(tile, kernel_shape, stride, dilation):
        by_column = reduce(jnp.add, [tap[row] * weights[row] for row in range(rows)])
        sums.append(jnp.ones((1, columns)) @ by_column)
    return jnp.stack(sums).reshape(kernel_shape)
