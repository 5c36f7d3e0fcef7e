"""The search for labels: what its table says is what a run with those keys reaches."""

import json
import shutil

import pytest

from ssenet_jax.artifacts import flatten, read_json, write_json
from ssenet_jax.main import main
from ssenet_jax.stages import label_search
from ssenet_jax.stages.context import Context
from ssenet_jax.stages.facts import read_config
from ssenet_jax.stages.label_search import backgrounds_around, power_at, search, threshold_of
from ssenet_jax.stages.runner import run_stages
from ssenet_jax.stages.seeds import Background
from ssenet_jax.stages.table import asked_for


@pytest.fixture(scope="module", autouse=True)
def short_walks():
    """On so few cells longer ones leave maps without contrast, and stretching them rounding errors."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(label_search, "STEPS", (1, 4))
        yield


@pytest.fixture(scope="module")
def workdir(tiny, tmp_path_factory):
    """A run to search in; the search leaves files there."""
    return shutil.copytree(tiny, tmp_path_factory.mktemp("tune") / "run")


@pytest.fixture(scope="module")
def found(workdir):
    """What the search finds on all twelve images of a run."""
    return search(Context(read_config(workdir), workdir), 100)


@pytest.mark.parametrize(
    ("source", "contrast", "crf"),
    [("cam", 0.0, True), ("walk", 0.0, False), ("walk", 0.4, False), ("walk", None, True), ("seeds", 0.0, True)],
)
def test_a_run_with_the_keys_of_a_row_reaches_its_figures(workdir, found, tmp_path, source, contrast, crf):
    of_kind = (row for row in found if (row.choice.scores.source, row.choice.crf) == (source, crf))
    row = next(row for row in of_kind if contrast in (None, row.choice.scores.contrast))
    config, into = read_config(workdir), tmp_path / "into"
    config.update_from_flattened_dict(row.choice.overrides())
    stages = tuple(name for name in ("propagate", "label") if name in asked_for(config))
    run_stages(config, into, stages, made_in=workdir)
    assert (into / "cams").is_symlink()
    assert read_json(into / "metrics" / "label.train.json")["miou"] == pytest.approx(row.miou, rel=2e-3)


def test_rows_come_best_first_and_a_second_search_reads_what_the_first_wrote(workdir, found, capsys):
    written = {path: path.stat().st_mtime_ns for path in (workdir / "tune").rglob("*.npz")}
    assert main(["tune", "labels", f"--workdir={workdir}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    figures = [float(line.split()[0]) for line in lines[1:-1]]
    assert len(figures) == len(found) and figures == sorted(figures, reverse=True)
    best = " ".join(f"--config.{key}={value}" for key, value in found[0].choice.overrides().items())
    assert lines[-1].endswith(best)
    assert {path: path.stat().st_mtime_ns for path in (workdir / "tune").rglob("*.npz")} == written


def test_photos_that_came_after_the_training_do_not_stop_it(workdir, tmp_path):
    run = shutil.copytree(workdir, tmp_path / "run")
    path = run / "manifests" / "train_classifier.json"
    held = read_json(path)
    added = next(iter(held["images"]))
    write_json(path, {**held, "images": {image: state for image, state in held["images"].items() if image != added}})
    (run / "cams" / f"{added.removeprefix('train/')}.npz").unlink()  # its mask was not made yet
    assert {row.choice.scores.source for row in search(Context(read_config(run), run), 100)} == {"cam", "walk", "seeds"}


def test_a_crf_is_tried_around_a_threshold_of_nothing_too():
    tried = backgrounds_around(Background("constant", 0.0))
    assert {one.kind for one in tried} == {"constant", "power"} and all(0 < threshold_of(one) < 0.1 for one in tried)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 4.0, 24.0])
def test_a_power_is_a_threshold_on_the_best_score(alpha):
    threshold = threshold_of(Background("power", alpha))
    assert threshold == pytest.approx((1 - threshold) ** alpha) and power_at(threshold) == pytest.approx(alpha)


def test_the_config_of_a_workdir_is_that_of_its_run_and_another_version_is_named(workdir, tmp_path):
    saved = read_json(workdir / "config.json")
    assert flatten(read_config(workdir)) == flatten(saved)
    del saved["labels"]["crf"]
    (tmp_path / "config.json").write_text(json.dumps(saved))
    with pytest.raises(ValueError, match="lacks the key labels.crf"):
        read_config(tmp_path)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "config.json is missing"),
        (["--sample=0"], "--sample is 0"),
        (["--crf=1"], "--crf=1 is not an option"),
    ],
)
def test_what_cannot_be_tuned_is_one_line(tmp_path, capsys, words, message):
    assert main(["tune", "labels", f"--workdir={tmp_path}", *words]) == 2
    assert message in capsys.readouterr().err
