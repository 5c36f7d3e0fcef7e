"""The CRF on scores: seeds and label maps, in processes, as the CRF gives them in this one."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

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


def endless(folder):
    """Says which process it is, and works until that is ended."""
    (folder / str(os.getpid())).touch()
    time.sleep(600)


PARENT = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import test_seeds
from ssenet_jax.stages import seeds
if __name__ == "__main__":
    seeds.in_processes(test_seeds.endless, [(Path(sys.argv[1]),)] * 4, workers=2)
"""


@pytest.fixture
def working(tmp_path):
    """A process whose two workers are at work, and their numbers."""
    (tmp_path / "parent.py").write_text(PARENT.format(tests=str(Path(__file__).parent)))
    folder = tmp_path / "workers"
    folder.mkdir()
    command = [sys.executable, str(tmp_path / "parent.py"), str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    parent = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True)
    wait_until(lambda: len(list(folder.iterdir())) == 2)
    yield parent, [int(path.name) for path in folder.iterdir()]
    parent.kill()
    parent.communicate()


def wait_until(true, seconds=180):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def is_alive(number):
    try:
        return "(zombie)" not in Path(f"/proc/{number}/status").read_text()
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="looks at processes as Linux shows them")
def test_workers_ignore_what_stops_a_run_and_end_with_their_parent(working):
    parent, workers = working
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        for worker in workers:
            os.kill(worker, number)
    time.sleep(0.2)
    assert all(map(is_alive, workers))
    parent.kill()
    wait_until(lambda: not any(map(is_alive, workers)))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="looks at processes as Linux shows them")
def test_a_worker_that_is_killed_is_one_line_with_a_remedy(working):
    parent, workers = working
    os.kill(workers[0], signal.SIGKILL)
    _, errors = parent.communicate(timeout=60)
    assert errors.splitlines()[-1].startswith("OSError: one of 2 CRF processes was killed, most often for lack of mem")
    assert "set --config.crf.workers to fewer, and run the same command again" in errors
