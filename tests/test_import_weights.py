"""import-weights: a checkpoint gives what its file gives; a bad file is one line, and nothing is left behind."""

import functools
import re

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from ssenet_jax.checkpoint import Checkpoints
from ssenet_jax.main import main
from ssenet_jax.models import AffinityNet, CamNet, DeepLab, SeamNet
from ssenet_jax.pretrained import convert, load_weights, shapes_of
from ssenet_jax.pretrained.load import packaged_weights
from ssenet_jax.pretrained.names import torch_names

NARROW = {
    "cam": functools.partial(CamNet, width=1 / 16),
    "seam": functools.partial(SeamNet, width=1 / 16),
    "affinity": functools.partial(AffinityNet, width=1 / 16),
    "segmenter": functools.partial(DeepLab, width=1 / 16),
}
CLASSES = {"cam": {"num_classes": 3}, "seam": {"num_classes": 3}, "affinity": {}, "segmenter": {"num_classes": 4}}
torch_name = torch_names("resnet38")


@pytest.fixture(autouse=True)
def narrow_networks(monkeypatch):
    for name, network in NARROW.items():
        monkeypatch.setitem(convert.NETWORKS, name, network)


def drawn(model):
    rng = np.random.default_rng(0)
    leaves = flatten_dict(shapes_of(model))
    return unflatten_dict({path: rng.random(leaf.shape, dtype=np.float32) for path, leaf in leaves.items()})


def write_file(path, variables, without=()):
    """The variables as a file with the names and layouts of the authors' code."""
    named = {torch_name(path): leaf for path, leaf in flatten_dict(variables).items()}
    arrays = {name: np.transpose(leaf, (3, 2, 0, 1)) if leaf.ndim == 4 else leaf for name, leaf in named.items()}
    np.savez(path, **{name: array for name, array in arrays.items() if name.partition(".")[0] not in without})
    return path


def import_weights(*arguments):
    return main(["import-weights", *map(str, arguments)])


def assert_same(ours, expected):
    jax.tree.map(np.testing.assert_array_equal, ours, expected)


@pytest.mark.parametrize("name", NARROW)
def test_a_checkpoint_gives_what_its_file_gives(tmp_path, name):
    model = NARROW[name](**CLASSES[name])
    expected, out = drawn(model), tmp_path / "weights" / name
    file = write_file(tmp_path / "a.npz", expected)
    assert import_weights(file, f"--model={name}", f"--out={out}") == 0
    start = jax.tree.map(np.zeros_like, expected)
    assert_same(load_weights(out, model, start), expected)
    assert_same(load_weights(file, model, start), expected)
    assert [path.name for path in out.parent.iterdir()] == [name]


def test_the_packaged_weights_bring_their_backbone(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(convert.NETWORKS, "cam", CamNet)
    out = tmp_path / "lite0"
    assert import_weights("efficientnet_lite0", "--model=cam", f"--out={out}") == 0
    assert "245 arrays" in capsys.readouterr().out
    model = CamNet(num_classes=3, backbone="efficientnet_lite0")
    start = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes_of(model))
    ours, direct = (load_weights(name, model, start, allow_missing=("fc8",)) for name in (out, "efficientnet_lite0"))
    assert_same(ours, direct)
    assert np.abs(ours["params"]["backbone"]["conv_stem"]["kernel"]).max() > 0


def test_a_file_of_another_backbone(tmp_path, monkeypatch):
    file = packaged_weights("efficientnet_lite0")
    with pytest.raises(ValueError, match=r"of another network: they hold _blocks\.0.* backbone resnet38 has b2\."):
        convert.import_weights(file, "cam", tmp_path / "resnet38", allow_missing=("fc8",))
    with pytest.raises(ValueError, match="backbone is 'vgg16'; expected one of resnet38"):
        convert.import_weights(file, "cam", tmp_path / "vgg16", backbone="vgg16")
    monkeypatch.setitem(convert.NETWORKS, "cam", CamNet)
    out = tmp_path / "lite0"
    assert convert.import_weights(file, "cam", out, backbone="efficientnet_lite0", allow_missing=("fc8",)) == 245


def test_a_new_head_is_missing_only_where_the_caller_says_so(tmp_path, capsys):
    model = NARROW["cam"](num_classes=3)
    variables, out = drawn(model), tmp_path / "out"
    file = write_file(tmp_path / "a.npz", variables, without=("fc8",))
    assert import_weights(file, "--model=cam", f"--out={out}") == 2
    assert "a.npz: the weights do not fit the model; missing: fc8.weight" in capsys.readouterr().err
    assert import_weights(file, "--model=cam", f"--out={out}", "--allow_missing=fc8") == 0
    start = jax.tree.map(np.zeros_like, variables)
    loaded = load_weights(out, model, start, allow_missing=("fc8",))
    assert_same(loaded["params"]["backbone"], variables["params"]["backbone"])
    assert not loaded["params"]["fc8"]["kernel"].any()
    with pytest.raises(ValueError, match="missing: fc8.weight"):
        load_weights(out, model, start)


@pytest.mark.parametrize(
    ("file", "arguments", "message"),
    [
        ("cut.params", ("--model=cam",), "cut.params: the header needs 24 bytes"),
        ("good.npz", ("--model=affinity",), "missing: .*f9.weight.*; unexpected: fc8.weight"),
        ("good.npz", ("--model=unet",), "--model is 'unet'; expected one of cam, seam, affinity, segmenter"),
        ("good.npz", ("--model=cam", "--allow_missing=fc9"), r"no module fc9 .* it has \['fc8'\]"),
        ("good.npz", ("--model=cam", "--allow-missing=fc8"), "--allow-missing=fc8 is not an option"),
        ("absent.pth", ("--model=cam",), "absent.pth: no such weight file"),
        ("empty.npz", ("--model=cam",), "empty.npz: its classifier fc8 has no class"),
        ("photo.jpg", ("--model=cam",), r"no reader for '.jpg'; expected one of \.params"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(tmp_path, capsys, file, arguments, message):
    (tmp_path / "cut.params").write_bytes(b"\x12\x01")
    write_file(tmp_path / "good.npz", drawn(NARROW["cam"](num_classes=3)))
    np.savez(tmp_path / "empty.npz", **{"fc8.weight": np.zeros((0, 8, 1, 1), np.float32)})
    assert import_weights(tmp_path / file, *arguments, f"--out={tmp_path / 'out'}") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and re.search(message, error), error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cut.params", "empty.npz", "good.npz"]


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch, capsys):
    def fail(checkpoints, *arguments):
        (checkpoints.directory / "half").mkdir()
        raise OSError("no space left")

    monkeypatch.setattr(Checkpoints, "save", fail)
    file = write_file(tmp_path / "a.npz", drawn(NARROW["affinity"]()))
    assert import_weights(file, "--model=affinity", f"--out={tmp_path / 'out'}") == 2
    assert "no space left" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


def test_a_folder_is_never_written_over(tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    assert import_weights("efficientnet_lite0", "--model=cam", f"--out={tmp_path / 'mine'}") == 2
    assert "mine exists already" in capsys.readouterr().err
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    assert import_weights("efficientnet_lite0", "--model=cam", f"--out={tmp_path / 'link'}") == 2
    assert "link exists already" in capsys.readouterr().err


def test_a_folder_that_does_not_fit_says_so(tmp_path):
    model = NARROW["cam"](num_classes=3)
    with pytest.raises(ValueError, match="there is no checkpoint in"):
        load_weights(tmp_path, model, {})
    file = write_file(tmp_path / "a.npz", drawn(model))
    assert import_weights(file, "--model=cam", f"--out={tmp_path / 'cam'}") == 0
    wider = NARROW["cam"](num_classes=5)
    with pytest.raises(ValueError, match=r"unusable: fc8.weight \(shape \(3, 256, 1, 1\), expected \(5, 256, 1, 1\)\)"):
        load_weights(tmp_path / "cam", wider, shapes_of(wider))
