"""One loop for the three trainings."""

import math
import numbers
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax

from ssenet_jax.checkpoint import Checkpoints
from ssenet_jax.training import hosts, optim, sharding
from ssenet_jax.training.logs import MetricsLog, Progress
from ssenet_jax.training.step import Recipe, TrainState, create_state, make_step, state_shardings, variables_of
from ssenet_jax.training.stop import Preempted

_STEPS_IN_FLIGHT = 2


class NonFiniteLossError(ValueError):
    """The loss or a gradient is infinite or not a number."""


class Records(NamedTuple):
    """What a training is called and leaves on disk, and how often.

    Attributes:
        name: the stage, for messages.
        checkpoints, log, tensorboard: a directory, the file of JSON lines, the directory of event files.
        checkpoint_every: steps between checkpoints; the last step always has one.
        keep: number of checkpoints that stay.
        log_every: steps between lines of the log; a line holds the means over them.
    """

    name: str
    checkpoints: Path
    log: Path
    tensorboard: Path
    checkpoint_every: int
    keep: int
    log_every: int


class Looks(NamedTuple):
    """What is looked at beside the losses, and how often.

    Attributes:
        every: steps between looks; 0 for none but the figures after the last step.
        picture_fn: from the current variables to pictures by name, uint8 (h,w,3). Called on every process.
        validate_fn: from the current variables to figures by name; called with `picture_fn`, and after the last step.
    """

    every: int = 0
    picture_fn: Callable[[dict], dict] | None = None
    validate_fn: Callable[[dict], dict[str, float]] | None = None

    def take(self, step, state, tracker, last):
        due = self.every > 0 and step % self.every == 0
        if self.validate_fn is not None and (due or last):
            tracker.drain()
            tracker.log.write(step, self.validate_fn(variables_of(state)))
        if self.picture_fn is not None and due:
            tracker.log.write_pictures(step, self.picture_fn(variables_of(state)))


NO_LOOKS = Looks()


def fit(
    recipe: Recipe,
    variables: dict,
    batches: Iterator[dict],
    records: Records,
    *,
    mesh: jax.sharding.Mesh,
    shard_params: bool = False,
    looks: Looks = NO_LOOKS,
) -> dict:
    """Trains, going on from the newest checkpoint when there is one; a finished training is only read.

    Args:
        recipe: what to compute.
        variables: {"params", "batch_stats"} to start from; emptied, so that their memory is free while this trains.
        batches: iterator of dicts of numpy arrays (this process's rows of the batch) and, under "id", the images'
            ids. Its `get_state()` is a JSON object, the same on every process, and goes into the checkpoint;
            `set_state` raises KeyError, TypeError or ValueError for what is none.
        records: where and how often to write.
        mesh: the devices; see `sharding.make_mesh`.
        shard_params: see `make_step`.
        looks: at the variables, while they train.

    Returns:
        The trained variables, on the devices of the mesh.

    Raises:
        ValueError: for a batch that does not divide, groups that do not cover, a checkpoint of another model.
        NonFiniteLossError: with the step, the learning rate, the ids and the last good checkpoint.
        Preempted: after a signal (see `stop.listening`), when the step that was running is done and saved.
    """
    hosts.wait_for_all(f"beginning of {records.name}")
    state = create_state({kind: variables.pop(kind) for kind in list(variables)}, recipe)
    shapes = jax.eval_shape(lambda: state)
    step_fns = [
        make_step(recipe, shapes, mesh, form=form, shard_params=shard_params)
        for form in range(len(recipe.losses.forms))
    ]
    with Checkpoints(records.checkpoints, keep=records.keep) as checkpoints:
        placed = state_shardings(state, mesh, shard_params=shard_params)
        start, state, sums = _begin(checkpoints, [state], placed, recipe, batches)
        if start >= recipe.steps:
            return variables_of(state)
        size = recipe.batch_size
        with (
            MetricsLog(records.log, records.tensorboard, start_step=start) as log,
            Progress(records.name, recipe.steps * size, start=start * size) as progress,
        ):
            tracker = _Tracker(recipe, records, log, progress, checkpoints, sums)
            state = _run(state, step_fns, batches, range(start + 1, recipe.steps + 1), tracker, mesh, looks)
        return variables_of(state)


def _begin(checkpoints, fresh, shardings, recipe, batches):
    """The number of finished steps, the state after them on the devices, and the sums of the metrics since a line.

    Args:
        checkpoints: of the training.
        fresh: a list with the state before the first step, taken from it so that no frame keeps it alive.
        shardings: of the state.
        recipe: of the training.
        batches: set to where the checkpoint left them, unless the training is finished.
    """
    state = fresh.pop()

    def shapes(tree, placed):
        return jax.tree.map(lambda x, where: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), tree, placed)

    wanted = shapes(variables_of(state), variables_of(shardings))
    momentum = shapes(state.optimizer.momentum, shardings.optimizer.momentum)

    def fits(step, loop):
        return step >= recipe.steps or _takes_up(loop, batches)

    restored = checkpoints.restore(wanted, optim.merge(momentum), fits)
    if restored is None:
        return 0, sharding.place(state, shardings), {}
    params, momentum = optim.flatten(restored.variables["params"]), optim.flatten(restored.momentum)
    count = sharding.place(state.optimizer.step + restored.step, shardings.optimizer.step)
    state = TrainState(
        trainable={path: params[path] for path in state.trainable},
        frozen={path: params[path] for path in state.frozen},
        batch_stats=restored.variables["batch_stats"],
        optimizer=optim.SgdState(count, momentum),
    )
    return restored.step, state, restored.loop.get("sums", {})


def _takes_up(loop: dict, batches: Any) -> bool:
    """Sets the input to where a checkpoint left it; False when it does not say so, or not of the running means."""
    sums = loop.get("sums")
    if not isinstance(sums, dict) or not all(isinstance(value, numbers.Real) for value in sums.values()):
        return False
    try:
        batches.set_state(loop["input"])
    except (KeyError, TypeError, ValueError):
        return False
    return True


def _run(state, step_fns, batches, steps, tracker, mesh, looks):
    records, checkpoints, recipe = tracker.records, tracker.checkpoints, tracker.recipe
    for step in steps:
        batch = dict(next(batches))
        ids = [str(i) for i in batch.pop("id", ())]
        step_fn = step_fns[recipe.losses.at(step - 1)]
        state, metrics = step_fn(state, sharding.global_batch(batch, recipe.batch_size, mesh))
        tracker.add(step, metrics, ids)
        # all processes stop after the same step: the one that the first of them names
        stop = hosts.word_of_first(f"steps of {records.name}", "stop" if hosts.told_to_stop() else "") == "stop"
        looks.take(step, state, tracker, last=step == steps[-1])  # before the checkpoint, past which no line is cut
        if stop or step % records.checkpoint_every == 0 or step == steps[-1]:
            tracker.drain()
            loop = {"input": batches.get_state(), "sums": tracker.sums}
            checkpoints.save(step, variables_of(state), optim.merge(state.optimizer.momentum), loop)
        if stop:
            raise Preempted(
                f"{records.name} was stopped after step {step} of {steps[-1]}, saved in {checkpoints.newest()}; "
                "run the same command again to go on"
            )
    return state


class _Tracker:
    """Fetches the metrics of steps that the device has finished, checks them, and logs their means."""

    def __init__(self, recipe, records, log, progress, checkpoints, sums):
        self.recipe, self.records = recipe, records
        self.log, self.checkpoints, self.sums = log, checkpoints, dict(sums)
        self._progress, self._pending = progress, deque()
        self._images, self._since = 0, None

    def add(self, step, metrics, ids):
        # the first step has been compiled by now, so its time does not count
        self._since = self._since or time.monotonic()
        self._pending.append((step, metrics, ids))
        self.drain(behind=_STEPS_IN_FLIGHT)

    def drain(self, behind=0):
        """Takes all metrics but those of the last `behind` steps, which the device may still be working on."""
        while len(self._pending) > behind:
            step, metrics, ids = self._pending.popleft()
            self._take(step, {name: float(value) for name, value in jax.device_get(metrics).items()}, ids)

    def _take(self, step, metrics, ids):
        lr, finite = metrics.pop("lr"), metrics.pop("finite")
        if not finite or not math.isfinite(metrics["loss"]):
            raise NonFiniteLossError(self._non_finite(step, metrics["loss"], lr, ids))
        self.sums = {name: self.sums.get(name, 0.0) + value for name, value in {**metrics, "steps": 1}.items()}
        self._images += self.recipe.batch_size
        self._progress.advance(self.recipe.batch_size, f"step {step}/{self.recipe.steps}, loss {metrics['loss']:.4g}")
        if step % self.records.log_every == 0 or step == self.recipe.steps:
            self._write(step, lr)

    def _write(self, step, lr):
        now = time.monotonic()
        steps = self.sums.pop("steps")
        means = {name: total / steps for name, total in self.sums.items()}
        rate = self._images / max(now - self._since, 1e-9)
        self.log.write(step, {**means, "lr": lr, "images_per_s": round(rate, 2)})
        self.sums, self._images, self._since = {}, 0, now

    def _non_finite(self, step, loss, lr, ids):
        what = "a gradient is not finite" if math.isfinite(loss) else f"the loss is {loss}"
        good = self.checkpoints.newest()
        saved = f"the last good checkpoint is {good}" if good else "there is no checkpoint yet"
        named = ", ".join(ids) or "unknown"
        return (
            f"{self.records.name}: {what} at step {step} (learning rate {lr:.3g}, images {named}); {saved}; "
            "look at those images, or lower the learning rate"
        )
