"""What a training starts from, and how long it then is."""

import jax
import numpy as np
import pytest

from ssenet_jax import pretrained
from ssenet_jax.checkpoint import Checkpoints
from ssenet_jax.commands.configs import load_config
from ssenet_jax.stages import train
from ssenet_jax.stages.context import Context, Job
from ssenet_jax.stages.table import needs_of, place_of
from ssenet_jax.training import recipes


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """With a baseline that was drawn, not trained."""
    folder = tmp_path_factory.mktemp("starts")
    model = Context(load_config("scenes:tiny", []), folder).network("baseline")
    drawn = pretrained.initialise_missing(model, pretrained.shapes_of(model), 7)
    with Checkpoints(folder / "checkpoints" / "baseline", keep=1) as checkpoints:
        checkpoints.save(4, drawn, {"none": np.zeros(1, np.float32)}, {})
        checkpoints.wait()
    return folder, drawn


def start(workdir, *words):
    context = Context(load_config("scenes:tiny", words), workdir)
    reads = tuple(place_of(name, workdir) for name in needs_of("train_classifier", context.config))
    job = Job("Classifier", reads, place_of("train_classifier", workdir), {})
    return train.start_of(context, job, context.network("classifier"), "classifier")


def assert_same(tree, other):
    jax.tree.map(np.testing.assert_array_equal, tree, other)


def test_with_steps_to_finetune_a_classifier_is_the_baseline_at_first(workdir):
    folder, drawn = workdir
    assert_same(start(folder), drawn)


def test_what_seam_has_beside_the_baseline_is_drawn(workdir):
    folder, drawn = workdir
    found = start(folder, "--config.classifier.regulariser=seam")
    assert_same(found["params"]["backbone"], drawn["params"]["backbone"])
    assert_same(found["batch_stats"]["backbone"], drawn["batch_stats"]["backbone"])
    classes = drawn["params"]["fc8"]["kernel"].shape[-1]
    assert found["params"]["fc8"]["kernel"].shape[-1] == classes + 1  # the background is one to SEAM
    assert np.ptp(found["params"]["fc8"]["kernel"]) > 0


def test_without_them_it_is_drawn_and_trained_as_long_as_the_baseline(workdir):
    folder, drawn = workdir
    kernel = start(folder, "--config.finetune.steps=0")["params"]["fc8"]["kernel"]
    assert kernel.shape == drawn["params"]["fc8"]["kernel"].shape
    assert not np.array_equal(kernel, drawn["params"]["fc8"]["kernel"])
    for steps, expected in ((0, 2700), (700, 700)):
        config = load_config("scenes", [f"--config.finetune.steps={steps}"])
        assert recipes.steps_of(config, "classifier", 1200) == expected
        assert recipes.steps_of(config, "baseline", 1200) == 2700
        assert needs_of("train_classifier", config) == (("train_baseline",) if steps else ())
