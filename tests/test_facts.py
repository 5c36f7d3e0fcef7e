"""What a workdir says of itself."""

import shutil

import pytest

from ssenet_jax.artifacts import read_json
from ssenet_jax.main import main
from ssenet_jax.stages import facts


def test_a_workdir_knows_its_config_its_classes_and_where_each_photo_lies(drawn_run):
    found = facts.read_facts(drawn_run)
    assert found.class_names == ("cat", "dog")
    assert found.splits == {"train": facts.Split(["a", "b", "c"], ["images/a.png", "images/b.png", "images/c.png"])}
    config = facts.read_config(drawn_run)
    assert (config.title, config.segment.scales, config.segment.flip) == ("Tiny scenes", (1.0,), False)


def run_again(workdir, *words):
    config = facts.read_config(workdir)
    settings = {"name": "folder", "root": config.data.root, "train_split": "train", "eval_split": "", "max_side": 32}
    data = [f"--config.data.{key}={value}" for key, value in settings.items()]
    words = ("--config=scenes:tiny", "--config.segmenter.steps=1", *data, *words)
    return main(["run", f"--workdir={workdir}", "--stages=train_segmenter", *words])


@pytest.fixture
def copied(drawn_run, tmp_path):
    """The run and its photos, to be changed."""
    shutil.copytree(drawn_run.parent, tmp_path / "drawn")
    run = tmp_path / "drawn" / "run"
    text = (run / "config.json").read_text()
    (run / "config.json").write_text(text.replace(str(drawn_run.parent), str(tmp_path / "drawn")))
    return run


def test_a_run_that_is_refused_leaves_what_the_workdir_says(copied, capsys):
    before = read_json(copied / "config.json")
    assert run_again(copied, "--config.model.width=0.5") == 2
    assert "model.width=0.03125, but the config says 0.5" in capsys.readouterr().err
    assert read_json(copied / "config.json") == before


def test_a_class_that_is_renamed_between_two_runs_is_refused(copied, capsys):
    path = copied.parent / "photos" / "train.csv"
    path.write_text(path.read_text().replace("cat", "kitten"))
    assert run_again(copied) == 2
    assert "holds results of other classes: number 1 was 'cat' and is 'dog'" in capsys.readouterr().err
    assert facts.read_facts(copied).class_names == ("cat", "dog")


@pytest.mark.parametrize("stage", ["report", "evaluate"])
def test_a_report_of_another_config_is_refused_and_leaves_what_the_workdir_says(copied, stage, capsys):
    before = read_json(copied / "config.json")
    assert run_again(copied, "--config.classifier.lr=0.123", f"--stages={stage}") == 2
    assert "classifier.lr" in capsys.readouterr().err
    assert read_json(copied / "config.json") == before
