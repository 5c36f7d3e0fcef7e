"""The training step of a config on devices that are not here, at any batch size."""

import math

import jax
from ml_collections import ConfigDict

from ssenet_jax import datasets, pretrained
from ssenet_jax.commands.chips import Devices
from ssenet_jax.commands.compiling import Cost, Program, cost_of
from ssenet_jax.training import recipes
from ssenet_jax.training.sharding import part_for_batch
from ssenet_jax.training.step import create_state, make_step, state_shardings

VOC_IMAGES = {"train": 1464, "val": 1449, "train_aug": 10582, "test": 1456}  # for a plan without the photos


class Step:
    """The training step of a config on some devices, at any batch size.

    Attributes:
        devices: as many of the given ones as the recipe's batch parts evenly over.
        recipe, training, images: what is trained, on how many images.
        variables: of the network, as shapes.
    """

    def __init__(self, config: ConfigDict, training: str, devices: Devices):
        num_classes, self.images = size_of_data(config.data, config.data.train_split)
        model = recipes.network(config, training, num_classes)
        self.training, self.variables = training, pretrained.shapes_of(model)
        self.recipe = recipes.build(config, training, model, self.images)
        self.devices = _part_of(devices, self.recipe.batch_size, self.recipe.accumulate)
        self._state = jax.eval_shape(lambda variables: create_state(variables, self.recipe), self.variables)
        self._shard_params = config.mesh.shard_params
        self._batch = recipes.batch_shapes(config, training, num_classes, self.recipe.batch_size)

    def state_bytes(self) -> int:
        """Bytes of the state on one device."""
        placed = state_shardings(self._state, self.devices.mesh, shard_params=self._shard_params)
        sizes = jax.tree.map(lambda leaf, where: math.prod(where.shard_shape(leaf.shape)), self._state, placed)
        return 4 * sum(jax.tree.leaves(sizes))

    def compile(self, batch_size: int, *, quickly: bool = False) -> Cost:
        """What the step takes at a batch size; see `cost_of`."""
        return cost_of(self.program(batch_size), self.devices, quickly=quickly)

    def program(self, batch_size: int) -> Program:
        """Of the last form of the loss: of a range of rates the largest, which takes the most memory."""
        recipe, last = self.recipe._replace(batch_size=batch_size), len(self.recipe.losses.forms) - 1
        batch = {name: jax.ShapeDtypeStruct((batch_size, *x.shape[1:]), x.dtype) for name, x in self._batch.items()}
        return Program(
            name=f"{self.training}, batch {batch_size}",
            function=make_step(recipe, self._state, self.devices.mesh, form=last, shard_params=self._shard_params),
            shapes=(self._state, batch),
            rows=batch_size,
            parts=self.devices.number,
            turns=recipe.accumulate,
            gradients=sum(4 * leaf.size for leaf in self._state.trainable.values()),
        )


def _part_of(devices: Devices, batch_size: int, accumulate: int) -> Devices:
    if devices.compiles:
        mesh = part_for_batch(batch_size, devices.mesh, accumulate)
        return devices._replace(mesh=mesh, number=mesh.size)
    counts = [count for count in range(1, devices.number + 1) if batch_size % (count * max(1, accumulate)) == 0]
    if not counts:
        raise ValueError(f"batch_size {batch_size} does not divide by {accumulate} micro-batches")
    return devices._replace(number=counts[-1])


def largest_batch(step: Step, known: Cost) -> int:
    """The largest batch whose step the compiler takes, within an eighth; 0 when there is none.

    Batches are whole rows a device and micro-batch. Each try is where the line through the last two sizes meets the
    memory. Close to it the compiler computes values anew instead of keeping them, and the line flattens and misleads:
    a try is then no more than halfway from what fits to what was refused.

    Args:
        step: to compile.
        known: its cost at the recipe's batch size.
    """
    unit = step.devices.number * step.recipe.accumulate
    rows, peak = step.recipe.batch_size // unit, known.peak
    last_rows, last_peak = 0, float(step.state_bytes())
    fits, too_many = (rows, math.inf) if known.fits else (0, rows)
    while True:
        bytes_per_row = max((peak - last_peak) / (rows - last_rows), 2**20)
        guess = rows + math.floor((step.devices.each.memory - peak) / bytes_per_row)
        most = (fits + too_many) / 2 if fits else too_many - 1
        guess = int(min(max(guess, fits, 1), most))
        if guess - fits <= fits // 16:
            return fits * unit
        last_rows, last_peak, rows = rows, peak, guess
        known = step.compile(rows * unit)
        peak = known.peak
        fits, too_many = (rows, too_many) if known.fits else (fits, rows)


def size_of_data(data: ConfigDict, split: str) -> tuple[int, int]:
    """Foreground classes and images of a split, without reading an image."""
    if _is_absent(data, split):
        return 20, VOC_IMAGES[split]
    source = datasets.open_listed(data, split)
    return len(source.class_names), len(source)


def has_masks(data: ConfigDict, split: str) -> bool:
    """Whether a split has masks to score against; "" has none."""
    return bool(split) and (split != "test" if _is_absent(data, split) else datasets.open_listed(data, split).has_masks)


def _is_absent(data: ConfigDict, split: str) -> bool:
    """A plan for VOC takes no photos."""
    return data.name == "voc12" and not data.root and split in VOC_IMAGES
