"""The walk over features that nothing was trained for."""

import shutil

import numpy as np
import pytest

from ssenet_jax.artifacts import read_cam
from ssenet_jax.main import main

WALK = "propagate"


@pytest.mark.parametrize("normalize", [False, True])
def test_a_walk_over_the_classifiers_features_takes_no_affinity_net(tiny, tmp_path, normalize):
    workdir = tmp_path / "run"
    shutil.copytree(tiny, workdir)
    for folder in ("walks", "seeds", "checkpoints/affinity"):
        shutil.rmtree(workdir / folder)
    for stage in (WALK, "train_affinity", "refine_seeds"):
        (workdir / "manifests" / f"{stage}.json").unlink()
    keys = {"features": "classifier", "normalize": str(normalize).lower(), "steps": "2"}
    words = [f"--config.random_walk.{key}={value}" for key, value in keys.items()]
    assert main(["run", "--config=scenes:tiny", f"--workdir={workdir}", f"--stages={WALK}", *words]) == 0
    for path in (workdir / "walks").iterdir():
        cam, walk = read_cam(workdir / "cams" / path.name), read_cam(path)
        np.testing.assert_array_equal(walk.classes, cam.classes)
        cells = cam.maps.astype(np.float32).reshape(6, 8, 6, 8, -1).mean((1, 3))
        largest = walk.maps.max((0, 1))
        if normalize:
            assert (largest == 1).all() and ((walk.maps == 0).sum((0, 1)) > 36 // 10).all()
        else:
            assert (largest < cells.max((0, 1)) + 1e-3).all() and walk.maps.std() < cells.std()
