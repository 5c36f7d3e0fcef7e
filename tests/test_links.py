"""`--from`: a run that takes from another one what its settings leave as it is."""

import shutil

import pytest

from ssenet_jax.artifacts import read_json
from ssenet_jax.main import main

KEPT = ("checkpoints/classifier", "cams", "walks", "manifests/propagate.json", "metrics/infer_cams.test.json")


def files(folder):
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def made(tiny, tmp_path_factory):
    workdir = shutil.copytree(tiny, tmp_path_factory.mktemp("links") / "made")
    (workdir / "reviewed").mkdir()
    return workdir


def command(workdir, made, *words):
    return ["run", "--config=scenes:tiny", f"--workdir={workdir}", f"--from={made}", *words]


def test_what_a_changed_key_leaves_as_it_is_is_linked_and_the_rest_is_made(made, tmp_path, capsys):
    workdir, before = tmp_path / "run", files(made)
    words = command(workdir, made, "--config.labels.alpha=0.2", "--stages=label,report")
    assert main(words) == 0
    told = capsys.readouterr().err
    assert f"taken from {made}: train_baseline, " in told
    assert "; label was made there under another labels.alpha" in told
    assert all((workdir / name).is_symlink() for name in (*KEPT, "reviewed"))
    assert not (workdir / "pseudo_labels").is_symlink()
    assert read_json(workdir / "manifests" / "label.json")["settings"]["labels.alpha"] == 0.2
    assert "Label" in (workdir / "report.html").read_text()
    own = files(workdir / "pseudo_labels")
    assert main(words) == 0  # the same command goes on
    assert "label: done before" in capsys.readouterr().err and files(workdir / "pseudo_labels") == own
    assert {path: held for path, held in files(made).items() if path.name != ".lock0"} == {
        path: held for path, held in before.items() if path.name != ".lock0"
    }


def test_results_of_its_own_stay(made, tmp_path, capsys):
    workdir = shutil.copytree(made, tmp_path / "run")
    assert main(command(workdir, made, "--stages=report")) == 0
    assert "taken from" in capsys.readouterr().err
    assert not any((workdir / name).is_symlink() for name in KEPT)


def test_a_training_that_has_not_ended_is_not_taken(made, tmp_path, capsys):
    other = shutil.copytree(made, tmp_path / "other")
    shutil.rmtree(other / "checkpoints" / "segmenter")
    assert main(command(tmp_path / "run", other, "--stages=report")) == 0
    assert "taken from" in (told := capsys.readouterr().err) and "train_segmenter" not in told


def test_a_workdir_takes_nothing_from_itself_nor_from_a_folder_without_a_run(made, tmp_path, capsys):
    assert main(command(made, made)) == 2
    assert "is the --workdir itself" in capsys.readouterr().err
    assert main(command(tmp_path / "run", tmp_path)) == 2
    assert f"--from={tmp_path} holds no run" in capsys.readouterr().err
