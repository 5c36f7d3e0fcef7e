"""ResNet-38 at full width against arrays that the authors' PyTorch code made from generated weights.

golden/model_*.npz are slices of those arrays. The weights are drawn per name (METHOD, "Golden arrays"), so the loader's
name map and kernel layout are under test as well. All tolerances are relative to the largest absolute value; the error of
two float32 programs that sum in another order is near 1e-6.
"""

import math
import zlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict
from PIL import Image

from ssenet_jax import optim
from ssenet_jax.equivariance import resize, resize_to
from ssenet_jax.models import BACKBONES, AffinityNet, CamNet
from ssenet_jax.pretrained import from_torch
from ssenet_jax.pretrained.names import resnet38_torch_name
from ssenet_jax.ser import two_branch_loss

GOLDEN = Path(__file__).parent / "golden"
SER_GROUPS = (
    (r"backbone/(conv1a|b2|b2_1|b2_2)/.*", 0.0, 0.0),
    (r".*/(scale|bias)", 0.0, 0.0),
    (r"backbone/.*/kernel", 1.0, 5e-4),
    (r"fc8/kernel", 10.0, 5e-4),
)


def golden(name):
    with np.load(GOLDEN / f"model_{name}.npz") as arrays:
        return dict(arrays)


def draw(name, path, shape):
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if len(shape) == 4:
        fan_in = math.prod(shape[1:])
        return rng.standard_normal(shape, dtype=np.float32) * np.float32(np.sqrt(1 / fan_in))
    if path[-1] in ("scale", "var"):
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    return (0.1 * rng.standard_normal(shape)).astype(np.float32)


def drawn_state_dict(model):
    shapes = flatten_dict(jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3))))
    names = {path: resnet38_torch_name(path) for path in shapes}
    oihw = {path: tuple(np.transpose(np.empty(leaf.shape, "?"), (3, 2, 0, 1)).shape) if leaf.ndim == 4 else leaf.shape
            for path, leaf in shapes.items()}
    return {names[path]: draw(names[path], path, oihw[path]) for path in shapes}


@pytest.fixture(scope="session")
def cam_net():
    model = CamNet()
    return model, from_torch(drawn_state_dict(model), model)


def drawn_images(seed, shape):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape, dtype=np.float32).transpose(0, 2, 3, 1))


def relative_error(ours, theirs):
    return np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max()


def to_nchw(x):
    return np.asarray(x).transpose(0, 3, 1, 2)


def test_backbone_and_cam_agree_with_the_authors(cam_net):
    model, variables = cam_net
    theirs = golden("backbone")
    cam, taps = jax.jit(model.apply)(variables, drawn_images(0, (1, 3, 70, 93)))
    ours = {name: to_nchw(taps[name])[:, ::step] for name, step in (("conv4", 16), ("conv5", 32), ("conv6", 64))}
    ours |= {"cam_feature": to_nchw(cam), "cam": to_nchw(resize_to(cam, (70, 93)))[:, :, ::5, ::5]}
    errors = {name: relative_error(ours[name], theirs[name]) for name in theirs}
    assert max(errors.values()) < 2e-5, errors


def test_bfloat16_stays_close(cam_net):
    _, variables = cam_net
    theirs = golden("backbone")["cam_feature"]
    cam, _ = jax.jit(CamNet(dtype=jnp.bfloat16).apply)(variables, drawn_images(0, (1, 3, 70, 93)))
    assert cam.dtype == jnp.float32
    assert relative_error(to_nchw(cam), theirs) < 3e-2
    assert (to_nchw(cam).argmax(1) == theirs.argmax(1)).mean() > 0.9


def test_first_scale_of_cam_inference(cam_net):
    model, variables = cam_net
    theirs = golden("cam")
    image = Image.fromarray(theirs["image"])
    half = image.resize((round(image.width / 2), round(image.height / 2)), Image.Resampling.BICUBIC)
    facts = BACKBONES["resnet38"]
    pixels = (np.asarray(half, np.float32) - np.float32(facts.mean)) / np.float32(facts.std)
    cam, _ = jax.jit(model.apply)(variables, jnp.asarray(pixels[None]))
    cam = to_nchw(resize_to(jax.nn.relu(cam), theirs["image"].shape[:2]))[0]
    assert relative_error(cam[theirs["labels"] > 0][:, ::3, ::3], theirs["first"]) < 1e-4


def test_three_training_steps_agree_with_the_authors(cam_net):
    model, variables = cam_net
    theirs = golden("ser")
    images = drawn_images(1, (2, 3, 112, 112))
    labels = jnp.zeros((2, 20)).at[[0, 0, 1], [2, 14, 7]].set(1.0)
    tx = optim.sgd(variables["params"], SER_GROUPS, base_lr=0.001, total_steps=10, power=0.9, momentum=5e-4)
    trainable, frozen = optim.split_trainable(variables["params"], SER_GROUPS)

    def loss_fn(trainable):
        inputs = {"params": optim.merge(trainable, frozen), "batch_stats": variables["batch_stats"]}
        return two_branch_loss(lambda x: model.apply(inputs, x)[0], images, labels, resize(0.3))

    @jax.jit
    def step(trainable, state):
        (loss, parts), gradients = jax.value_and_grad(loss_fn, has_aux=True)(trainable)
        updates, state = tx.update(gradients, state, trainable)
        norms = jax.tree.map(lambda g: jnp.sqrt(jnp.sum(jnp.square(g))), gradients)
        kept = {name: gradients[name] for name in ("fc8/kernel", "backbone/b7/conv_branch2b1/kernel")}
        return optax.apply_updates(trainable, updates), state, (loss, parts), norms, kept

    state = tx.init(trainable)
    for index, tolerance in enumerate((1e-5, 1e-4, 5e-4)):
        trainable, state, (loss, parts), norms, kept = step(trainable, state)
        ours = [parts["loss_cls"], parts["loss_cls_s"], parts["loss_ser"], loss]
        np.testing.assert_allclose(ours, theirs[f"losses{index}"], rtol=tolerance)
        if index == 0:
            check_gradients(norms, kept, theirs)
    path_of = {resnet38_torch_name(("params", *path.split("/"))): path for path in trainable}
    expected = dict(zip(theirs["param_norm_names"], theirs["param_norms"], strict=True))
    for name, path in path_of.items():
        np.testing.assert_allclose(jnp.linalg.norm(trainable[path].ravel()), expected[name], rtol=1e-5, err_msg=name)
    fc8 = np.asarray(trainable["fc8/kernel"][0, 0]).T
    assert relative_error(fc8[:, : theirs["fc8_after"].shape[1]], theirs["fc8_after"]) < 1e-4


def check_gradients(norms, kept, theirs):
    ours = {resnet38_torch_name(("params", *path.split("/"))): float(norm) for path, norm in norms.items()}
    expected = dict(zip(theirs["grad_names"], theirs["grad_norms"], strict=True))
    assert ours.keys() == expected.keys()
    for name, norm in expected.items():
        np.testing.assert_allclose(ours[name], norm, rtol=1e-4, err_msg=name)
    fc8 = np.asarray(kept["fc8/kernel"][0, 0]).T
    assert relative_error(fc8[:, :64], theirs["fc8_grad"]) < 1e-4
    b7 = np.asarray(kept["backbone/b7/conv_branch2b1/kernel"]).transpose(3, 2, 0, 1)
    assert relative_error(b7[:8, :8], theirs["b7_grad"]) < 1e-4


def test_affinity_features_agree_with_the_authors(cam_net):
    _, cam_variables = cam_net
    model = AffinityNet()
    # the backbone's weights depend on names alone, so CamNet's serve again
    shapes = flatten_dict(jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))["params"])
    params = {"backbone": cam_variables["params"]["backbone"]}
    for path, leaf in shapes.items():
        if path[0] != "backbone":
            oihw = (leaf.shape[3], leaf.shape[2], 1, 1)
            params[path[0]] = {"kernel": jnp.asarray(draw(f"{path[0]}.weight", path, oihw).transpose(2, 3, 1, 0))}
    variables = {"params": params, "batch_stats": cam_variables["batch_stats"]}
    features, _ = jax.jit(model.apply)(variables, drawn_images(2, (1, 3, 80, 104)))
    assert relative_error(to_nchw(features)[:, ::8], golden("affinity")["features"]) < 2e-5
