"""The walk over features that nothing was trained for."""

import functools
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssenet_jax.artifacts import read_cam
from ssenet_jax.main import main
from ssenet_jax.models import FixedFeatures
from ssenet_jax.stages import propagation
from ssenet_jax.stages.batching import Photos

WALK = "propagate"


@pytest.fixture(scope="module")
def walks(tiny, tmp_path_factory):
    """A function of keys of the section random_walk that gives a folder of walks."""

    @functools.cache
    def with_keys(**keys):
        workdir = tmp_path_factory.mktemp("walks") / "run"
        shutil.copytree(tiny, workdir)
        for folder in ("walks", "seeds", "checkpoints/affinity"):
            shutil.rmtree(workdir / folder)
        for stage in (WALK, "train_affinity", "refine_seeds"):
            (workdir / "manifests" / f"{stage}.json").unlink()
        keys = {"features": "classifier", "steps": 2, "contrast": 0.0, **keys}
        words = [f"--config.random_walk.{key}={value}".lower() for key, value in keys.items()]
        assert main(["run", "--config=scenes:tiny", f"--workdir={workdir}", f"--stages={WALK}", *words]) == 0
        return workdir / "walks"

    return with_keys


@pytest.mark.parametrize("normalize", [False, True])
def test_a_walk_over_the_classifiers_features_takes_no_affinity_net(walks, normalize):
    for path in (folder := walks(normalize=normalize)).iterdir():
        cam, walk = read_cam(folder.parent / "cams" / path.name), read_cam(path)
        np.testing.assert_array_equal(walk.classes, cam.classes)
        cells = cam.maps.astype(np.float32).reshape(6, 8, 6, 8, -1).mean((1, 3))
        largest = walk.maps.max((0, 1))
        if normalize:
            assert (largest == 1).all() and ((walk.maps == 0).sum((0, 1)) > 36 // 10).all()
        else:
            assert (largest < cells.max((0, 1)) + 1e-3).all() and walk.maps.std() < cells.std()


def test_contrast_adds_one_map_that_knows_no_class(walks):
    pure, mixed = walks(normalize=True), walks(normalize=True, contrast=0.4)
    for path in pure.iterdir():
        of_classes, with_contrast = (read_cam(folder / path.name).maps.astype(np.float32) for folder in (pure, mixed))
        added = (with_contrast - 0.6 * of_classes) / 0.4
        np.testing.assert_allclose(added, np.broadcast_to(added[..., :1], added.shape), atol=5e-3)
        assert abs(added.max() - 1) < 5e-3 and abs(added.min()) < 5e-3


def scores_before_a_walk(cams, sizes):
    """The scores that would walk, the contrast behind them, of photos on a canvas of 64 x 64."""
    model, photos = FixedFeatures(backbone="efficientnet_lite0", width=1 / 16), jnp.zeros((len(sizes), 64, 64, 3))
    images = Photos(photos.astype(jnp.uint8), jnp.array(sizes, jnp.int32))
    flow = {"radius": 5, "border": "full"}
    walk = propagation.walks_function(model, flow=flow, betas=(1.0,), steps=(0,), method="stencil")
    return np.asarray(walk(model.init(jax.random.key(0), photos), images, cams)[:, 0, 0])


def test_a_cell_at_the_edge_of_a_photo_has_the_mean_of_its_pixels_that_are_there():
    cams = jnp.full((2, 64, 64, 1), 0.3)
    for scores, (rows, columns) in zip(scores_before_a_walk(cams, [(36, 43), (64, 33)]), [(5, 6), (8, 5)], strict=True):
        np.testing.assert_allclose(scores[:rows, :columns, 0], 0.3, rtol=1e-6)
