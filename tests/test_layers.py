"""Layers alone: norms frozen or not, gradients against the library, numerical ones and float32."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from ssenet_jax.models.convolution import convolve, pointwise, strided_pointwise
from ssenet_jax.models.depthwise import depthwise_conv
from ssenet_jax.models.inverted_residual import InvertedResidual, _in_strips
from ssenet_jax.models.layers import Conv, DepthwiseConv, Norm, relu6, strided_sizes, zero_outside


def norm_case(mode):
    x = jax.random.normal(jax.random.key(2), (4, 3, 5, 2)) * 3 + 1
    layer = Norm(mode)
    variables = jax.tree.map(lambda leaf: leaf + jnp.array([0.3, 0.1]), layer.init(jax.random.key(0), x))

    def total(params):
        inputs = {"params": params, "batch_stats": variables["batch_stats"]}
        y, updates = layer.apply(inputs, x, True, mutable=["batch_stats"])
        return jnp.sum(y**2), (y, updates["batch_stats"])

    gradients, (y, statistics) = jax.grad(total, has_aux=True)(variables["params"])
    return x, y, variables, gradients, statistics


def test_frozen_norms_neither_move_nor_learn():
    x, y, variables, gradients, statistics = jax.tree.map(np.asarray, norm_case("frozen"))
    assert not any(np.any(gradient) for gradient in jax.tree.leaves(gradients))
    jax.tree.map(np.testing.assert_array_equal, statistics, variables["batch_stats"])
    params, stored = variables["params"], statistics
    expected = (x - stored["mean"]) / np.sqrt(stored["var"] + 1e-5) * params["scale"] + params["bias"]
    np.testing.assert_allclose(y, expected, atol=1e-5)


def test_batch_norms_use_and_move_statistics():
    x, y, variables, gradients, statistics = norm_case("batch")
    assert all(np.all(gradient) for gradient in jax.tree.leaves(gradients))
    before = variables["batch_stats"]
    np.testing.assert_allclose(statistics["mean"], 0.9 * before["mean"] + 0.1 * x.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(statistics["var"], 0.9 * before["var"] + 0.1 * x.var((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(y.mean((0, 1, 2)), variables["params"]["bias"], atol=1e-5)
    np.testing.assert_allclose(y.std((0, 1, 2)), variables["params"]["scale"], rtol=1e-4)


BFLOAT16_LAYERS = {
    "bias": (partial(Conv, 3, 1, use_bias=True), ()),
    "bias of a 3x3": (partial(Conv, 3, use_bias=True), ()),
    "strided": (partial(Conv, 3, 1, 2), ()),
    "depthwise": (partial(DepthwiseConv, 3), ()),
    "norm": (partial(Norm, "batch"), (True,)),
}


@pytest.mark.parametrize("name", BFLOAT16_LAYERS)
def test_gradients_in_bfloat16_are_sums_in_float32(name):
    """Over 4,096 cells a sum in bfloat16 stops growing at a few hundred; one rounding of a whole sum is 0.4 %."""
    build, arguments = BFLOAT16_LAYERS[name]

    # numbers that bfloat16 holds, so that only the sums differ
    def draw(seed):
        return jnp.abs(jax.random.normal(jax.random.key(seed), (4, 32, 32, 3), jnp.bfloat16)).astype(jnp.float32)

    def gradients(dtype):
        layer = build(dtype=dtype)
        variables = jax.tree.map(
            lambda v: v.astype(jnp.bfloat16).astype(v.dtype), layer.init(jax.random.key(0), draw(1))
        )

        def total(params, x, cotangent):
            inputs = {**variables, "params": params}
            y, _ = layer.apply(inputs, x, *arguments, mutable=["batch_stats"])
            return jnp.sum(y.astype(jnp.float32) * cotangent[:, : y.shape[1], : y.shape[2]])

        return jax.jit(jax.grad(total, argnums=(0, 1)))(variables["params"], draw(1), draw(2))

    def compare(half, full):
        assert half.dtype == jnp.float32
        np.testing.assert_allclose(half, full, atol=8e-3 * np.abs(full).max())

    jax.tree.map(compare, gradients(jnp.bfloat16), gradients(jnp.float32))


@pytest.mark.parametrize(
    ("shape", "kernel", "pads", "stride", "dilation"),
    [
        ((21, 18), 5, ((2, 2), (1, 2)), 2, 1),
        ((45, 7), 3, ((2, 2), (2, 2)), 1, 2),
        ((22, 9), 3, ((0, 1), (1, 1)), 2, 1),
    ],
)
def test_depthwise_convolution_and_its_gradients_equal_the_library(shape, kernel, pads, stride, dilation):
    keys = jax.random.split(jax.random.key(5), 3)
    x = jax.random.normal(keys[0], (2, *shape, 3))
    weights = jax.random.normal(keys[1], (kernel, kernel, 1, 3))
    theirs, their_pullback = jax.vjp(partial(convolve, pads=pads, stride=stride, dilation=dilation), x, weights)
    ours, our_pullback = jax.vjp(lambda x, weights: depthwise_conv(x, weights, pads, stride, dilation), x, weights)
    cotangent = jax.random.normal(keys[2], theirs.shape)
    pairs = zip((ours, *our_pullback(cotangent)), (theirs, *their_pullback(cotangent)), strict=True)
    for mine, expected in pairs:
        np.testing.assert_allclose(mine, expected, atol=1e-5 * np.abs(expected).max())


def test_a_strided_product_and_its_gradients_equal_the_library():
    keys = jax.random.split(jax.random.key(10), 3)
    x, kernel = jax.random.normal(keys[0], (2, 7, 10, 3)), jax.random.normal(keys[1], (3, 5))
    theirs, their_pullback = jax.vjp(
        lambda x, kernel: convolve(x, kernel[None, None], pads=((0, 0), (0, 0)), stride=2), x, kernel
    )
    ours, our_pullback = jax.vjp(lambda x, kernel: strided_pointwise(x, kernel, 2), x, kernel)
    cotangent = jax.random.normal(keys[2], theirs.shape)
    for mine, expected in zip((ours, *our_pullback(cotangent)), (theirs, *their_pullback(cotangent)), strict=True):
        np.testing.assert_allclose(mine, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("shape", "sizes", "kernel", "stride", "dilation", "expansion"),
    [
        ((50, 9, 6), None, 3, 1, 1, 6),
        ((37, 12, 4), None, 5, 2, 1, 1),
        ((71, 8, 6), [[71, 5], [40, 8]], 3, 2, 1, 6),
        ((44, 10, 6), [[44, 10], [21, 3]], 5, 1, 2, 6),
    ],
)
def test_a_block_in_strips_is_the_block_layer_by_layer(shape, sizes, kernel, stride, dilation, expansion):
    block = InvertedResidual(6, kernel, stride, dilation, expansion, "frozen", jnp.float32)
    x = jax.random.normal(jax.random.key(8), (2, *shape))
    variables = jax.tree.map(lambda leaf: leaf + 0.1, block.init(jax.random.key(9), x, None, False))
    sizes = None if sizes is None else jnp.array(sizes, jnp.int32)

    def run(params, x, method=None):
        return block.apply({**variables, "params": params}, x, sizes, False, method=method)

    def valid(y):
        return zero_outside(y, strided_sizes(sizes, stride))

    strips = _in_strips(block, variables["params"], variables["batch_stats"], x, sizes)
    whole, pull_back = jax.vjp(partial(run, method="layers"), variables["params"], x)
    np.testing.assert_allclose(valid(run(variables["params"], x)), valid(whole), atol=1e-5)
    np.testing.assert_allclose(valid(strips), valid(whole), atol=1e-5)
    _, our_pull_back = jax.vjp(run, variables["params"], x)
    cotangent = valid(jnp.ones_like(whole))
    jax.tree.map(
        partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5), our_pull_back(cotangent), pull_back(cotangent)
    )


def test_written_gradients_equal_numerical_ones():
    x = jax.random.normal(jax.random.key(6), (1, 2, 3, 4)) * 3
    check_grads(relu6, (x,), order=1, modes=["rev"], eps=1e-3, atol=1e-2, rtol=1e-2)
    kernel = jax.random.normal(jax.random.key(7), (4, 2))
    check_grads(pointwise, (x, kernel), order=1, modes=["rev"], atol=1e-2, rtol=1e-2)
