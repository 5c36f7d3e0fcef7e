"""The drawn scenes."""

import numpy as np
import pytest

from ssenet_jax import datasets
from ssenet_jax.config import paper_config
from ssenet_jax.datasets.scenes import Scenes, draw_scene


@pytest.fixture(scope="module")
def scenes():
    return [Scenes("train", seed=0, count=60, size=96)[index] for index in range(60)]


def test_a_scene_depends_on_seed_split_and_index_alone(scenes):
    again = Scenes("train", seed=0, count=20, size=96)
    for drawn in (again[7]["image"], again[7]["mask"]), draw_scene(np.random.default_rng((0, 0, 7)), 96):
        np.testing.assert_array_equal(drawn[0], scenes[7]["image"])
        np.testing.assert_array_equal(drawn[1], scenes[7]["mask"])
    others = [Scenes("train", seed=1, count=20, size=96)[7], Scenes("test", seed=0, count=20, size=96)[7], again[8]]
    for other in others:
        assert (other["image"] != scenes[7]["image"]).any()


def test_a_scene_that_is_kept_cannot_be_changed(scenes):
    with pytest.raises(ValueError, match="read-only"):
        scenes[0]["image"][:] = 0


def test_labels_are_the_classes_of_the_mask_and_each_is_visible(scenes):
    for record in scenes:
        present = np.flatnonzero(record["labels"]) + 1
        np.testing.assert_array_equal(present, np.setdiff1d(record["mask"], [0]))
        assert 1 <= len(present) <= 3
        assert min((record["mask"] == number).sum() for number in present) >= 40


def test_sizes_go_from_a_tenth_to_most_of_the_image(scenes):
    covered = np.array([(record["mask"] > 0).mean() for record in scenes])
    assert covered.min() < 0.17 and covered.max() > 0.5


def test_every_class_is_drawn(scenes):
    assert (sum(record["labels"] for record in scenes) >= 5).all()


def test_an_object_stands_out_from_the_ground_but_its_mean_colour_does_not_tell_its_class(scenes):
    single = [record for record in scenes if record["labels"].sum() == 1]
    inside = np.array([record["image"][record["mask"] > 0].mean(0) for record in single])
    outside = np.array([record["image"][record["mask"] == 0].mean(0) for record in single])
    assert np.linalg.norm(inside - outside, axis=1).min() > 20
    classes = np.array([record["labels"].argmax() for record in single])
    distances = np.linalg.norm(inside[:, None] - inside[None], axis=-1) + 1e9 * np.eye(len(single))
    nearest_agrees = classes[distances.argmin(1)] == classes
    assert nearest_agrees.mean() < 0.5


def test_the_config_decides_count_size_and_ids():
    config = paper_config().data
    config.name, config.on_error = "scenes", "skip"
    config.scenes.seed, config.scenes.num_train, config.scenes.num_test, config.scenes.size = 3, 4, 2, 40
    train, test = datasets.load(config, "train"), datasets.load(config, "test")
    assert train.ids == ["train_00000", "train_00001", "train_00002", "train_00003"]
    assert test.ids == ["test_00000", "test_00001"] and test.has_masks
    assert len(train.class_names) == 6
    assert train[3]["image"].shape == (40, 40, 3) and train[3]["mask"].shape == (40, 40)
    with pytest.raises(IndexError):
        train[4]


@pytest.mark.parametrize(
    "split, change, message",
    [
        ("val", {}, "no split 'val'"),
        ("train", {"size": 8}, "size must be at least 32"),
        ("test", {"count": 0}, "count"),
    ],
)
def test_what_cannot_be_drawn_is_an_error(split, change, message):
    with pytest.raises(ValueError, match=message):
        Scenes(split, **({"seed": 0, "count": 5, "size": 64} | change))
