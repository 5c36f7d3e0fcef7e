"""The CRF on scores: seeds and label maps, in processes, as the CRF gives them in this one."""

import numpy as np
import pytest

from ssenet_jax.artifacts import Cam, read_mask, read_seeds
from ssenet_jax.stages import seeds
from ssenet_jax.stages.seeds import Background

OPTIONS = {"iterations": 2, "sxy_bilateral": 10.0}
BACKGROUNDS = (Background("power", 4.0), Background("power", 24.0))


@pytest.fixture(scope="module")
def example():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (20, 24, 3), np.uint8)
    cam = np.zeros((20, 24, 2), np.float16)
    cam[4:12, 4:12, 0] = 0.9
    cam[8:18, 14:22, 1] = 0.6
    return image, cam


def test_a_higher_alpha_leaves_less_to_the_background(example):
    low, high = seeds.refine(*example, (Background("power", 1.0), Background("power", 16.0)), OPTIONS)
    np.testing.assert_allclose(low.sum(-1), 1, atol=1e-5)
    assert (low.argmax(-1) == 0).sum() > (high.argmax(-1) == 0).sum()
    assert low.argmax(-1)[8, 8] == 1 and high.argmax(-1)[14, 18] == 2


def test_a_background_comes_before_the_scores():
    scores = np.float16([[[0.25, 0.5], [0.0, 1.0]]])
    assert Background("constant", 0.3).before(scores)[..., 0].tolist() == [[np.float32(0.3)] * 2]
    assert Background("power", 2.0).before(scores)[..., 0].tolist() == [[0.25, 0.0]]
    assert Background("power", 2.0).before(scores[..., :0]).tolist() == [[[1.0], [1.0]]]


def test_an_image_without_a_class_is_background(example):
    image, _ = example
    low, high = seeds.refine(image, np.zeros((20, 24, 0), np.float16), BACKGROUNDS, OPTIONS)
    assert low.shape == high.shape == (20, 24, 1) and (low == 1).all()


def test_processes_write_what_this_process_computes(example, tmp_path):
    image, scores = example
    record = {"image": image, "cam": Cam(scores, np.array([3, 7], np.int32)), "size": (40, 48)}
    calls = [(seeds.write_seeds, tmp_path / f"{i}.npz", record, BACKGROUNDS, OPTIONS) for i in range(2)]
    calls.append((seeds.write_labels, tmp_path / "label.png", record, BACKGROUNDS[:1], OPTIONS))
    seeds.in_processes(seeds.refine_to_file, calls, workers=2)
    wanted = seeds.refine(image, scores, BACKGROUNDS, OPTIONS)
    for i in range(2):
        low, high = read_seeds(tmp_path / f"{i}.npz")
        np.testing.assert_allclose(low.maps, wanted[0], atol=1e-3)
        np.testing.assert_allclose(high.maps, wanted[1], atol=1e-3)
        assert low.classes.tolist() == [3, 7]
    label = read_mask(tmp_path / "label.png")
    assert label.shape == (40, 48)  # the photo's size, not that of the image it was shrunk to
    np.testing.assert_array_equal(label[::2, ::2], np.array([0, 4, 8])[wanted[0].argmax(-1)])


def test_an_error_in_a_process_arrives(example, tmp_path):
    image, scores = example
    record = {"image": image[:5], "cam": Cam(scores, np.array([0, 1])), "size": (5, 24)}
    call = (seeds.write_seeds, tmp_path / "a.npz", record, BACKGROUNDS, OPTIONS)
    with pytest.raises(ValueError, match="scores"):
        seeds.in_processes(seeds.refine_to_file, [call], workers=2)
