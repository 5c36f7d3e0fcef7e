"""One step of the real network on 1, 2 and 8 devices: narrow ResNet-38 with batch norm, dropout and both branches."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssenet_jax.commands.configs import load_config
from ssenet_jax.training import recipes
from ssenet_jax.training.optim import flatten, merge
from ssenet_jax.training.sharding import global_batch, make_mesh, place
from ssenet_jax.training.step import create_state, make_step, state_shardings, variables_of

CONFIGS = Path(__file__).parents[1] / "configs"
CLASSES = 6
QUICKLY = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def step_on(mesh, shard_params=False):
    """The metrics and the variables after one step, the same on every process of the mesh."""
    changes = ["--config.model.dropout=1.0", "--config.classifier.lr=0.01"]
    config = load_config(f"{CONFIGS}/scenes.py:tiny", changes)
    model = recipes.network(config, "classifier", CLASSES)
    recipe = recipes.build(config, "classifier", model, 12)
    state = create_state(start(model), recipe)
    step = make_step(recipe, state, mesh, shard_params=shard_params)
    state = place(state, state_shardings(state, mesh, shard_params=shard_params))
    rows = np.split(np.arange(recipe.batch_size), jax.process_count())[jax.process_index()]
    batch = {name: array[rows] for name, array in whole_batch(config, recipe.batch_size).items()}
    batch = global_batch(batch, recipe.batch_size, mesh)
    state, metrics = step.lower(state, batch).compile(QUICKLY)(state, batch)
    return jax.device_get((metrics, variables_of(state)))


def start(model):
    """Variables whose biases are not zero: after a step those would be one gradient, with all of its rounding."""
    new = jax.random.key(0), jnp.zeros((1, 64, 64, 3))
    variables = jax.jit(model.init).lower(*new).compile(QUICKLY)(*new)
    params = flatten(variables["params"])
    return {**variables, "params": merge({name: x + 0.1 * name.endswith("bias") for name, x in params.items()})}


def whole_batch(config, batch_size):
    rng = np.random.default_rng(0)
    shapes = recipes.batch_shapes(config, "classifier", CLASSES, batch_size)
    image = rng.standard_normal(shapes["image"].shape, np.float32)
    return {"image": image, "labels": (rng.random(shapes["labels"].shape) < 0.5).astype(np.float32)}


def assert_same_step(ours, theirs):
    """Losses within 1e-6, parameters within 1e-5 of the largest of their array."""
    (metrics, variables), (expected, expected_variables) = ours, theirs
    for name, value in expected.items():
        assert metrics[name] == pytest.approx(value, rel=1e-6, abs=1e-6), name
    for a, b in zip(jax.tree.leaves(variables), jax.tree.leaves(expected_variables), strict=True):
        assert np.max(np.abs(a - b)) <= 1e-5 * np.max(np.abs(b))


@pytest.fixture(scope="module")
def on_one():
    return step_on(make_mesh(1))


@pytest.mark.parametrize(("devices", "shard_params"), [(2, False), (8, True)])
def test_a_step_of_resnet38_does_not_depend_on_the_devices(on_one, devices, shard_params):
    assert_same_step(step_on(make_mesh(devices), shard_params), on_one)
