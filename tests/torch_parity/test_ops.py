"""Ops beside PyTorch's on random shapes.

Not part of the main run: `pip install .[torch]`, then `pytest tests/torch_parity`.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ssenet_jax.equivariance import resize_to
from ssenet_jax.losses import multilabel_soft_margin_loss
from ssenet_jax.models.layers import Conv, channel_dropout
from ssenet_jax.training import optim

torch = pytest.importorskip("torch", reason="PyTorch is not installed")


def random_array(rng, *shape):
    return rng.standard_normal(shape, dtype=np.float32)


def to_torch(x):
    return torch.from_numpy(np.ascontiguousarray(np.transpose(x, (0, 3, 1, 2))))


@pytest.mark.parametrize("seed", range(6))
def test_convolution_with_stride_and_dilation(seed):
    rng = np.random.default_rng(seed)
    height, width, stride, dilation, kernel = *rng.integers(9, 24, 2), *rng.integers(1, 4, 2), rng.choice([1, 3, 5])
    x, weights = random_array(rng, 2, height, width, 3), random_array(rng, kernel, kernel, 3, 4)
    layer = Conv(4, int(kernel), int(stride), int(dilation))
    ours = layer.apply({"params": {"kernel": weights}}, x)
    pad = int(dilation * (kernel - 1) // 2)
    weights = torch.from_numpy(np.transpose(weights, (3, 2, 0, 1)).copy())
    theirs = torch.nn.functional.conv2d(to_torch(x), weights, None, int(stride), pad, int(dilation))
    np.testing.assert_allclose(np.transpose(ours, (0, 3, 1, 2)), theirs.numpy(), atol=1e-4)


@pytest.mark.parametrize("seed", range(4))
def test_bilinear_resize(seed):
    rng = np.random.default_rng(seed)
    height, width, out_h, out_w = (int(length) for length in rng.integers(5, 40, 4))
    x = random_array(rng, 2, height, width, 3)
    theirs = torch.nn.functional.interpolate(to_torch(x), (out_h, out_w), mode="bilinear", align_corners=False)
    ours = np.transpose(resize_to(jnp.asarray(x), (out_h, out_w)), (0, 3, 1, 2))
    np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-5)


def test_channel_dropout_has_the_same_expectation():
    x = np.ones((400, 3, 2, 50), np.float32)
    dropout = channel_dropout(0.3, "dropout")
    ours = np.asarray(dropout.apply({}, x, deterministic=False, rngs={"dropout": jax.random.key(0)}))
    theirs = torch.nn.functional.dropout2d(to_torch(x), 0.3).numpy()
    assert set(np.unique(ours)) == set(np.unique(theirs)) == {0.0, np.float32(1 / 0.7)}
    assert abs(ours.mean() - theirs.mean()) < 0.05
    assert (ours == ours[:, :1, :1]).all()


def test_soft_margin_loss():
    rng = np.random.default_rng(0)
    logits, labels = random_array(rng, 5, 7) * 10, rng.integers(0, 2, (5, 7)).astype(np.float32)
    theirs = torch.nn.functional.multilabel_soft_margin_loss(
        torch.from_numpy(logits), torch.from_numpy(labels), reduction="none"
    )
    ours = multilabel_soft_margin_loss(jnp.asarray(logits), jnp.asarray(labels))
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-5)


def test_twenty_steps_of_sgd():
    rng = np.random.default_rng(0)
    start, gradients = random_array(rng, 4, 3), random_array(rng, 20, 4, 3)
    params = {"kernel": jnp.asarray(start)}
    tx = optim.sgd(params, ((".*", 2.0, 0.01),), base_lr=0.1, total_steps=20, power=0.0, momentum=0.9)
    weight = torch.nn.Parameter(torch.from_numpy(start.copy()))
    theirs = torch.optim.SGD([weight], lr=0.2, momentum=0.9, weight_decay=0.01)
    state = tx.init(params)
    for gradient in gradients:
        updates, state = tx.update({"kernel": jnp.asarray(gradient)}, state, params)
        params = optax.apply_updates(params, updates)
        weight.grad = torch.from_numpy(gradient.copy())
        theirs.step()
    np.testing.assert_allclose(params["kernel"], weight.detach().numpy(), atol=1e-5)
