"""The poly schedule, the update of SGD, and which parameters get which rate and decay."""

import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ssenet_jax.training import optim

DECAY = 5e-4
FROZEN = ((r"backbone/(conv1a|b2(_\d)?)/.*", 0.0, 0.0), (r"backbone/(.*/)?bn[^/]*/.*", 0.0, 0.0))
TRAINED = (
    ("backbone/.*bias", 2.0, 0.0),
    ("backbone/.*", 1.0, DECAY),
    (".*bias", 20.0, 0.0),
    (".*", 10.0, DECAY),
)


@pytest.fixture
def params():
    paths = "backbone/conv1a/kernel backbone/b2_1/conv_branch2a/kernel backbone/b3/conv_branch2a/kernel "
    paths += "backbone/b3/bn_branch2a/scale backbone/bn7/bias backbone/conv/bias fc8/kernel fc8/bias"
    rng = np.random.default_rng(0)
    return optim.merge({path: jnp.asarray(rng.standard_normal(3), jnp.float32) for path in paths.split()})


def test_learning_rates_equal_those_of_the_authors_code():
    # lr0..lr2: the four groups' rates at the first three of ten steps from 0.001, printed by the authors' optimizer
    golden = [
        [0.001, 0.002, 0.01, 0.02],
        [0.0009095325760829623, 0.0018190651521659245, 0.009095325760829623, 0.018190651521659246],
        [0.0008180521460508585, 0.001636104292101717, 0.008180521460508584, 0.016361042921017168],
    ]
    for step, expected in enumerate(golden):
        rates = [float(optim.poly_schedule(0.001 * multiplier, 10, 0.9)(step)) for multiplier in (1, 2, 10, 20)]
        np.testing.assert_allclose(rates, expected, rtol=1e-7)  # float32 rounds to 6e-8


def test_the_schedule_ends_at_the_rate_of_the_last_step():
    schedule = jax.jit(optim.poly_schedule(0.1, 4, 1.0))
    rates = [schedule(step) for step in range(6)]
    np.testing.assert_allclose(rates, [0.1, 0.075, 0.05, 0.025, 0.025, 0.025], rtol=1e-6)
    with pytest.raises(ValueError, match="at least 1 step"):
        optim.poly_schedule(0.1, 0, 0.9)


def test_groups_of_the_method(params):
    table = optim.match_groups(params, FROZEN + TRAINED)
    assert table["backbone/conv1a/kernel"] == table["backbone/b2_1/conv_branch2a/kernel"] == (0.0, 0.0)
    assert table["backbone/b3/bn_branch2a/scale"] == table["backbone/bn7/bias"] == (0.0, 0.0)
    assert table["backbone/b3/conv_branch2a/kernel"] == (1.0, DECAY)
    assert table["backbone/conv/bias"] == (2.0, 0.0)
    assert (table["fc8/kernel"], table["fc8/bias"]) == ((10.0, DECAY), (20.0, 0.0))


def test_paths_without_a_row_are_all_listed(params):
    with pytest.raises(ValueError, match=r"covers fc8/bias, fc8/kernel; add one"):
        optim.match_groups(params, (("backbone/.*", 1.0, 0.0), ("fc8", 1.0, 0.0)))


@pytest.mark.parametrize(
    ("pattern", "nearest"),
    [
        ("backbone/b33/.*", "backbone/b3/conv_branch2a/kernel"),  # a typing error
        ("b3/.*", "backbone/b3/"),  # not the whole path
        ("backbone/b3", "backbone/b3/"),
        ("backbone/b9/.*bias", "backbone/"),
        ("fc9/kernel", "fc8/kernel"),
    ],
)
def test_a_pattern_without_a_parameter_is_an_error(params, pattern, nearest):
    with pytest.raises(ValueError, match="matches none; the nearest are") as error:
        optim.split_trainable(params, ((pattern, 0.0, 0.0), (".*", 1.0, 0.0)))
    assert repr(pattern) in str(error.value) and nearest in str(error.value).partition("nearest are")[2]


def test_patterns_that_earlier_rows_shadow_and_those_of_absent_biases_are_right():
    params = {"backbone": {"conv": {"kernel": jnp.ones(1)}}, "fc8": {"kernel": jnp.ones(1)}}
    trainable, frozen = optim.split_trainable(params, (("backbone/.*", 0.0, 0.0), *TRAINED))
    assert list(trainable) == ["fc8/kernel"] and list(frozen) == ["backbone/conv/kernel"]


@pytest.mark.parametrize("row", [("(", 1.0, 0.0), ("a", 1.0), ("a", "fast", 0.0), ("a", -1.0, 0.0), ("a", 1.0, -0.1)])
def test_a_row_that_is_not_usable_is_named(params, row):
    with pytest.raises(ValueError) as error:
        optim.match_groups(params, (row,))
    assert repr(row) in str(error.value)


def test_sgd_follows_the_update_rule(params):
    base_lr, steps, power, momentum = 0.1, 5, 0.9, 0.9
    groups = FROZEN + TRAINED
    optimizer = optim.sgd(params, groups, base_lr=base_lr, total_steps=steps, power=power, momentum=momentum)
    state, current = optimizer.init(params), params
    table = optim.match_groups(params, groups)
    expected = {path: np.asarray(leaf, np.float64) for path, leaf in optim.flatten(params).items()}
    buffers = {}
    for step in range(3):
        gradients = jax.tree.map(lambda leaf, step=step: jnp.sin(leaf + step), params)
        updates, state = jax.jit(optimizer.update)(gradients, state, current)
        current = optax.apply_updates(current, updates)
        for path, gradient in optim.flatten(gradients).items():
            multiplier, decay = table[path]
            d = np.asarray(gradient, np.float64) + decay * expected[path]
            buffers[path] = d if step == 0 else momentum * buffers[path] + d
            expected[path] = expected[path] - base_lr * multiplier * (1 - step / steps) ** power * buffers[path]
    for path, leaf in optim.flatten(current).items():
        np.testing.assert_allclose(leaf, expected[path], rtol=2e-6, atol=1e-7, err_msg=path)


def test_frozen_parameters_do_not_move_by_one_bit(params):
    groups = (("backbone/.*", 0.0, DECAY), (".*", 1.0, DECAY))
    optimizer = optim.sgd(params, groups, base_lr=1.0, total_steps=2)
    updates, _ = optimizer.update(jax.tree.map(jnp.ones_like, params), optimizer.init(params), params)
    moved = optax.apply_updates(params, updates)
    jax.tree.map(np.testing.assert_array_equal, moved["backbone"], params["backbone"])
    assert not np.array_equal(moved["fc8"]["kernel"], params["fc8"]["kernel"])


def test_splitting_and_merging_gives_the_tree_back(params):
    trainable, frozen = optim.split_trainable(params, FROZEN + TRAINED)
    assert sorted(trainable) == ["backbone/b3/conv_branch2a/kernel", "backbone/conv/bias", "fc8/bias", "fc8/kernel"]
    assert len(frozen) == 4
    jax.tree.map(np.testing.assert_array_equal, optim.merge(trainable, frozen), params)


def test_optim_and_the_train_step_need_neither_grain_nor_tfds():
    packages = {"grain", "tensorflow_datasets", "array_record"}
    code = f"import sys, ssenet_jax.training.step, ssenet_jax.training.objectives; print({packages} & set(sys.modules))"
    root = Path(optim.__file__).parents[1]
    out = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True).stdout
    assert out.strip() == "set()"
