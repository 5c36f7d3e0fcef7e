"""CRF seeds: two marginals an image, in processes, as the CRF gives them in this one."""

import numpy as np
import pytest

from ssenet_jax.artifacts import read_arrays
from ssenet_jax.stages import seeds

OPTIONS = {"iterations": 2, "sxy_bilateral": 10.0}


@pytest.fixture(scope="module")
def example():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (20, 24, 3), np.uint8)
    cam = np.zeros((20, 24, 2), np.float16)
    cam[4:12, 4:12, 0] = 0.9
    cam[8:18, 14:22, 1] = 0.6
    return image, cam


def test_a_higher_alpha_leaves_less_to_the_background(example):
    low, high = seeds.refine(*example, (1.0, 16.0), OPTIONS)
    np.testing.assert_allclose(low.sum(-1), 1, atol=1e-5)
    assert (low.argmax(-1) == 0).sum() > (high.argmax(-1) == 0).sum()
    assert low.argmax(-1)[8, 8] == 1 and high.argmax(-1)[14, 18] == 2


def test_processes_write_what_this_process_computes(example, tmp_path):
    classes = np.array([3, 7], np.int32)
    calls = [(tmp_path / f"{i}.npz", *example, classes, (4.0, 24.0), OPTIONS) for i in range(3)]
    seeds.in_processes(seeds.refine_to_file, calls, workers=2)
    wanted = seeds.refine(*example, (4.0, 24.0), OPTIONS)
    for i in range(3):
        low, high, names = read_arrays(tmp_path / f"{i}.npz", "low", "high", "classes")
        np.testing.assert_allclose(low, wanted[0], atol=1e-3)
        np.testing.assert_allclose(high, wanted[1], atol=1e-3)
        assert names.tolist() == [3, 7]


def test_an_error_in_a_process_arrives(example, tmp_path):
    image, cam = example
    call = (tmp_path / "a.npz", image[:5], cam, np.array([0, 1]), (4.0, 24.0), OPTIONS)
    with pytest.raises(ValueError, match="scores"):
        seeds.in_processes(seeds.refine_to_file, [call], workers=2)
