"""How doubtful a mask is, without one to compare with."""

import numpy as np
import pytest

from ssenet_jax import artifacts, datasets
from ssenet_jax.artifacts import Cam
from ssenet_jax.stages import doubt
from ssenet_jax.stages.seeds import Background

ALPHA = Background("constant", 0.2)
HALF = np.repeat([[1.0, 0.0]], 2, 0)[..., None]  # the left half of 2 x 2


def measured(maps, seeds=None, labels=None):
    return doubt.measure(Cam(np.float32(maps), np.arange(np.shape(maps)[-1])), ALPHA, seeds, labels)


def test_scores_far_from_each_other_leave_no_doubt():
    assert measured(HALF) == (0, 0, 0, None, [(0, 0.5)])


@pytest.mark.parametrize(
    ("maps", "why"),
    [
        (0.25 * HALF, "a class that the background nearly reaches"),
        (0.15 * HALF, "a background that a class nearly reaches"),
        (np.concatenate([HALF, 0.9 * HALF], -1), "two classes at one place"),
    ],
)
def test_close_scores_are_undecided(maps, why):
    assert measured(maps).undecided == 0.5, why


def test_a_class_that_was_not_found_is_the_greatest_doubt():
    assert measured(0.1 * HALF).doubt == 1
    assert measured(np.concatenate([HALF, 0 * HALF], -1)).doubt == 0.5


def test_a_photo_without_any_class_leaves_no_doubt():
    assert measured(np.zeros((2, 2, 0)), seeds=np.zeros((2, 2), np.uint8)) == (0, 0, 0, None, [])


def test_a_photo_whose_label_map_was_rejected_leaves_no_doubt():
    assert measured(0.1 * HALF, labels=np.full((2, 2), 255, np.uint8)) == (0, 0, 0, None, [])


def test_two_classes_at_one_place_contest_the_object():
    assert measured(np.concatenate([HALF, 0.9 * HALF], -1))[:3] == (1, 0.5, 1)
    assert measured(np.concatenate([HALF, HALF[:, ::-1]], -1)).contested == 0


def test_the_seeds_disagree_where_they_tell_something_else_than_the_labels():
    labels, seeds = np.uint8([[1, 1], [0, 0]]), np.uint8([[1, 0], [255, 0]])
    assert measured(HALF, seeds, labels)[3] == measured(HALF, seeds, labels).doubt == 0.25
    assert measured(HALF, labels, labels).disagreement == 0
    assert measured(HALF, np.kron(labels, np.ones((3, 3), np.uint8)), labels).disagreement == 0
    assert measured(HALF, seeds, np.uint8([[1, 255], [255, 0]])).disagreement == 0


def test_what_is_found_is_counted_in_the_label_map_of_the_run():
    assert measured(HALF, labels=np.uint8([[1, 1], [1, 0]])).coverage == [(0, 0.75)]


def test_a_run_without_scores_has_no_doubts(tmp_path):
    assert doubt.scores_place(tmp_path) is None
    assert doubt.measure_all(tmp_path, None, {}) == {}


def test_the_walk_decides_where_there_is_one_and_a_new_label_map_is_measured_again(scored_run):
    config, workdir = scored_run
    source = type("Photos", (), {"ids": ["a", "b", "without scores"]})
    before = doubt.measure_all(workdir, config.labels, {"train": source})
    assert list(before) == ["a", "b"] and doubt.scores_place(workdir).stage == "propagate"
    artifacts.write_mask(workdir / "pseudo_labels/b.png", np.full((48, 64), 2))
    after = doubt.measure_all(workdir, config.labels, {"train": source})
    assert after["a"] == before["a"] and (after["b"].coverage, before["b"].coverage) == ([(1, 1.0)], [(1, 0.5)])


def test_a_damaged_file_is_named(scored_run):
    config, workdir = scored_run
    (workdir / "walks/a.npz").write_bytes(b"cut")
    with pytest.raises(ValueError, match="walks/a.npz: not a readable .npz"):
        doubt.measure_all(workdir, config.labels, {"train": type("Photos", (), {"ids": ["a"]})})


@pytest.mark.parametrize("stored", ["[]", '{"a": 1}', '{"a": {"state": [], "doubt": [0.5]}}', '{"a": {"doubt": []}}'])
def test_what_another_version_measured_is_measured_anew(scored_run, stored):
    config, workdir = scored_run
    sources = {"train": datasets.load(config.data, "train")}
    wanted = doubt.measure_all(workdir, config.labels, sources)
    (workdir / doubt.FILE).write_text(stored)
    assert doubt.measure_all(workdir, config.labels, sources) == wanted
