"""Experiments: what they share, what their page says, and that shards and kills change nothing."""

import csv
import itertools
import threading
from pathlib import Path

import numpy as np
import pytest

from ssenet_jax import artifacts, datasets
from ssenet_jax.commands.configs import load_config
from ssenet_jax.experiments import operators, page, predictions, runner, table1
from ssenet_jax.experiments.experiment import Column, Experiment, Variant
from ssenet_jax.experiments.results import by_variant
from ssenet_jax.experiments.store import Store
from ssenet_jax.main import main
from ssenet_jax.stages import final
from ssenet_jax.stages.context import Sampled
from ssenet_jax.stages.facts import read_facts
from ssenet_jax.stages.manifest import settings_hash, write_manifest
from ssenet_jax.stages.table import TABLE
from ssenet_jax.training import stop

CONFIGS = Path(__file__).parents[1] / "configs"
TINY = f"{CONFIGS}/scenes.py:tiny"


@pytest.fixture
def scenes():
    return load_config(TINY, ["--config.ser.rate=0.5", "--config.mesh.data=1", "--config.finetune.steps=0"])


@pytest.mark.parametrize("name", runner.NAMES)
def test_an_experiment_has_variants_and_columns_that_its_stages_give(name, scenes, tmp_path):
    experiment = runner.load(name)
    runs = runner.runs_of(experiment, scenes, tmp_path, 2)
    assert len({run.workdir for run in runs}) == len(runs) == 2 * len(experiment.variants(scenes))
    for column in experiment.columns:
        assert any(column.stage in run.stages for run in runs)
        assert set(column.published) <= {run.variant.name for run in runs} | {"SSENet", "SEAM"}


def test_a_config_that_draws_its_rate_has_the_papers_rows(scenes):
    scenes.ser.rate = (0.3, 0.6)
    assert len(runner.load("table1").variants(scenes)) == 1 + len(table1.RATES)


def test_the_baseline_is_trained_once_for_all_experiments(scenes, tmp_path):
    places = set()
    for name in ("table1", "table2", "table3", "figure4", "operators"):
        (run, *_) = runner.runs_of(runner.load(name), scenes, tmp_path / name, 1)
        places.add(Store(tmp_path).place("train_classifier", run.config))
    assert len(places) == 1


def hashes_of(run, stage="infer_cams"):
    """What the figures of a run say of the config that they were made under."""
    made_under = settings_hash(final.settings_of(stage, run.config))
    return {"config_hash": made_under, "evaluate_hash": settings_hash(run.config.evaluate.to_dict())}


def made_up(tmp_path, config, values):
    """Runs of two variants with seeds 0 and 1, and metrics as given: {(variant, seed): mIoU}."""
    variants = [Variant("baseline", {}), Variant("rate 0.3", {"ser.rate": 0.3})]
    column = Column("CAM", "infer_cams", "train_split", published={"baseline": 47.3})
    experiment = Experiment("A table", "Why?", ("infer_cams",), lambda config: variants, (column,))
    runs = runner.runs_of(experiment, config, tmp_path / "made_up", 2)
    for run in runs:
        if (run.variant.name, run.seed) in values:
            record = {"miou": values[run.variant.name, run.seed], **hashes_of(run)}
            artifacts.write_json(run.workdir / "metrics" / f"infer_cams.{config.data.train_split}.json", record)
    return experiment, runs


def test_the_page_has_mean_and_range_of_the_seeds_that_are_there(scenes, tmp_path):
    values = {("baseline", 0): 0.4, ("baseline", 1): 0.5, ("rate 0.3", 0): 0.61}
    experiment, runs = made_up(tmp_path, scenes, values)
    text = page.write(experiment, runs, tmp_path / "made_up").read_text()
    assert "<strong>45.0</strong> <small>40.0 to 50.0</small>" in text and "<strong>61.0</strong></td>" in text
    assert "rate_0.3/seed0" in text and "47.3" not in text and "http" not in text.replace("http://www.w3.org", "")
    made_under = {name: [hashes_of(run)["config_hash"] for run in of] for name, of in by_variant(runs).items()}
    rows = list(csv.DictReader((tmp_path / "made_up" / "made_up.csv").read_text().splitlines()))
    assert [(row["variant"], row["seeds"], row["config_hashes"]) for row in rows] == [
        ("baseline", "2", ";".join(made_under["baseline"])),
        ("rate 0.3", "1", made_under["rate 0.3"][0]),
    ]
    assert float(rows[0]["mean"]) == pytest.approx(0.45) and rows[0]["workdirs"] == "baseline/seed0;baseline/seed1"
    written = {path.name: path.read_bytes() for path in (tmp_path / "made_up").iterdir() if path.is_file()}
    assert {".png", ".svg", ".csv", ".html"} == {Path(name).suffix for name in written}
    page.write(experiment, runs, tmp_path / "made_up")
    assert {name: (tmp_path / "made_up" / name).read_bytes() for name in written} == written


def test_pictures_without_held_out_images_are_of_those_of_the_training(scenes, tmp_path):
    scenes.data.eval_split = ""
    experiment = runner.load("figure6")
    runs = runner.runs_of(experiment, scenes, tmp_path / "figure6", 1)
    page.write(experiment, runs, tmp_path / "figure6")
    assert (tmp_path / "figure6" / "figure6.png").stat().st_size > 10_000


def test_the_papers_figures_stand_beside_those_on_voc(tmp_path):
    config = load_config(f"{CONFIGS}/voc12_lite.py", [])
    experiment, runs = made_up(tmp_path, config, {("baseline", 0): 0.4})
    assert "<td>47.3</td>" in page.write(experiment, runs, tmp_path / "made_up").read_text()


def no_images(context):
    return {"train": Sampled(context.train_source, 0)}


def fake(name, *, fails=lambda: False):
    """A stage that writes one number, made of the settings alone, and its metrics."""

    def run(context, job):
        if fails():
            raise KeyboardInterrupt
        artifacts.write_arrays(job.writes.folder / "1.npz", x=np.float32(context.config.ser.rate))
        (job.writes.folder / str(context.config.classifier.steps)).mkdir(exist_ok=True)  # the last checkpoint

    def score(context, subjects):
        config = context.config
        made_under = settings_hash(final.settings_of(name, config))
        record = {"split": "train", "stage": name, "config_hash": made_under, "num_images": 1, "alpha": None}
        parts = (config.ser.rate, config.seed / 100, config.classifier.steps / 1e3, config.evaluate.alpha / 1e4)
        return [{**record, "miou": sum(parts)}]

    return TABLE[name]._replace(run=run, score=score, images=TABLE[name].images and no_images)


@pytest.fixture
def quick(monkeypatch):
    """Stages without networks, so that only what runs them is tested."""
    for name in ("train_classifier", "infer_cams", "refine_seeds", "train_affinity", "propagate"):
        monkeypatch.setitem(TABLE, name, fake(name))
    monkeypatch.setattr(runner, "LOOK_AGAIN", 0.05)
    return monkeypatch


def outputs(folder):
    """What an experiment leaves to look at, by name."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.name[0] != "."}


def test_two_shards_at_once_leave_the_page_of_one(scenes, tmp_path, quick):
    runner.run("table2", scenes, tmp_path / "alone", 2, runner.Shard(0, 1))
    shards = [
        threading.Thread(target=runner.run, args=("table2", scenes, tmp_path / "both", 2, runner.Shard(i, 2)))
        for i in range(2)
    ]
    for thread in shards:
        thread.start()
    for thread in shards:
        thread.join()
    assert outputs(tmp_path / "both" / "table2") == outputs(tmp_path / "alone" / "table2")
    assert b"6 of 6 runs are complete" in outputs(tmp_path / "both" / "table2")["report.html"]


def test_predictions_of_another_split_end_between_two_images_when_told_to(scenes, tmp_path, monkeypatch):
    drawn = []

    def draw(config, model, variables, records, finish):
        for record in records:
            drawn.append(record["id"])
            monkeypatch.setattr(predictions.hosts, "told_to_stop", lambda: True)

    source = datasets.load(scenes.data, "train")
    monkeypatch.setattr(predictions, "source_of", lambda config, split: source)
    monkeypatch.setattr(predictions, "load_variables", lambda folder, stage: {})
    monkeypatch.setattr(predictions, "segment_records", draw)
    with pytest.raises(stop.Preempted, match="the predictions of more was stopped"):
        predictions.predict(Store(tmp_path), scenes, "more")
    assert drawn == source.ids[:1]


@pytest.mark.parametrize("change", [{"classifier.steps": 5}, {"evaluate.alpha": 0.5}], ids=["training", "scoring"])
def test_the_page_is_that_of_the_config_it_was_last_run_with(scenes, tmp_path, quick, change):
    runner.run("table2", scenes, tmp_path / "again", 1, runner.Shard(0, 1))
    before = outputs(tmp_path / "again" / "table2")
    changed = scenes.copy_and_resolve_references()
    changed.update_from_flattened_dict(change)
    for folder in ("again", "new"):
        runner.run("table2", changed, tmp_path / folder, 1, runner.Shard(0, 1))
    assert outputs(tmp_path / "again" / "table2") == outputs(tmp_path / "new" / "table2")
    assert outputs(tmp_path / "again" / "table2")["table2.csv"] != before["table2.csv"]


def test_an_experiment_that_was_killed_at_a_stage_goes_on(scenes, tmp_path, quick):
    left = iter(range(8))
    quick.setitem(TABLE, "infer_cams", fake("infer_cams", fails=lambda: next(left, 9) in (1, 4)))
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            runner.run("table2", scenes, tmp_path, 2, runner.Shard(0, 1))
    runner.run("table2", scenes, tmp_path, 2, runner.Shard(0, 1))
    quick.setitem(TABLE, "infer_cams", fake("infer_cams"))
    runner.run("table2", scenes, tmp_path / "alone", 2, runner.Shard(0, 1))
    assert outputs(tmp_path / "table2") == outputs(tmp_path / "alone" / "table2")


def test_what_is_needed_and_what_another_is_at_are_said(scenes, tmp_path, quick, capsys):
    runs = runner.runs_of(runner.load("table2"), scenes, tmp_path / "table2", 1)
    place = Store(tmp_path / "stages").place("train_classifier", runs[0].config)
    held = artifacts.locked(place)
    held.__enter__()
    threading.Timer(1.0, held.__exit__, (None, None, None)).start()
    runner.run("table2", scenes, tmp_path, 1, runner.Shard(0, 1))
    said = capsys.readouterr().err
    assert "3 of 3 runs; trainings to do: 3 x train_classifier" in said
    assert "baseline, seed 0: another process is at train_classifier; later" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["table9", f"--config={TINY}", "--workdir=x"], "there is no experiment 'table9'"),
        (["table1", f"--config={TINY}"], "takes NAME, --config and --workdir"),
        (["table1", f"--config={TINY}", "--workdir=x", "--shard=2/2"], "--shard is '2/2'"),
        (["table1", f"--config={TINY}", "--workdir=x", "--seeds=0"], "--seeds is 0"),
        (["--list", "--seeds=0"], "--seeds is 0"),
    ],
)
def test_a_wrong_word_is_one_line(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert main(["experiment", *arguments]) == 2
    assert message in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_the_list_says_what_each_costs(capsys):
    assert main(["experiment", "--list"]) == 0
    said = capsys.readouterr().out
    assert all(f"{name}: " in said for name in runner.NAMES)
    assert "3 seeds: 18 x train_affinity, 18 x train_classifier" in said


def test_every_experiment_runs_on_tiny_scenes(scenes, tmp_path, monkeypatch):
    monkeypatch.setattr(table1, "RATES", (0.5,))
    tried = operators.EXPERIMENT.variants(scenes)
    few = [variant for variant in tried if variant.name in ("none", "resize 0.5", "hflip")]
    monkeypatch.setattr(operators, "EXPERIMENT", operators.EXPERIMENT._replace(variants=lambda config: few))
    for training in (scenes.classifier, scenes.affinity, scenes.segmenter):
        training.steps, training.batch_size = 1, 2
    scenes.data.scenes.num_train, scenes.data.scenes.num_test = 6, 2
    for name in runner.NAMES:
        text = runner.run(name, scenes, tmp_path, 1, runner.Shard(0, 1)).read_text()
        runs = len(runner.load(name).variants(scenes))
        assert f"{runs} of {runs} runs are complete" in text
        rows = list(csv.DictReader((tmp_path / name / f"{name}.csv").read_text().splitlines()))
        assert rows and all(row["mean"] for row in rows if row["key"] not in ("m_fn", "m_fp"))
    assert read_facts(tmp_path / "table3" / "SSENet" / "seed0").class_names  # as of any run, so predict takes it
    assert len(list((tmp_path / "stages").glob("train_classifier-*"))) == 5


def test_figures_of_a_config_that_was_changed_stay_off_the_page(scenes, tmp_path):
    values = {("baseline", 0): 0.4, ("rate 0.3", 0): 0.61}
    experiment, runs = made_up(tmp_path, scenes, values)
    for run, stage in itertools.product(runs, runs[0].stages):
        settings = final.settings_of(stage, run.config)
        write_manifest(run.workdir / "manifests" / f"{stage}.json", settings, complete=True)
    assert "4 of 4 runs are complete" in page.write(experiment, runs, tmp_path / "made_up").read_text()
    scenes.classifier.steps = 9
    experiment, runs = made_up(tmp_path, scenes, {})
    text = page.write(experiment, runs, tmp_path / "made_up").read_text()
    assert "0 of 4 runs are complete" in text and "40.0" not in text and "61.0" not in text


def test_masks_that_come_later_or_are_corrected_are_scored(scenes, tmp_path, quick, monkeypatch):
    store, config = Store(tmp_path / "store"), scenes
    masks = {}
    monkeypatch.setattr(Sampled, "mask_fingerprints", lambda source: dict(masks))
    monkeypatch.setattr(
        Sampled, "has_masks", property(lambda source: bool(masks), lambda source, value: None), raising=False
    )
    scored = []
    row = fake("infer_cams")
    quick.setitem(
        TABLE, "infer_cams", row._replace(score=lambda *given: scored.append(1) or (row.score(*given) if masks else []))
    )

    def advance():
        for stage in ("train_classifier", "infer_cams"):
            if not store.is_complete(stage, config):
                store.make(stage, config)
            store.link(stage, config, tmp_path / "run")
        before, scored[:] = len(scored), []
        return before

    assert advance() == 1  # when it was made
    assert advance() == 0
    masks["train_0"] = "one"
    assert advance() == 1 and (tmp_path / "run" / "metrics" / "infer_cams.train.json").exists()
    masks["train_0"] = "corrected"
    assert advance() == 1
