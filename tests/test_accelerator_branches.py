"""What accelerators run and a CPU does not, forced on a CPU; no hidden transfers, and few compilations."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssenet_jax import random_walk as walks
from ssenet_jax.crf import jax_backend
from ssenet_jax.models.convolution import strided_pointwise
from ssenet_jax.stages import batching, inference
from ssenet_jax.training import loop
from ssenet_jax.training.sharding import make_mesh

sys.path.insert(0, str(Path(__file__).parent))  # the small network of test_train serves here too

from test_train import SmallNet, run  # noqa: E402

CRF = {
    "iterations": 3,
    "sxy_gaussian": 3,
    "compat_gaussian": 3,
    "sxy_bilateral": 20,
    "srgb": 13,
    "compat_bilateral": 10,
}


@pytest.fixture
def elsewhere(monkeypatch):
    """Takes the branch that every platform but a CPU takes."""
    platform_dependent = jax.lax.platform_dependent

    def forced(*arrays, default=None, **branches):
        return default(*arrays) if "cpu" in branches else platform_dependent(*arrays, default=default, **branches)

    jax.clear_caches()
    monkeypatch.setattr(jax.lax, "platform_dependent", forced)
    yield
    jax.clear_caches()


def walk_of(features, scores, method):
    return walks.random_walk(scores, walks.transition(features), steps=64, method=method)


@pytest.fixture(scope="module")
def grid():
    rng = np.random.default_rng(0)
    features, scores = (jnp.asarray(rng.standard_normal((9, 12, maps)), jnp.float32) for maps in (8, 3))
    on_cpu = {method: np.asarray(walk_of(features, scores, method)) for method in ("auto", "stencil", "chebyshev")}
    return features, scores, on_cpu


@pytest.mark.parametrize("method", ["auto", "stencil", "chebyshev"])
def test_the_walk_of_an_accelerator_is_that_of_a_cpu(elsewhere, grid, method):
    features, scores, on_cpu = grid
    found = np.asarray(walk_of(features, scores, method))
    assert np.abs(found - on_cpu[method]).max() <= 1e-5 * np.abs(on_cpu[method]).max()


def test_auto_squares_small_grids_on_an_accelerator_and_expands_those_of_voc():
    assert walks.pick_method(108, 256, on_cpu=False) == "dense"
    assert walks.pick_method(108, 256, on_cpu=True) == "chebyshev"
    for cells in (47 * 63, 94 * 125):  # VOC's at strides 8 and 4
        assert walks.pick_method(cells, 256, on_cpu=False) == walks.pick_method(cells, 256, on_cpu=True) == "chebyshev"
    assert walks.pick_method(47 * 63, 4, on_cpu=False) == "stencil"


def test_a_gpu_is_given_no_product_of_a_strided_slice():
    """Over which XLA's compiler ends the process."""
    x, kernel = jax.ShapeDtypeStruct((1, 7, 9, 4), jnp.float32), jax.ShapeDtypeStruct((4, 8), jnp.float32)
    function = jax.jit(lambda x, kernel: strided_pointwise(x, kernel, 2))
    texts = {
        name: jax.export.export(function, platforms=(name,))(x, kernel).mlir_module() for name in ("cpu", "cuda", "tpu")
    }
    assert {name: "dot_general" in text for name, text in texts.items()} == {"cpu": True, "cuda": False, "tpu": False}


def test_each_platform_is_lowered_with_its_own_branch():
    features, scores = jax.ShapeDtypeStruct((9, 12, 8), jnp.float32), jax.ShapeDtypeStruct((9, 12, 3), jnp.float32)
    function = jax.jit(lambda features, scores: walk_of(features, scores, "auto"))
    texts = {
        name: jax.export.export(function, platforms=(name,))(features, scores).mlir_module()
        for name in ("cpu", "cuda", "tpu")
    }
    assert {name: "dot_general" in text for name, text in texts.items()} == {"cpu": False, "cuda": True, "tpu": True}


@pytest.fixture(scope="module")
def crf_batch():
    rng = np.random.default_rng(1)
    images = np.repeat(np.repeat(rng.integers(0, 256, (2, 5, 6, 3)), 4, 1), 4, 2).astype(np.uint8)
    batch = images, rng.random((2, 20, 24, 3), np.float32), np.array([[20, 24], [17, 19]], np.int32)
    return batch, np.asarray(jax_backend.mean_field(*batch, **CRF))


def test_the_crf_of_an_accelerator_is_that_of_a_cpu(elsewhere, crf_batch):
    batch, on_cpu = crf_batch
    np.testing.assert_allclose(jax_backend.mean_field(*batch, **CRF), on_cpu, atol=1e-5)


def test_the_steps_of_a_training_transfer_nothing_that_they_do_not_name(tmp_path, monkeypatch):
    variables, steps = SmallNet().init(jax.random.key(0), jnp.zeros((1, 12, 12, 3))), loop._run

    def guarded(*arguments):
        with jax.transfer_guard("disallow"):
            return steps(*arguments)

    monkeypatch.setattr(loop, "_run", guarded)
    run(tmp_path, variables, make_mesh(2))


def test_inference_names_its_transfers_and_compiles_once_a_bucket():
    class Doubling:
        backbone, output_stride = "efficientnet_lite0", 16

        @staticmethod
        def apply(variables, images, sizes):
            return images[:, ::16, ::16] * variables, {}

    function = inference.cam_function(Doubling(), scales=(0.5, 1.0), flip=True, dtype=jnp.float16)
    sizes = [(30, 40), (33, 40), (31, 21), (64, 64), (12, 9), (40, 30)]
    records = [{"image": np.full((*size, 3), 7, np.uint8), "labels": np.array([0, 1, 1])} for size in sizes]
    found = []

    def prepare(records, canvas, rows):
        images, labels = ([record[name] for record in records] for name in ("image", "labels"))
        return batching.padded_images(images, canvas, rows), *batching.class_slots(labels, rows)

    with jax.transfer_guard("disallow"):
        batching.run(
            iter(records), prepare, function, np.float32(2), lambda record, cam: found.append(cam.dtype),
            batch_size=2, bucket=32,
        )  # fmt: skip
    assert found == [np.float16] * len(records)
    assert function._cache_size() == 4  # 32 x 64, 64 x 64, 32 x 32, 64 x 32
