"""CAM measures: what is equivariant has no error, what is not has one; classification and scales as counted by hand."""

import shutil
from signal import SIGTERM

import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from ml_collections import ConfigDict

from ssenet_jax.artifacts import read_json, write_arrays
from ssenet_jax.metrics import average_precision, mean_average_precision
from ssenet_jax.stages import final, measure
from ssenet_jax.stages.context import Context
from ssenet_jax.stages.facts import read_config
from ssenet_jax.stages.measure import OPERATORS, error_function, score_measures
from ssenet_jax.stages.runner import run_stages
from ssenet_jax.stages.score import Subject, score_cams
from ssenet_jax.stages.table import place_of
from ssenet_jax.training import stop
from ssenet_jax.training.logs import read_lines


class Pointwise(nn.Module):
    """Maps that are the image's own channels, or with `tilt` brighter to the right: not equivariant to mirroring."""

    tilt: float = 0.0

    def __call__(self, images, train=False, sizes=None):
        ramp = 1 + self.tilt * jnp.linspace(0, 1, images.shape[2], dtype=jnp.float32)[None, None, :, None]
        return images[..., :2] * ramp, {}


@pytest.fixture(scope="module")
def images():
    """Smooth blobs away from the border, so that resampling costs little."""
    y, x = np.mgrid[:40, :40] / 40
    blob = np.exp(-((y - 0.5) ** 2 + (x - 0.4) ** 2) / 0.02)
    return np.stack([blob, blob.T, blob], axis=-1)[None].astype(np.float32)


def test_maps_that_follow_the_image_have_no_error(images):
    errors, scores = error_function(Pointwise())({}, images, np.ones((1, 2), np.float32))
    assert errors.shape == (1, len(OPERATORS)) and float(errors.max()) < 2e-3
    np.testing.assert_allclose(scores, images[..., :2].mean((1, 2)), rtol=1e-5)


def test_maps_that_depend_on_the_place_have_one_and_absent_classes_do_not_count(images):
    labels = np.array([[1, 0]], np.float32)
    errors, _ = error_function(Pointwise(tilt=2.0))({}, images, labels)
    ramp = 1 + 2 * np.linspace(0, 1, 40)
    own = images[0, ..., 0] * ramp
    mirrored = images[0, :, ::-1, 0] * ramp
    expected = np.abs(mirrored / mirrored.max() - own[:, ::-1] / own.max()).mean()
    assert float(errors[0, list(OPERATORS).index("hflip")]) == pytest.approx(expected, rel=1e-3)


def test_average_precision_of_a_small_ranking():
    labels = np.array([[1, 0, 0], [0, 1, 0], [1, 0, 0]])
    scores = np.array([[0.9, 0.5, 1.0], [0.8, 0.5, 2.0], [0.1, 0.2, 3.0]])
    np.testing.assert_allclose(average_precision(labels, scores), [(1 + 2 / 3) / 2, 0.5, np.nan])
    assert mean_average_precision(labels, scores) == pytest.approx((5 / 6 + 0.5) / 2)


def test_a_sample_without_masks_has_no_score_by_scale(tiny):
    context = Context(ConfigDict(read_json(tiny / "config.json")), tiny)
    source = context.measured_images()["test"]
    sample = type("Sample", (list,), {"class_names": source.class_names})([{"id": name} for name in source.ids])
    (record,) = score_measures(context, [Subject(place_of("measure_cams", context.workdir), "test", sample, "", "")])
    assert record["scales"] == {"1": None} and record["num_images"] == 3


def test_photos_without_a_class_have_no_equivariance_error(tiny, tmp_path):
    context, place = Context(ConfigDict(read_json(tiny / "config.json")), tmp_path), place_of("measure_cams", tmp_path)
    for name, label in (("a", [1, 0]), ("b", [0, 0])):
        maps = np.zeros((1, 2, 2, sum(label)), np.float16)
        figures = {"errors": np.full(len(OPERATORS), 0.5 * sum(label)), "scores": np.zeros(2), "maps": maps}
        write_arrays(place.file(name, "test"), **figures, labels=np.float32(label))

    def errors_of(*names):
        sample = type("Sample", (list,), {"class_names": ("cat", "dog")})([{"id": name} for name in names])
        (record,) = score_measures(context, [Subject(place, "test", sample, "", "")])
        return set(record["equivariance"].values())

    assert errors_of("a", "b") == {0.5} and errors_of("b") == {None}


def test_a_signal_ends_measuring_and_scoring(tiny, tmp_path, monkeypatch):
    workdir = shutil.copytree(tiny, tmp_path / "run")
    shutil.rmtree(workdir / "measures")
    context, came, on_crops = Context(read_config(workdir), workdir), [], measure._on_crops

    def told_to_stop(*arguments):
        came.append(SIGTERM)
        return on_crops(*arguments)

    monkeypatch.setattr(stop, "_came", came)
    monkeypatch.setattr(measure, "TOGETHER", 2)
    monkeypatch.setattr(measure, "_on_crops", told_to_stop)
    with pytest.raises(stop.Preempted, match="run the same command again"):
        run_stages(context.config, workdir, ("measure_cams",))
    assert len(list((workdir / "measures").iterdir())) == 2  # those that were at work
    with pytest.raises(stop.Preempted, match="the scoring of infer_cams was stopped"):
        final.evaluate(context, "infer_cams")
    came.clear()
    monkeypatch.setattr(measure, "_on_crops", on_crops)
    run_stages(context.config, workdir, ("measure_cams",))
    again, whole = (read_json(of / "metrics" / "measure_cams.test.json") for of in (workdir, tiny))
    assert again == whole


def test_held_out_photos_without_masks_are_measured_and_not_scored(tiny, tmp_path):
    workdir = shutil.copytree(tiny, tmp_path / "run")
    shutil.rmtree(workdir / "metrics")
    context = Context(read_config(workdir), workdir)
    context.eval_source.has_masks = False
    for stage in ("measure_cams", "segment"):
        final.evaluate(context, stage)
    assert [path.name for path in (workdir / "metrics").iterdir()] == ["measure_cams.test.json"]


def test_masks_that_leave_every_pixel_out_score_nothing_at_the_configs_alpha(tiny):
    context = Context(read_config(tiny), tiny)
    source = context.train_source
    records = [{**source[0], "mask": np.full_like(source[0]["mask"], 255)}]
    sample = type("Sample", (list,), {"class_names": source.class_names, "has_masks": True})(records)
    (record,) = score_cams(context, [Subject(place_of("infer_cams", tiny), "train", sample, "", "")])
    assert context.config.evaluate.best_alpha and record["alpha"] == 0.2 and record["miou"] is None


def test_a_run_has_the_measures_and_a_validation_curve(tiny):
    record = read_json(tiny / "metrics" / "measure_cams.test.json")
    assert record["num_images"] == 3 and set(record["equivariance"]) == set(OPERATORS)
    assert all(0 <= value <= 1 for value in record["equivariance"].values()) and 0 <= record["mean_ap"] <= 1
    assert list(record["scales"]) == ["1"] and record["scales"]["1"] > 0
    lines = read_lines(tiny / "logs" / "train_classifier.jsonl")
    assert [line["step"] for line in lines if "val_mean_ap" in line] == [2, 4]
    page = (tiny / "report.html").read_text(encoding="utf-8")
    assert "What the CAMs are like" in page and "Classification on held-out images" in page
