"""The training step: what it changes, what it is made of, and how it is compiled for a mesh."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from ssenet_jax.training import optim, sharding

LossFn = Callable[[dict, dict, dict, jax.Array, jax.Array], tuple[jax.Array, tuple[dict, dict]]]
"""(params, batch_stats, batch, rng, step) -> (loss, (new batch_stats, metrics)); see `objectives`."""


class Losses(NamedTuple):
    """The forms of a training's loss, of which each step takes one.

    Each has a program of its own: within a conditional or a loop XLA's convolutions take fifty times as long on a CPU.

    Attributes:
        forms: losses with the same metrics.
        at: from the number of steps done to the index of the form that the next one takes, on every process the same.
    """

    forms: tuple[LossFn, ...]
    at: Callable[[int], int] = lambda done: 0


class TrainState(NamedTuple):
    """What a step changes. Parameters are flat dicts from "/"-joined path to array; the frozen ones never change."""

    trainable: dict
    frozen: dict
    batch_stats: dict
    optimizer: optim.SgdState


class Recipe(NamedTuple):
    """What the step is made of.

    Attributes:
        losses: see `Losses`.
        groups: rows (regex, learning rate multiplier, weight decay); see `optim.match_groups`.
        steps: length of the training and of its learning rate schedule.
        batch_size: examples a step, over all devices and processes.
        accumulate: micro-batches a step is computed in.
        lr, power, momentum: of the optimizer.
        seed: of the randomness in the model; step i uses fold_in(key(seed), i).
    """

    losses: Losses
    groups: optim.Groups
    steps: int
    batch_size: int
    accumulate: int
    lr: float
    power: float
    momentum: float
    seed: int

    def optimizer(self, params: dict) -> optax.GradientTransformation:
        """The optimizer of the parameters whose paths are those of `params`."""
        return optim.sgd(
            params, self.groups, base_lr=self.lr, total_steps=self.steps, power=self.power, momentum=self.momentum
        )


def create_state(variables: dict, recipe: Recipe) -> TrainState:
    """The state before the first step; can be traced, so `jax.eval_shape` gives its shapes."""
    trainable, frozen = optim.split_trainable(variables["params"], recipe.groups)
    if not trainable:
        raise ValueError("the parameter groups freeze every parameter; give at least one a multiplier above 0")
    return TrainState(trainable, frozen, variables["batch_stats"], recipe.optimizer(trainable).init(trainable))


def variables_of(state: TrainState) -> dict:
    """The variables that the model's `apply` takes. They live until the next step is run."""
    return {"params": optim.merge(state.trainable, state.frozen), "batch_stats": state.batch_stats}


def state_shardings(state: TrainState, mesh, *, shard_params: bool) -> TrainState:
    """Where each array of a state lies: replicated, or parameters and momentum split over the devices."""
    whole = sharding.replicated(mesh)

    def of(leaf):
        return sharding.over_largest_axis(mesh, leaf.shape) if shard_params else whole

    placed = jax.tree.map(lambda _: whole, state)
    return placed._replace(
        trainable=jax.tree.map(of, state.trainable),
        frozen=jax.tree.map(of, state.frozen),
        optimizer=placed.optimizer._replace(momentum=jax.tree.map(of, state.optimizer.momentum)),
    )


def make_step(recipe: Recipe, state: TrainState, mesh, *, form: int = 0, shard_params: bool = False):
    """The compiled training step, `step(state, batch) -> (state, metrics)`.

    The state given to it is donated. Metrics are float32 scalars, with "loss", "lr" and "finite", which is 0 when
    the loss or a gradient is not finite.

    Args:
        recipe: what to compute.
        state: arrays or shapes, for the parameters' paths and the shardings.
        mesh: the devices.
        form: of the recipe's losses.
        shard_params: parameters and momentum are split over the devices and gathered when used.

    Raises:
        ValueError: when the batch does not divide by the devices.
    """
    sharding.check_batch(recipe.batch_size, mesh, recipe.accumulate)
    optimizer = recipe.optimizer(state.trainable)
    lr = optim.poly_schedule(recipe.lr, recipe.steps, recipe.power)
    whole, rows = sharding.replicated(mesh), sharding.over_batch(mesh)

    def train_step(state, batch):
        step = state.optimizer.step
        rng = jax.random.fold_in(jax.random.key(recipe.seed), step)

        def loss_fn(trainable, batch_stats, part, rng):
            params = {**trainable, **state.frozen}
            if shard_params:
                params = jax.lax.with_sharding_constraint(params, whole)
            return recipe.losses.forms[form](optim.merge(params), batch_stats, part, rng, step)

        loss, gradients, batch_stats, metrics = _gradients(loss_fn, state, batch, rng, recipe.accumulate, mesh)
        updates, optimizer_state = optimizer.update(gradients, state.optimizer, state.trainable)
        trainable = jax.tree.map(jnp.add, state.trainable, updates)
        metrics = {"loss": loss, **metrics, "lr": lr(step), "finite": _all_finite(loss, gradients)}
        return TrainState(trainable, state.frozen, batch_stats, optimizer_state), metrics

    placed = state_shardings(state, mesh, shard_params=shard_params)
    return jax.jit(train_step, donate_argnums=0, in_shardings=(placed, rows), out_shardings=(placed, whole))


def _gradients(loss_fn, state, batch, rng, accumulate, mesh):
    """Loss, gradients and metrics, each the mean over micro-batches, and the batch statistics after the last."""
    value_and_grad = jax.value_and_grad(loss_fn, has_aux=True)
    if accumulate == 1:
        (loss, (batch_stats, metrics)), gradients = value_and_grad(state.trainable, state.batch_stats, batch, rng)
        return loss, gradients, batch_stats, metrics

    def body(carry, part):
        total, batch_stats, index = carry
        part_rng = jax.random.fold_in(rng, index)
        (loss, (batch_stats, metrics)), gradients = value_and_grad(state.trainable, batch_stats, part, part_rng)
        return (jax.tree.map(jnp.add, total, gradients), batch_stats, index + 1), {"loss": loss, **metrics}

    # every accumulate-th example, so that a micro-batch takes its share of each device's rows and none move
    micro = sharding.over_micro_batches(mesh)
    parts = jax.tree.map(lambda x: x.reshape(-1, accumulate, *x.shape[1:]).swapaxes(0, 1), batch)
    parts = jax.lax.with_sharding_constraint(parts, micro)
    zeros = jax.tree.map(jnp.zeros_like, state.trainable)
    begin = (zeros, state.batch_stats, jnp.int32(0))
    # a loop is the smaller program, but see `Losses` for what it costs on a CPU
    (total, batch_stats, _), metrics = jax.lax.scan(body, begin, parts, unroll=mesh.devices.flat[0].platform == "cpu")
    metrics = jax.tree.map(jnp.mean, metrics)
    loss = metrics.pop("loss")
    return loss, jax.tree.map(lambda x: x / accumulate, total), batch_stats, metrics


def _all_finite(loss, gradients):
    finite = [jnp.isfinite(loss)] + [jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(gradients)]
    return jnp.all(jnp.stack(finite)).astype(jnp.float32)
