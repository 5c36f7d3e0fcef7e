"""EfficientNet's block, with a CPU form for when nothing in it learns: a strip of rows at a time.

The wide maps inside a block are six times its input. Computed whole, they go to memory and back for every layer; a
strip's stay in cache. The CAM of a photo takes a fifth less time that way, a third less without huge pages.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from ssenet_jax.models.convolution import pointwise, uses_library
from ssenet_jax.models.depthwise import weighted_sum
from ssenet_jax.models.layers import Conv, DepthwiseConv, Norm, relu6, same_padding

EPSILON = 1e-3  # of the norms

_STRIP_ROWS = 16  # of the output; fewer repeat more of the rows that strips share, more leave the cache


class InvertedResidual(nn.Module):
    """Widen (1x1), filter a channel at a time, narrow (1x1); added to its input where the shapes agree."""

    channels: int
    kernel: int
    stride: int
    dilation: int
    expansion: int
    norm: str
    dtype: jnp.dtype

    def __call__(self, x: Float[Array, "n h w f"], sizes: Int[Array, "n 2"] | None, train: bool):
        if self.is_initializing() or (train and self.norm == "batch"):
            return self.layers(x, sizes, train)
        module, variables = self.unbind()
        return _without_statistics(module, variables["params"], variables["batch_stats"], x, sizes)

    @nn.compact
    def layers(self, x, sizes, train):
        """The block layer by layer."""

        def norm(name):
            return Norm(self.norm, EPSILON, self.dtype, name=name)

        y = x
        if self.expansion > 1:
            y = Conv(x.shape[-1] * self.expansion, 1, dtype=self.dtype, name="expand_conv")(y)
            y = relu6(norm("bn0")(y, train))
        filters = DepthwiseConv(self.kernel, self.stride, self.dilation, self.dtype, name="depthwise_conv")
        y = relu6(norm("bn1")(filters(y, sizes), train))
        y = norm("bn2")(Conv(self.channels, 1, dtype=self.dtype, name="project_conv")(y), train)
        return x + y if self.stride == 1 and x.shape[-1] == self.channels else y


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _without_statistics(module, params, batch_stats, x, sizes):
    """The block when no batch moves its statistics. For a gradient, which needs the maps, layer by layer."""
    layers = partial(_layers, module)
    if uses_library():
        return layers(params, batch_stats, x, sizes)
    in_strips = partial(_in_strips, module)
    return lax.platform_dependent(params, batch_stats, x, sizes, cpu=in_strips, default=layers)


def _layers(module, params, batch_stats, x, sizes):
    variables = {"params": params, "batch_stats": batch_stats}
    return module.apply(variables, x, sizes, False, method=InvertedResidual.layers)


def _forward(module, params, batch_stats, x, sizes):
    return jax.vjp(lambda params, x: _layers(module, params, batch_stats, x, sizes), params, x)


def _backward(module, pull_back, gradient):
    params, x = pull_back(gradient)
    return params, None, x, None


_without_statistics.defvjp(_forward, _backward)


def _in_strips(module, params, batch_stats, x, sizes):
    kernel, stride, dilation = module.kernel, module.stride, module.dilation
    reach = (kernel - 1) * dilation

    def norm(name, y):
        variables = {"params": params[name], "batch_stats": batch_stats[name]}
        return Norm(module.norm, EPSILON, module.dtype, parent=None).apply(variables, y)

    def weights(name):
        return params[name]["kernel"].astype(module.dtype)

    def grid(values):
        values, pads = same_padding(values, sizes, kernel=kernel, stride=stride, dilation=dilation)
        return jnp.pad(values, ((0, 0), *pads, (0, 0)))

    # the filters meet zeros outside the image: the narrow input is padded, and what is made of its padding wiped out
    padded, inside = grid(x.astype(module.dtype)), grid(jnp.ones((*x.shape[:3], 1), bool))
    height, width = ((length - reach - 1) // stride + 1 for length in padded.shape[1:3])
    strips = -(-height // max(_STRIP_ROWS, 3 * reach))
    rows = -(-height // strips)
    extent = (rows - 1) * stride + reach + 1
    missing = max(0, (strips * rows - 1) * stride + reach + 1 - padded.shape[1])

    def of_image(image):
        image, inside = (jnp.pad(values, ((0, missing), (0, 0), (0, 0))) for values in image)

        def of_strip(number):
            y, valid = (
                lax.dynamic_slice_in_dim(values, number * rows * stride, extent)[None] for values in (image, inside)
            )
            if module.expansion > 1:
                y = relu6(norm("bn0", pointwise(y, weights("expand_conv")[0, 0])))
                y = jnp.where(valid, y, jnp.zeros((), y.dtype))
            # unless it is padded behind a barrier, XLA computes the strip again for every tap
            y = lax.optimization_barrier(jnp.pad(y, ((0, 0), (0, 0), (0, 1), (0, 0))))
            filtered = weighted_sum(y[0].astype(jnp.float32), weights("depthwise_conv"), stride, dilation)
            y = relu6(norm("bn1", filtered[None, :, :width].astype(module.dtype)))
            return norm("bn2", pointwise(y, weights("project_conv")[0, 0]))[0]

        return lax.map(of_strip, jnp.arange(strips, dtype=jnp.int32)).reshape(strips * rows, width, -1)[:height]

    y = lax.map(of_image, (padded, inside))
    return x + y if stride == 1 and x.shape[-1] == module.channels else y
