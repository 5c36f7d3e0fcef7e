"""The command through every stage, as a person would start it: in this process and as one of its own."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssenet_jax.artifacts import read_cam, read_json, read_mask
from ssenet_jax.main import main

CONFIGS = Path(__file__).parents[1] / "configs"
TINY = f"--config={CONFIGS}/scenes.py:tiny"
STAGES = ("infer_baseline_cams", "infer_cams", "refine_seeds", "propagate", "label", "segment")


def results(workdir):
    """Everything that a run wrote and another run must write the same, by path; arrays rather than zipped bytes."""
    found = {}
    for path in sorted(workdir.rglob("*")):
        name = str(path.relative_to(workdir))
        if path.suffix == ".npz":
            with np.load(path) as file:
                found[name] = {key: file[key].tolist() for key in file}
        elif path.suffix == ".png":
            found[name] = read_mask(path).tolist()
        elif name.startswith("metrics/"):
            found[name] = read_json(path)
        elif name.startswith("logs/"):
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            found[name] = [{key: value for key, value in line.items() if key != "images_per_s"} for line in lines]
    return found


def test_a_run_leaves_every_artifact_of_every_image(tiny):
    train, test = ({f"{split}_{i:05}" for i in range(count)} for split, count in (("train", 12), ("test", 4)))

    def ids(folder, suffix):
        return {path.name.removesuffix(suffix) for path in (tiny / folder).iterdir()}

    assert ids("cams", ".npz") == ids("baseline/cams", ".npz") == train | test
    assert ids("seeds", ".npz") == ids("walks", ".npz") == ids("pseudo_labels", ".png") == train
    assert ids("predictions/test", ".png") == test
    assert not list(tiny.rglob("*.part"))
    cam, walk = (read_cam(tiny / folder / "train_00000.npz") for folder in ("cams", "walks"))
    assert cam.maps.shape == (48, 48, len(cam.classes)) and cam.maps.min() >= 0 and cam.maps.max() <= 1
    assert walk.maps.shape == (6, 6, len(cam.classes)) and walk.maps.dtype == np.float16
    assert read_mask(tiny / "pseudo_labels" / "train_00000.png").max() <= 6


def test_every_stage_is_scored_on_every_split_that_has_masks(tiny):
    scored = {(record["stage"], record["split"]) for record in map(read_json, (tiny / "metrics").iterdir())}
    assert scored == {(stage, "train") for stage in STAGES[:5]} | {
        (stage, "test") for stage in (*STAGES[:2], "segment", "measure_cams", "measure_baseline_cams")
    }
    record = read_json(tiny / "metrics" / "infer_cams.train.json")
    manifest = read_json(tiny / "manifests" / "infer_cams.json")
    assert record["num_images"] == 12 and record["config_hash"] == manifest["config_hash"]
    assert record["mask_source"] == "masks of scenes train"
    best = int(np.argmax(record["alpha_sweep"]["miou"]))
    assert (record["alpha"], record["miou"]) == (
        record["alpha_sweep"]["alphas"][best],
        max(record["alpha_sweep"]["miou"]),
    )
    assert read_json(tiny / "metrics" / "infer_cams.test.json")["alpha"] == record["alpha"]


def test_a_report_without_results_says_that_nothing_was_scored(tmp_path, capsys):
    assert main(["run", TINY, f"--workdir={tmp_path}", "--stages=report"]) == 0
    table, report = capsys.readouterr().out.splitlines()
    assert "nothing was scored" in table and "report.html" in report


def test_the_report_is_one_page_with_every_stage(tiny):
    page = (tiny / "report.html").read_text(encoding="utf-8")
    assert "Tiny scenes" in page
    assert not re.search(r'(src|href)="http', page)
    assert page.count("data:image/jpeg") >= 12


def test_a_rerun_computes_nothing_and_a_lost_file_is_made_again(tiny, capsys):
    before = results(tiny)
    lost = tiny / "pseudo_labels" / "train_00003.png"
    lost.unlink()
    assert main(["run", TINY, f"--workdir={tiny}", "--stages=train_classifier,infer_cams,label"]) == 0
    output = capsys.readouterr().err
    assert "train_classifier: done before" in output and "infer_cams: done before" in output
    assert "label: 1 images have no result yet" in output
    assert results(tiny) == before


def test_a_process_with_others_for_its_input_writes_the_same_and_ends_with_the_table(tiny, tmp_path):
    words = [TINY, f"--workdir={tmp_path}", "--config.data.workers=1"]
    command = [sys.executable, "-m", "ssenet_jax", "run", *words]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    table = done.stdout.splitlines()
    assert table[0].split() == ["stage", "split", "images", "alpha", "mIoU", "mFN", "mFP"]
    assert table[-1] == f"report: {tmp_path / 'report.html'}"
    assert results(tmp_path) == results(tiny)


def test_results_of_another_config_stop_a_run(tiny, capsys):
    assert main(["run", TINY, f"--workdir={tiny}", "--stages=propagate", "--config.cam.flip=false"]) == 2
    assert "cam.flip=True, but the config says False" in capsys.readouterr().err


def test_photos_are_segmented_with_the_trained_network(tiny, tmp_path, capsys):
    rng = np.random.default_rng(0)
    for name, size in (("a", (40, 50, 3)), ("b", (33, 30, 3))):
        Image.fromarray(rng.integers(0, 256, size, np.uint8)).save(tmp_path / f"{name}.png")
    photos = [str(tmp_path / "a.png"), str(tmp_path / "b.png")]
    assert main(["predict", f"--workdir={tiny}", f"--out={tmp_path / 'out'}", *photos]) == 0
    assert read_mask(tmp_path / "out" / "a.png").shape == (40, 50)
    with Image.open(tmp_path / "out" / "b_overlay.jpg") as overlay:
        assert overlay.size == (30, 33)
    assert main(["predict", f"--workdir={tiny}", f"--out={tmp_path / 'out'}", str(tmp_path / "no.png")]) == 2
    assert "no.png" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--stages=train"], "there is no stage train; the stages are"),
        (["--stages=infer_cams"], "infer_cams reads what train_classifier writes; run --stages=train_classifier"),
        (["--stages=measure_cams", "--config.measure.images=0"], "measure.images is 0"),
        (["--config.data.name=voc12", "--config.data.root=/nowhere"], "/nowhere"),
        (["--config.data.name=voc"], "config.data.name is 'voc'"),
        (["--config.init.weights=/nowhere/resnet.params"], "/nowhere/resnet.params: no such weight file"),
        (["--config.classifier.batch_size=0"], "classifier.batch_size is 0; it must be at least 1"),
        (["--config.model.backbone=resnet50"], "model.backbone is 'resnet50'; it must be one of"),
        (["--config.model.frozen=('.*',)"], "random weights with layers frozen"),
        (["--config.classifier.groups=(('fc8.*',1.0,1.0),)"], "no row of the parameter groups covers"),
        (["--config.ser.normalize=mean"], "normalize"),
        (["--config.dtype=float16"], "dtype is 'float16'"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing_half_written(tmp_path, capsys, arguments, message):
    assert main(["run", TINY, f"--workdir={tmp_path}", "--stages=train_baseline,train_classifier", *arguments]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("ssenet: ") and message in error
    assert not list(tmp_path.rglob("*.part")) and not list(tmp_path.rglob("metrics/*"))


def test_a_setting_that_failed_can_be_corrected(tmp_path, capsys):
    run = ["run", TINY, f"--workdir={tmp_path}", "--stages=train_baseline,train_classifier"]
    assert main([*run, "--config.init.weights=/nowhere/resnet.params"]) == 2
    assert main([*run, "--config.classifier.groups=(('fc8.*',1.0,1.0),)"]) == 2
    assert "no row of the parameter groups covers" in capsys.readouterr().err.splitlines()[-1]


def test_help_names_every_command(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    assert {"run", "predict"} <= set(capsys.readouterr().out.split())
