"""One step of the real network on 1, 2 and 8 devices: narrow ResNet-38, batch norm, dropout, both branches."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssenet_jax import recipes
from ssenet_jax.main import load_config
from ssenet_jax.sharding import global_batch, make_mesh, place
from ssenet_jax.train_step import create_state, make_step, state_shardings, variables_of

CONFIGS = Path(__file__).parents[1] / "configs"
CLASSES = 6


@pytest.fixture(scope="module")
def training():
    """A model, the recipe of one step, and a batch."""
    config = load_config(f"{CONFIGS}/scenes.py:tiny", [])
    model = recipes.network(config, "classifier", CLASSES)
    recipe = recipes.build(config, "classifier", model, 12)
    rng = np.random.default_rng(0)
    shapes = recipes.batch_shapes(config, "classifier", CLASSES, recipe.batch_size)
    image = rng.standard_normal(shapes["image"].shape, np.float32)
    labels = (rng.random(shapes["labels"].shape) < 0.5).astype(np.float32)
    return model, recipe, {"image": image, "labels": labels}


@pytest.fixture(scope="module")
def step_on(training):
    """A function of a number of devices that gives the metrics and the variables after a step on them."""
    model, recipe, batch = training
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 64, 64, 3)))

    def run(devices, shard_params):
        mesh = make_mesh(devices)
        state = create_state(variables, recipe)
        step = make_step(recipe, state, mesh, shard_params=shard_params)
        state = place(state, state_shardings(state, mesh, shard_params=shard_params))
        state, metrics = step(state, global_batch(batch, recipe.batch_size, mesh))
        return jax.device_get((metrics, variables_of(state)))

    return run


@pytest.fixture(scope="module")
def on_one(step_on):
    return step_on(1, shard_params=False)


@pytest.mark.parametrize(("devices", "shard_params"), [(2, False), (8, True)])
def test_a_step_of_resnet38_does_not_depend_on_the_devices(step_on, on_one, devices, shard_params):
    metrics, variables = step_on(devices, shard_params)
    expected, expected_variables = on_one
    for name, value in expected.items():
        assert metrics[name] == pytest.approx(value, rel=1e-6, abs=1e-6), name
    for ours, theirs in zip(jax.tree.leaves(variables), jax.tree.leaves(expected_variables), strict=True):
        assert np.max(np.abs(ours - theirs)) <= 1e-5 * np.max(np.abs(theirs))
