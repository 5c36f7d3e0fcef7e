"""What docs/extending.md promises: each kind of part is added from outside in a few lines, and shows up everywhere."""

import sys
import types
from pathlib import Path

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from ssenet_jax import datasets, equivariance
from ssenet_jax.artifacts import read_json, read_mask, write_mask
from ssenet_jax.commands.configs import load_config
from ssenet_jax.datasets.records import multi_hot
from ssenet_jax.main import main
from ssenet_jax.models import network
from ssenet_jax.models.backbone import Backbone
from ssenet_jax.models.layers import Conv, Norm, strided_sizes
from ssenet_jax.report.pictures import overlay_labels
from ssenet_jax.stages import apply, table
from ssenet_jax.stages.context import Context
from ssenet_jax.stages.runner import run_stages
from ssenet_jax.stages.score import score_masks
from ssenet_jax.training import objectives, recipes

CONFIGS = Path(__file__).parents[1] / "configs"


class Plain(nn.Module):
    """Three strided convolutions: a backbone that compiles at once."""

    width: float
    norm: str
    dtype: jnp.dtype
    dropout: float
    remat: bool
    output_stride: int

    @nn.compact
    def __call__(self, images, train=False, sizes=None):
        x = images
        for index in range(3):
            x = Conv(8, 3, 2, dtype=self.dtype, name=f"conv{index}")(x, sizes)
            x = nn.relu(Norm(self.norm, dtype=self.dtype, name=f"bn{index}")(x, train))
            sizes = strided_sizes(sizes, 2)
        return x, {"conv4": x, "conv5": x, "conv6": x}


class Stripes:
    """A data set of one class: a bright band on a dark ground."""

    class_names = ("band",)
    has_masks = True

    def __init__(self, split):
        self.ids = [f"{split}_{index}" for index in range(4)]
        self.photos = []
        self.identity = {"name": "stripes", "classes": ["band"], "lists": {}}

    def fingerprints(self):
        return {image_id: "drawn" for image_id in self.ids}

    def mask_fingerprints(self):
        return self.fingerprints()

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, index):
        mask = np.zeros((32, 40), np.uint8)
        mask[8:24, 4 + index : 30] = 1
        image = np.repeat((40 + 160 * mask)[..., None], 3, axis=2).astype(np.uint8)
        labels = multi_hot([0], 1)
        return {"id": self.ids[index], "image": image, "labels": labels, "mask": mask, "size": mask.shape}


@pytest.fixture
def plain(monkeypatch):
    """The backbone "plain", as one row."""
    strides = {8: (8, 8, 8)}
    row = Backbone(Plain, strides, mean=(127.0,) * 3, std=(128.0,) * 3)
    monkeypatch.setitem(network.BACKBONES, "plain", row)


@pytest.fixture
def stripes(monkeypatch):
    """The data set "stripes", as one line that names its module."""
    module = types.ModuleType("stripes")
    module.open_split = lambda data_config, split, *, check_files: Stripes(split)
    monkeypatch.setitem(sys.modules, "stripes", module)
    monkeypatch.setitem(datasets.DATASETS, "stripes", "stripes")


def config_of(*overrides):
    """The tiny scenes on the backbone "plain", two steps a training."""
    trained = {"classifier": 2, "finetune": 0, "affinity": 2, "segmenter": 2}
    steps = [f"--config.{name}.steps={count}" for name, count in trained.items()]
    return load_config(f"{CONFIGS}/scenes.py:tiny", ["--config.model.backbone=plain", *steps, *overrides])


def metrics_of(workdir, stage, split):
    return read_json(workdir / "metrics" / f"{stage}.{split}.json")


def test_a_backbone_and_a_data_set_are_a_row_each(plain, stripes, tmp_path):
    run_stages(config_of("--config.data.name=stripes"), tmp_path)
    for stage, split in (("infer_baseline_cams", "test"), ("label", "train"), ("segment", "test")):
        record = metrics_of(tmp_path, stage, split)
        assert record["num_images"] == 4 and list(record["iou"]) == ["background", "band"]
    assert "masks of stripes train" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_an_operator_is_a_function(plain, monkeypatch, tmp_path):
    used = []

    def negative(strength=1.0):
        used.append(strength)
        return equivariance.Operator(lambda x: -strength * x)

    monkeypatch.setattr(equivariance, "negative", negative, raising=False)
    run_stages(config_of("--config.ser.operators=('negative','hflip')"), tmp_path, ("train_classifier",))
    assert used and (tmp_path / "checkpoints" / "classifier" / "2").is_dir()


def test_a_regulariser_is_a_function_and_a_line(plain, monkeypatch, tmp_path):
    def loss(config, model, steps):
        """Cells are to be off unless they are needed."""
        plain_loss = objectives.classifier(model)

        def loss_fn(params, batch_stats, batch, rng, step):
            value, (statistics, metrics) = plain_loss(params, batch_stats, batch, rng, step)
            cam, _ = model.apply({"params": params, "batch_stats": batch_stats}, batch["image"])
            sparse = config.sparse.weight * jnp.mean(jnp.abs(cam))
            return value + sparse, (statistics, {**metrics, "loss_sparse": sparse})

        return loss_fn

    row = recipes.REGULARISERS["none"]._replace(loss=loss, sections=("sparse",))
    monkeypatch.setitem(recipes.REGULARISERS, "sparse", row)
    config = config_of("--config.classifier.regulariser=sparse", "--config.classifier.log_every=1")
    with config.unlocked():
        config.sparse = ConfigDict({"weight": 0.1})
    run_stages(config, tmp_path, ("train_classifier", "infer_cams", "report"))
    assert "loss_sparse" in (tmp_path / "logs" / "train_classifier.jsonl").read_text()
    assert read_json(tmp_path / "manifests" / "infer_cams.json")["settings"]["sparse.weight"] == 0.1
    assert "loss_sparse" in (tmp_path / "report.html").read_text(encoding="utf-8")


def mirror(context, job):
    """Writes each label map mirrored."""
    (labels,) = job.reads
    for record in apply.records(context, job):
        label = read_mask(labels.file(record["id"], record["split"]))
        write_mask(job.writes.file(record["id"], record["split"]), label[:, ::-1])


@pytest.mark.parametrize("shown", [True, False])
def test_a_stage_is_a_function_and_a_row(plain, stripes, monkeypatch, tmp_path, capsys, shown):
    row = table.Stage("Mirrored label", mirror, ("label",), (), "mirrored/{id}.png", Context.training_images)
    if shown:
        row = row._replace(score=score_masks, picture=overlay)
    else:
        row = row._replace(title="")
    monkeypatch.setitem(table.TABLE, "mirror", row)
    config = config_of(
        "--config.data.name=stripes",
        "--config.labels.source=masks",
        "--config.labels.crf=false",
        "--config.baseline=false",
        "--config.stages=('mirror',)",
    )
    run_stages(config, tmp_path)
    assert read_mask(tmp_path / "mirrored" / "train_0.png")[10, 10:36].all()
    assert not (tmp_path / "checkpoints").exists()  # nothing had to be trained for it
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert ("Mirrored label" in page) == shown
    if shown:
        assert metrics_of(tmp_path, "mirror", "train")["num_images"] == 4
        assert "mirror " in capsys.readouterr().out
        assert "mirrored/{id}.png" in help_of_run(capsys)


def overlay(image, place, image_id, split, alpha):
    return overlay_labels(image, read_mask(place.file(image_id, split)))


def help_of_run(capsys):
    with pytest.raises(SystemExit):
        main(["run", "--help"])
    return capsys.readouterr().out


def test_help_lists_every_stage_and_where_it_writes(capsys):
    page = help_of_run(capsys)
    for name, row in table.TABLE.items():
        assert name in page and row.title in page and row.writes in page
