"""Convolutions, norms and padding that the two backbones and the heads share.

Every layer takes `sizes`, the valid height and width of each image of a zero-padded batch, or None when every pixel is
valid. A layer with spatial extent sets its input outside that area to zero first, which is what the padding of the
unpadded image would have held.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from ssenet_jax.models.convolution import convolve, pointwise, strided_pointwise
from ssenet_jax.models.depthwise import depthwise_conv

he_normal = nn.initializers.he_normal()


def scale_width(channels: int, width: float) -> int:
    """Channels of a narrowed layer: `round(channels * width)`, at least 1."""
    return max(1, round(channels * width))


def strided_sizes(sizes: Int[Array, "n 2"] | None, stride: int) -> Int[Array, "n 2"] | None:
    """Valid cells after a layer with this stride, whose padding is always such that sizes round up."""
    return None if sizes is None else (sizes + (stride - 1)) // stride


def valid_pixels(x: Float[Array, "n h w f"], sizes: Int[Array, "n 2"]) -> Bool[Array, "n h w"]:
    """Which pixels, or cells, of padded arrays lie in each image's valid area."""
    rows = jnp.arange(x.shape[1], dtype=sizes.dtype)[None, :] < sizes[:, :1]
    columns = jnp.arange(x.shape[2], dtype=sizes.dtype)[None, :] < sizes[:, 1:]
    return rows[:, :, None] & columns[:, None, :]


def zero_outside(x: Float[Array, "n h w f"], sizes: Int[Array, "n 2"] | None) -> Float[Array, "n h w f"]:
    """Sets what lies below and to the right of each image's valid area to zero."""
    if sizes is None:
        return x
    return jnp.where(valid_pixels(x, sizes)[..., None], x, jnp.zeros((), x.dtype))


def pool_cells(x: Float[Array, "n h w f"], stride: int) -> Float[Array, "n h2 w2 f"]:
    """The mean over each cell of so many pixels a side; what a last row or column lacks counts as zero."""
    n, height, width, channels = x.shape
    rows, columns = -(-height // stride), -(-width // stride)
    x = jnp.pad(x, [(0, 0), (0, rows * stride - height), (0, columns * stride - width), (0, 0)])
    return x.reshape(n, rows, stride, columns, stride, channels).mean((2, 4))


def fill_outside(x: Float[Array, "n h w f"], sizes: Int[Array, "n 2"] | None) -> Float[Array, "n h w f"]:
    """Repeats the last valid row and column outwards, so that a bilinear resize sees the edge of the unpadded image."""
    if sizes is None:
        return x
    rows = jnp.minimum(jnp.arange(x.shape[1])[None, :], sizes[:, :1] - 1)
    columns = jnp.minimum(jnp.arange(x.shape[2])[None, :], sizes[:, 1:] - 1)
    x = jnp.take_along_axis(x, rows[:, :, None, None], axis=1)
    return jnp.take_along_axis(x, columns[:, None, :, None], axis=2)


def same_padding(
    x: Float[Array, "n h w f"], sizes: Int[Array, "n 2"] | None, *, kernel: int, stride: int, dilation: int
) -> tuple[Float[Array, "n h2 w2 f"], tuple[tuple[int, int], tuple[int, int]]]:
    """What TensorFlow's SAME means for each unpadded image: the input of a convolution and its explicit padding.

    At stride 2 SAME starts one pixel earlier for an odd size than for an even one; in a padded batch each image decides
    for itself.
    """
    reach = (kernel - 1) * dilation
    x = zero_outside(x, sizes)
    if sizes is None:
        rows, columns = (_same_pads(length, reach, stride) for length in x.shape[1:3])
        return x, (rows, columns)
    if stride == 1:
        return x, ((reach // 2, reach - reach // 2),) * 2
    pads = (reach // 2, reach - reach // 2 + 1)
    x = jnp.pad(x, ((0, 0), pads, pads, (0, 0)))
    for axis in (1, 2):
        even = (sizes[:, axis - 1] % 2 == 0)[:, None, None, None]
        length = x.shape[axis] - 1
        late, early = lax.slice_in_dim(x, 1, length + 1, axis=axis), lax.slice_in_dim(x, 0, length, axis=axis)
        x = jnp.where(even, late, early)
    return x, ((0, 0), (0, 0))


def _same_pads(length: int, reach: int, stride: int) -> tuple[int, int]:
    total = max((math.ceil(length / stride) - 1) * stride + reach + 1 - length, 0)
    return total // 2, total - total // 2


def rematerialised(block: type[nn.Module], remat: bool) -> type[nn.Module]:
    """The class of a block `(x, sizes, train)`; with `remat` its activations are computed again for its gradient."""
    return nn.remat(block, static_argnums=(3,)) if remat else block


class Conv(nn.Module):
    """A convolution whose kernel is stored as HWIO; a 1x1 convolution is computed as a matrix product.

    On CPU the gradient of a 1x1 kernel is about five times faster that way. With a stride it is one on a CPU alone.

    Args:
        padding: "torch" pads `dilation * (kernel - 1) / 2` on each side whatever the stride, "same" as TensorFlow.
    """

    features: int
    kernel: int = 3
    stride: int = 1
    dilation: int = 1
    padding: str = "torch"
    use_bias: bool = False
    kernel_init: nn.initializers.Initializer = he_normal
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "n h w f"], sizes: Int[Array, "n 2"] | None = None):
        shape = (self.kernel, self.kernel, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32).astype(self.dtype)
        x = x.astype(self.dtype)
        if self.kernel == 1 and self.stride == 1:
            x = pointwise(x, kernel[0, 0])
        elif self.kernel == 1:
            x = strided_pointwise(x, kernel[0, 0], self.stride)
        else:
            x = self._spatial(x, kernel, sizes)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
            # in float32, because the bias's gradient is a sum over all cells in this type
            x = (x.astype(jnp.float32) + bias[None, None, None, :]).astype(self.dtype)
        return x

    def _spatial(self, x, kernel, sizes):
        if self.padding == "same":
            x, pads = same_padding(x, sizes, kernel=self.kernel, stride=self.stride, dilation=self.dilation)
        else:
            x = zero_outside(x, sizes)
            pads = ((self.dilation * (self.kernel - 1) // 2,) * 2,) * 2
        return convolve(x, kernel, pads=pads, stride=self.stride, dilation=self.dilation)


class DepthwiseConv(nn.Module):
    """One filter a channel, TensorFlow's SAME padding; the kernel is stored as (kernel, kernel, 1, channels)."""

    kernel: int
    stride: int = 1
    dilation: int = 1
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "n h w f"], sizes: Int[Array, "n 2"] | None = None):
        kernel = self.param("kernel", he_normal, (self.kernel, self.kernel, 1, x.shape[-1]), jnp.float32)
        x = x.astype(self.dtype)
        x, pads = same_padding(x, sizes, kernel=self.kernel, stride=self.stride, dilation=self.dilation)
        return depthwise_conv(x, kernel.astype(self.dtype), pads, self.stride, self.dilation)


class Norm(nn.Module):
    """Batch normalisation, frozen or not; statistics are of the global batch, since they are plain means under jit.

    Args:
        mode: "frozen": stored statistics always, and no gradient to scale and bias. "batch": the batch's statistics
            when training, which also move the stored ones by a tenth.
    """

    mode: str = "frozen"
    epsilon: float = 1e-5
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "n h w f"], train: bool = False):
        shape = (x.shape[-1],)
        scale = self.param("scale", nn.initializers.ones, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, shape, jnp.float32)
        mean = self.variable("batch_stats", "mean", jnp.zeros, shape, jnp.float32)
        var = self.variable("batch_stats", "var", jnp.ones, shape, jnp.float32)
        if self.mode == "frozen":
            scale, bias = lax.stop_gradient(scale), lax.stop_gradient(bias)
        if self.mode == "frozen" or not train:
            return self._affine(x, mean.value, var.value, scale, bias)
        values = x.astype(jnp.float32)
        batch_mean = jnp.mean(values, (0, 1, 2))
        batch_var = jnp.mean(jnp.square(values - batch_mean[None, None, None, :]), (0, 1, 2))
        if not self.is_initializing():
            mean.value = 0.9 * mean.value + 0.1 * batch_mean
            var.value = 0.9 * var.value + 0.1 * batch_var
        return self._affine(x, batch_mean, batch_var, scale, bias)

    def _affine(self, x, mean, var, scale, bias):
        factor = scale * lax.rsqrt(var + self.epsilon)
        offset = bias - mean * factor
        y = x.astype(jnp.float32) * factor[None, None, None, :] + offset[None, None, None, :]
        return y.astype(self.dtype)


@jax.custom_vjp
def relu6(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """min(max(x, 0), 6); the gradient is read off the output, which the next layer keeps anyway."""
    return jnp.clip(x, 0, 6)


def _relu6_forward(x):
    y = relu6(x)
    return y, y


def _relu6_backward(y, gradient):
    return (jnp.where((y > 0) & (y < 6), gradient, jnp.zeros((), gradient.dtype)),)


relu6.defvjp(_relu6_forward, _relu6_backward)


def channel_dropout(rate: float, name: str) -> nn.Dropout:
    """Dropout of whole channels (PyTorch's Dropout2d): one draw an image and channel."""
    return nn.Dropout(rate, broadcast_dims=(1, 2), name=name)
