"""A trained network without its data: from a workdir, from an exported folder, as one program."""

import json
import shutil
import warnings

import jax
import numpy as np
import pytest
from PIL import Image

import ssenet_jax
from ssenet_jax import segmenter
from ssenet_jax.export import program
from ssenet_jax.main import main

SIZE = (32, 32)


@pytest.fixture(scope="module")
def model(drawn_run, tmp_path_factory):
    """An exported folder."""
    folder = tmp_path_factory.mktemp("export") / "model"
    assert main(["export", "model", f"--workdir={drawn_run}", f"--out={folder}"]) == 0
    return folder


@pytest.fixture(scope="module")
def photo():
    return np.random.default_rng(7).integers(0, 256, (*SIZE, 3), np.uint8)


@pytest.fixture(scope="module")
def labels(model, photo):
    return ssenet_jax.load(model)(photo)


@pytest.fixture(scope="module")
def labels_without_crf(model, photo):
    net = ssenet_jax.load(model)
    net.config = net.config.copy_and_resolve_references()
    net.config.segment.crf = False
    return net(photo)


def test_a_model_segments_as_its_run_does_and_knows_its_classes(drawn_run, model, photo, labels):
    of_run, of_model = segmenter.of_run(drawn_run), ssenet_jax.load(model)
    assert of_run.class_names == of_model.class_names == ("cat", "dog")
    np.testing.assert_array_equal(of_run(photo), labels)
    assert labels.shape == SIZE and labels.dtype == np.uint8 and len(np.unique(labels)) > 1


def test_who_may_read_the_settings_may_read_the_weights(model):
    modes = {path.stat().st_mode for path in model.iterdir()}
    assert len(modes) == 1


def test_probabilities_are_those_of_the_labels(model, photo, labels_without_crf):
    probabilities = ssenet_jax.load(model).probabilities(photo)
    assert probabilities.shape == (*SIZE, 3)
    np.testing.assert_allclose(probabilities.sum(-1), 1, atol=1e-5)
    assert (probabilities.argmax(-1) == labels_without_crf).mean() > 0.999


def test_a_large_photo_is_shrunk_for_the_network_and_gets_labels_at_its_own_size(model, photo):
    net = ssenet_jax.load(model)
    assert net.max_side == 32
    large = np.repeat(np.repeat(photo, 5, axis=0), 3, axis=1)
    assert net(large).shape == (160, 96)
    assert net.probabilities(large).shape[:2] == (32, 19)


def test_a_stablehlo_program_gives_the_same_labels(drawn_run, photo, labels_without_crf, tmp_path):
    words = ["--format=stablehlo", "--size=32x32", f"--out={tmp_path / 'out'}"]
    assert main(["export", "model", f"--workdir={drawn_run}", *words]) == 0
    net = jax.export.deserialize(bytearray((tmp_path / "out" / "model.stablehlo").read_bytes()))
    assert net.platforms == ("cpu", "cuda", "tpu")
    assert (np.asarray(net.call(photo[None]))[0] == labels_without_crf).mean() > 0.999


def test_an_onnx_program_gives_the_same_labels(drawn_run, photo, labels_without_crf, tmp_path):
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the converter
        pytest.importorskip("jax2onnx", reason="jax2onnx is not installed")
        program.write_onnx(segmenter.of_run(drawn_run), SIZE, tmp_path / "model.onnx")
    net = runtime.InferenceSession(str(tmp_path / "model.onnx"))
    assert (net.run(None, {"image": photo[None]})[0][0] == labels_without_crf).mean() > 0.999


def test_a_missing_converter_is_one_line_that_says_what_to_install(drawn_run, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "jax2onnx", None)
    words = ["--format=onnx", "--size=32x32", f"--out={tmp_path / 'out'}"]
    assert main(["export", "model", f"--workdir={drawn_run}", *words]) == 2
    assert "--no-deps jax2onnx==" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)])
def test_what_is_no_photo_is_refused(model, image):
    with pytest.raises(ValueError, match="expected uint8"):
        ssenet_jax.load(model)(image)


def test_another_kind_of_picture_and_a_wrong_path_are_told_what_to_give(model):
    with pytest.raises(ValueError, match="the image is a Image; expected a path, or a numpy array"):
        ssenet_jax.load(model)(Image.new("RGB", (8, 8)))
    with pytest.raises(ValueError, match=r"cannot read none\.jpg .*; give the path of a photo"):
        ssenet_jax.load(model)("none.jpg")


def cut_weights(folder):
    path = folder / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def edit(**changes):
    def change(folder):
        path = folder / "model.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return change


def change_width(folder):
    path = folder / "model.json"
    stored = json.loads(path.read_text())
    stored["config"]["model"]["width"] = 1.0
    path.write_text(json.dumps(stored))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (shutil.rmtree, "holds no model.json"),
        (lambda folder: (folder / "model.json").write_text("{"), "model.json is not readable JSON"),
        (lambda folder: (folder / "model.json").write_text("[]"), "model.json is not a model of ssenet_jax"),
        (edit(kind="other"), "model.json is not a model of ssenet_jax"),
        (edit(class_names=[]), "model.json names no classes"),
        (edit(class_names=["cat"]), "holds another network than its settings say"),
        (edit(config={"model": {"widht": 1.0}}), "model.json does not hold a config of this version"),
        (edit(config={"model": {"backbone": "resnet50"}}), "resnet50"),
        (edit(config={"segment": {"scales": None}}), "model.json: segment.scales is None; it must be one or more"),
        (edit(config={"crf": {"srgb": -1.0}}), "model.json: crf.srgb is -1.0; it must be above 0"),
        (edit(config={"inference": {"batch_size": True}}), "model.json: inference.batch_size is True; it must be 0"),
        (change_width, "holds another network than its settings say: "),
        (lambda folder: (folder / "weights.safetensors").unlink(), "weights.safetensors is missing"),
        (cut_weights, "weights.safetensors: not a readable .safetensors file"),
    ],
)
def test_a_damaged_model_is_named_in_one_line(model, tmp_path, capsys, damage, message):
    folder = shutil.copytree(model, tmp_path / "model")
    damage(folder)
    (tmp_path / "a.png").write_bytes(b"")
    assert main(["predict", f"--model={folder}", f"--out={tmp_path / 'out'}", str(tmp_path / "a.png")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and message in error
    assert not (tmp_path / "out").exists()
