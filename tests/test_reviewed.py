"""Label maps made of what a person reviewed, and what tells that it changed."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from ssenet_jax import artifacts
from ssenet_jax.commands.review import open_album
from ssenet_jax.commands.review.ledger import Ledger
from ssenet_jax.stages import final, manifest, reviewed
from ssenet_jax.stages.context import Context
from ssenet_jax.stages.links import take_over
from ssenet_jax.stages.runner import run_stages
from ssenet_jax.training import recipes

ODD_PHOTO = "<img src=x onerror=alert(1)>"
HEIGHT, WIDTH = 48, 64
DRAWN = np.full((HEIGHT, WIDTH), 2, np.uint8)


@pytest.fixture
def ledger(scored_run):
    return Ledger(scored_run[1])


def decide(ledger, image_id, decision, mask=None, known=None):
    return ledger.save(image_id, decision, None, known.time if known else "", None if mask is None else lambda: mask)


def begin(stage, context):
    """Leaves what a training leaves of itself that was begun and stopped."""
    path, settings = context.manifest(stage), final.settings_of(stage, context.config)
    manifest.write_manifest(path, settings, complete=False, made_from=final.made_from(stage, context))


@pytest.fixture
def labelled(scored_run):
    """Runs the stage `label` on what was reviewed; gives the label maps by id, and their times."""
    config, workdir = scored_run
    with config.unlocked():
        config.labels.source = "reviewed"

    def run(**changes):
        config.labels.update(changes)
        context = Context(config, workdir)
        made = {"complete": True, "made_from": final.made_from("propagate", context)}
        manifest.write_manifest(context.manifest("propagate"), final.settings_of("propagate", config), **made)
        run_stages(config, workdir, ("label",))
        files = {path.stem: path for path in (workdir / "pseudo_labels").iterdir()}
        times = {i: file.stat().st_mtime_ns for i, file in files.items()}
        return {i: artifacts.read_mask(file) for i, file in files.items()}, times

    return run


def test_reviewed_labels_take_the_decision_and_the_walk_for_the_rest(ledger, labelled, capsys):
    decide(ledger, "a", "corrected", DRAWN)
    decide(ledger, "b", "rejected")
    labels, times = labelled()
    assert (labels["a"] == 2).all() and (labels["b"] == 255).all() and (labels[ODD_PHOTO] == 1).all()
    assert labelled()[1] == times
    assert "label: done before" in capsys.readouterr().err


def test_photos_that_nobody_looked_at_may_keep_the_label_maps_of_the_cam(ledger, labelled, scored_run):
    config, workdir = scored_run
    decide(ledger, "a", "corrected", DRAWN)
    config.labels.unreviewed = "cam"
    half = np.tile(np.arange(WIDTH) < WIDTH // 2, (HEIGHT, 1))
    for photo in ("a", "b", ODD_PHOTO):
        artifacts.write_cam(workdir / f"cams/{photo}.npz", artifacts.Cam(0.9 * half[..., None], np.array([0])))
    context = Context(config, workdir)
    made = {"complete": True, "made_from": final.made_from("infer_cams", context)}
    manifest.write_manifest(context.manifest("infer_cams"), final.settings_of("infer_cams", config), **made)
    (workdir / "walks").rename(workdir / "no walks")
    labels, _ = labelled()
    assert (labels["a"] == 2).all() and (labels["b"] == half).all()


def test_a_change_of_what_was_reviewed_makes_those_labels_again(ledger, labelled):
    rows = {i: decide(ledger, i, "corrected", DRAWN) for i in ("a", "b")}
    _, before = labelled()
    rows["a"] = decide(ledger, "a", "rejected", known=rows["a"])
    ledger.clear("b", rows["b"].time)
    labels, after = labelled()
    assert (labels["a"] == 255).all() and set(np.unique(labels["b"])) == {0, 2}
    assert {i for i in after if after[i] != before[i]} == {"a", "b"}
    decide(ledger, "a", "corrected", DRAWN, rows["a"])
    assert (labelled()[0]["a"] == 2).all()


@pytest.mark.parametrize("stage", ["train_segmenter", "retrain_segmenter"])
def test_a_training_on_labels_of_another_review_is_not_taken_for_done(ledger, labelled, scored_run, stage):
    context = Context(*scored_run)
    row = decide(ledger, "a", "corrected", DRAWN)
    labelled()
    begin(stage, context)
    decide(ledger, "a", "rejected", known=row)
    assert not final.is_complete(stage, context)
    labelled()
    with pytest.raises(ValueError, match=f"{stage} from what was reviewed before"):
        final.is_complete(stage, context)


def test_a_photo_that_nobody_reviewed_may_come_after_a_training_on_reviewed_ones(ledger, labelled, scored_run):
    config, workdir = scored_run
    decide(ledger, "a", "corrected", DRAWN)
    labelled()
    begin(stage := "train_segmenter", Context(config, workdir))
    photos = Path(config.data.root)
    shutil.copy(photos / "images/b.png", photos / "images/new.png")
    with (photos / "train.csv").open("a") as file:
        file.write("new.png,oak\n")
    shutil.copy(workdir / "walks/b.npz", workdir / "walks/new.npz")
    labelled()
    assert not final.is_complete(stage, Context(config, workdir), as_need=True)  # that is, it is not refused


def test_a_run_from_another_one_trains_again_when_more_was_reviewed(ledger, labelled, scored_run, tmp_path):
    config, workdir = scored_run
    decide(ledger, "a", "corrected", DRAWN)
    labelled()
    context, stage = Context(config, workdir), "train_segmenter"
    made_from, trained = final.made_from(stage, context), workdir / "checkpoints" / "segmenter"
    (trained / str(recipes.steps_of(config, "segmenter", 3))).mkdir(parents=True)
    manifest.write_manifest(
        context.manifest(stage), final.settings_of(stage, config), complete=True, made_from=made_from
    )
    partial = workdir / "walks" / f".{'0' * 32}.ssenet-part"  # of a run that is writing there
    partial.touch()
    decide(ledger, "b", "corrected", DRAWN)
    before = {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}
    other = tmp_path / "other"
    taken = take_over(config, workdir, other, {"label", "train_segmenter"})
    assert taken == (["propagate", "label"], "train_segmenter was made there from other data")
    run_stages(config, other, ("label",))
    assert (artifacts.read_mask(other / "pseudo_labels/b.png") == 2).all() and not (other / "checkpoints").exists()
    assert (other / "pseudo_labels/a.png").is_symlink() and (other / "walks").is_symlink()
    assert before == {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}


@pytest.mark.parametrize("rows", ["a.png,ash;oak\nb.png,oak\n", "a.png,oak\n"], ids=["another", "fewer"])
def test_masks_are_not_taken_for_those_of_other_classes(ledger, labelled, scored_run, tmp_path, rows):
    config, workdir = scored_run
    decide(ledger, "a", "corrected", DRAWN)
    labelled()
    held = (workdir / "data.json").read_bytes()
    (Path(config.data.root) / "train.csv").write_text(f"image,labels\n{rows}")
    for stage in ("report", "evaluate"):
        with pytest.raises(ValueError, match="holds results of other classes: number 1 was .*; use another"):
            run_stages(config, workdir, (stage,))
    with pytest.raises(ValueError, match="holds results of other classes: number 1 was "):
        open_album(config, workdir)
    with pytest.raises(ValueError, match="was reviewed with other classes: number 1 was .*; leave --from out"):
        run_stages(config, tmp_path / "other", ("label",), made_in=workdir)
    assert (workdir / "data.json").read_bytes() == held


def of_reviews(workdir):
    return reviewed.fingerprints(workdir, reviewed.read_decisions(workdir))


def test_fingerprints_follow_decisions_and_masks_and_not_their_time(ledger, scored_run):
    _, workdir = scored_run
    found = [of_reviews(workdir)]
    row = decide(ledger, "a", "corrected", DRAWN)
    found.append(of_reviews(workdir))
    row = decide(ledger, "a", "corrected", DRAWN, row)
    assert of_reviews(workdir) == found[-1]
    artifacts.write_mask(workdir / "reviewed/a.png", np.zeros((HEIGHT, WIDTH)))
    found.append(of_reviews(workdir))
    decide(ledger, "a", "rejected", known=row)
    found.append(of_reviews(workdir))
    assert len({reviewed.joined(each) for each in found}) == 4


def test_a_rejected_photo_is_left_out_of_the_score(ledger, labelled, scored_run):
    config, workdir = scored_run
    for name in ("a", "b"):
        artifacts.write_mask(Path(config.data.root) / f"masks/{name}.png", DRAWN)
    config.data.folder.masks = "masks"
    decide(ledger, "a", "corrected", DRAWN)
    decide(ledger, "b", "rejected")
    labelled()
    assert artifacts.read_json(workdir / "metrics/label.train.json")["miou"] == 1


def test_reviewed_labels_with_a_crf_leave_the_decisions_alone(ledger, labelled):
    decide(ledger, "a", "corrected", DRAWN)
    labels, _ = labelled(crf=True)
    assert (labels["a"] == 2).all() and labels["b"].shape == (HEIGHT, WIDTH)


@pytest.mark.parametrize("mask", [np.full((HEIGHT, WIDTH - 1), 1), np.full((HEIGHT, WIDTH), 9), None])
def test_a_reviewed_mask_that_was_spoiled_by_hand_is_named(ledger, labelled, scored_run, mask):
    decide(ledger, "a", "accepted", DRAWN)
    path = scored_run[1] / "reviewed/a.png"
    path.unlink() if mask is None else artifacts.write_mask(path, mask)
    with pytest.raises(ValueError, match="reviewed/a.png"):
        labelled()


def test_a_save_that_finds_no_room_leaves_the_mask_of_the_decision_before(scored_run, longest_file):
    workdir = scored_run[1]
    others = {f"photo {i}": reviewed.Decision(f"photo {i}", "rejected", None, "then") for i in range(500)}
    reviewed.write_decisions(workdir, others)
    ledger = Ledger(workdir)
    before = decide(ledger, "a", "corrected", DRAWN)
    with longest_file(4096), pytest.raises(OSError):  # enough for the mask, and not for the rows
        decide(ledger, "a", "accepted", 0 * DRAWN, known=before)
    assert Ledger(workdir).of("a") == before == ledger.of("a")
    np.testing.assert_array_equal(artifacts.read_mask(reviewed.mask_path(workdir, "a")), DRAWN)


def test_masks_of_a_photo_that_was_replaced_are_neither_reviewed_nor_taken(ledger, labelled, scored_run, tmp_path):
    config, workdir = scored_run
    decide(ledger, "a", "corrected", DRAWN)
    labelled()
    shutil.copy(Path(config.data.root) / "images/a.png", Path(config.data.root) / "images/b.png")
    with pytest.raises(ValueError, match=r"masks of other photos: 1 changed since \('b'\)"):
        open_album(config, workdir)
    take_over(config, workdir, tmp_path / "b changed", {"label"})
    assert (tmp_path / "b changed" / "reviewed").is_symlink()  # nobody decided about it
    with (Path(config.data.root) / "images/a.png").open("ab") as photo:
        photo.write(b"another")
    with pytest.raises(ValueError, match=r"was reviewed with other photos: 1 changed since \(a\); leave --from out"):
        take_over(config, workdir, tmp_path / "a changed", {"label"})
    config.labels.source = "walk"
    take_over(config, workdir, tmp_path / "a changed", {"label"})
    assert not (tmp_path / "a changed" / "reviewed").exists()


def test_a_label_map_that_is_gone_is_made_again_before_the_training_on_it(ledger, labelled, scored_run):
    config, workdir = scored_run
    decide(ledger, "a", "corrected", DRAWN)
    labelled()
    begin(stage := "train_segmenter", Context(config, workdir))
    (workdir / "pseudo_labels/a.png").unlink()
    assert not final.is_complete(stage, Context(config, workdir))  # that is, it is not refused
    assert (labelled()[0]["a"] == 2).all()


def test_what_a_label_stage_lacks_is_told_before_a_training(scored_run, monkeypatch):
    config, workdir = scored_run
    config.labels.source = "masks"
    config.model.update({"norm": "batch", "frozen": (), "width": 1 / 32})  # for a training from nothing
    with pytest.raises(ValueError, match="labels.source is 'masks', and image a has none"):
        run_stages(config, workdir, ("train_classifier", "label"))
    config.labels.source, config.crf.backend = "walk", "pydensecrf"
    monkeypatch.setitem(sys.modules, "pydensecrf", None)
    with pytest.raises(ImportError, match="pydensecrf is not installed"):
        run_stages(config, workdir, ("train_classifier", "refine_seeds"))
    assert not (workdir / "checkpoints").exists()
