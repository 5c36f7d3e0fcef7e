"""``ssenet plan``: what a training takes of accelerators that are not here, its real step compiled for a topology."""

import argparse
import math
import re
import sys
from typing import NamedTuple

import jax
from ml_collections import ConfigDict

from ssenet_jax import datasets, pretrained
from ssenet_jax.commands.chips import GIB, Devices, devices_of
from ssenet_jax.commands.configs import add_config, load_config
from ssenet_jax.training import recipes
from ssenet_jax.training.step import create_state, make_step, state_shardings

USED_OF_PEAK = 0.4  # of the chip's FLOP/s, for a convolutional network whose input keeps up
VOC_IMAGES = {"train": 1464, "val": 1449, "train_aug": 10582, "test": 1456}  # for a plan without the photos


HELP = """\
Compiles a training step for TPUs that are not here (pip install ssenet_jax[plan]) and prints what it takes of each
device. With --topology=cuda:h100x8 the step is only lowered: the compiler's figures stay open.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument("--topology", required=True, help="a TPU topology such as v5e:4x4, or cuda:h100x8")
    parser.add_argument("--training", default="classifier", help="baseline, classifier, affinity or segmenter")


def run(options: argparse.Namespace, overrides: list[str]) -> int:
    config = load_config(options.config, overrides)
    jax.config.update("jax_platforms", "cpu")  # or libtpu, where it is installed, looks for a TPU first
    print(table(plan(config, options.topology, options.training)))
    return 0


class Cost(NamedTuple):
    """What a step takes of each device.

    Attributes:
        fits: whether the compiler took it; when not, only `peak` is known.
        peak: bytes of memory; None where nothing was compiled.
        flops: of the step.
        collectives: bytes that the step sends through all-reduce and the like.
    """

    fits: bool
    peak: int | None
    flops: float
    collectives: int


class Plan(NamedTuple):
    """What a training takes.

    Attributes:
        devices, training, batch_size, steps: of what.
        images: of the training split.
        parameters: of the network.
        state: bytes on each device of parameters, statistics and momentum.
        cost: of a step.
        largest: the largest batch that fits, 0 for none; None where nothing was compiled.
    """

    devices: Devices
    training: str
    batch_size: int
    steps: int
    images: int
    parameters: int
    state: int
    cost: Cost
    largest: int | None

    @property
    def seconds(self) -> float:
        """Of a step at USED_OF_PEAK."""
        return self.cost.flops / (USED_OF_PEAK * self.devices.each.flops)


class Step:
    """The training step of a config on some devices, at any batch size."""

    def __init__(self, config: ConfigDict, training: str, devices: Devices):
        num_classes, self.images = _size_of_data(config.data)
        model = recipes.network(config, training, num_classes)
        self.devices, self.training = devices, training
        self.recipe = recipes.build(config, training, model, self.images)
        self.variables = pretrained.shapes_of(model)
        self._state = jax.eval_shape(lambda variables: create_state(variables, self.recipe), self.variables)
        self._shard_params = config.mesh.shard_params
        self._batch = recipes.batch_shapes(config, training, num_classes, self.recipe.batch_size)

    def state_bytes(self) -> int:
        """Bytes of the state on one device."""
        placed = state_shardings(self._state, self.devices.mesh, shard_params=self._shard_params)
        sizes = jax.tree.map(lambda leaf, where: math.prod(where.shard_shape(leaf.shape)), self._state, placed)
        return 4 * sum(jax.tree.leaves(sizes))

    def compile(self, batch_size: int) -> Cost:
        """Compiles the step for TPUs that are not here."""
        what = f"{self.training}, batch {batch_size}, for {self.devices.topology}"
        print(f"compiling {what}: takes minutes", file=sys.stderr, flush=True)
        cost = self._compile(batch_size)
        print(f"{what}: {cost.peak / GIB:.2f} GiB{'' if cost.fits else ', too much'}", file=sys.stderr, flush=True)
        return cost

    def _compile(self, batch_size: int) -> Cost:
        traced = self._step(batch_size).trace(*self._shapes(batch_size))
        try:
            program = traced.lower(lowering_platforms=("tpu",)).compile()
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            return Cost(False, bytes_asked_for(str(error)), math.nan, 0)
        turns = self.recipe.accumulate  # the body of a loop is counted once, however often it is run
        flops, collectives = program.cost_analysis()["flops"] * turns, collective_bytes(program.as_text()) * turns
        return Cost(True, program.memory_analysis().peak_memory_in_bytes, flops, collectives)

    def lower(self) -> Cost:
        """Lowers the step for CUDA; counts FLOPs before the compiler's changes, and the gradients as what is sent."""
        parts = self.devices.count * self.recipe.accumulate
        if self.recipe.batch_size % parts:
            raise ValueError(f"batch_size {self.recipe.batch_size} is no multiple of {parts}: devices x micro-batches")
        step, shapes = self._step(self.recipe.batch_size), self._shapes(self.recipe.batch_size)
        jax.export.export(step, platforms=("cuda",))(*shapes)
        count = self.devices.count
        flops = step.lower(*shapes).cost_analysis()["flops"] * self.recipe.accumulate / count
        gradients = sum(4 * leaf.size for leaf in self._state.trainable.values())
        return Cost(True, None, flops, gradients if count > 1 else 0)

    def _step(self, batch_size: int):
        recipe = self.recipe._replace(batch_size=batch_size)
        return make_step(recipe, self._state, self.devices.mesh, shard_params=self._shard_params)

    def _shapes(self, batch_size: int) -> tuple:
        batch = {name: jax.ShapeDtypeStruct((batch_size, *x.shape[1:]), x.dtype) for name, x in self._batch.items()}
        return self._state, batch


def plan(config: ConfigDict, topology: str, training: str = "classifier") -> Plan:
    """Plans one training of a config.

    Args:
        config: see ``config.paper_config``.
        topology: see ``chips.devices_of``.
        training: one of ``recipes.TRAININGS``.

    Raises:
        ValueError: an unknown topology, chip or training, a batch that does not divide, or libtpu is not installed.
    """
    if training not in recipes.TRAININGS:
        raise ValueError(f"there is no training {training!r}; the trainings are {', '.join(recipes.TRAININGS)}")
    devices = devices_of(topology, config.mesh.data)
    step = Step(config, training, devices)
    cost = step.compile(step.recipe.batch_size) if devices.compiles else step.lower()
    return Plan(
        devices=devices,
        training=training,
        batch_size=step.recipe.batch_size,
        steps=step.recipe.steps,
        images=step.images,
        parameters=sum(leaf.size for leaf in jax.tree.leaves(step.variables["params"])),
        state=step.state_bytes(),
        cost=cost,
        largest=largest_batch(step, cost) if devices.compiles else None,
    )


def largest_batch(step: Step, known: Cost) -> int:
    """The largest batch whose step the compiler takes, within an eighth; 0 when there is none.

    Batches are whole rows a device and micro-batch. Each try is where the line through the last two sizes meets the
    memory. Close to it the compiler computes values anew instead of keeping them, and the line flattens and misleads:
    a try is then no more than halfway from what fits to what was refused.

    Args:
        step: to compile.
        known: its cost at the recipe's batch size.
    """
    unit = step.devices.count * step.recipe.accumulate
    rows, peak = step.recipe.batch_size // unit, known.peak
    last_rows, last_peak = 0, step.state_bytes()
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


def collective_bytes(program: str) -> int:
    """The bytes of the results of all collectives in the text of a compiled program, one device's share."""
    kinds = "all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute"
    results = re.findall(rf"= (\S.*?) (?:{kinds})(?:-done)?\(", program)
    shapes = (shape for result in results for shape in re.findall(r"\b([a-z]+)(\d+)\[([\d,]*)\]", result))
    return sum(int(bits) // 8 * math.prod(int(size) for size in sizes.split(",") if size) for _, bits, sizes in shapes)


def bytes_asked_for(message: str) -> int:
    """The bytes that a program needs which the compiler refused.

    It says "Used 20.5G of 15.75G hbm", or "HLO temporaries (17.90G) exceeds available HBM (15.75G)".
    """
    used = re.search(r"(?:Used |\()([\d.]+)([KMG])(?: of|\) exceeds)", message)
    if used is None:
        raise ValueError(f"the compiler lacked memory and does not say how much: {message.splitlines()[0]}")
    return int(float(used[1]) * 1024 ** (1 + "KMG".index(used[2])))


def _size_of_data(data: ConfigDict) -> tuple[int, int]:
    """Foreground classes and training images, without reading an image."""
    if data.name == "voc12" and not data.root and data.train_split in VOC_IMAGES:
        return 20, VOC_IMAGES[data.train_split]
    source = datasets.open_listed(data, data.train_split)
    return len(source.class_names), len(source)


def table(found: Plan) -> str:
    """A plan as lines of a name and a figure."""
    devices, cost = found.devices, found.cost
    memory = f"of {devices.each.memory / GIB:.0f} GiB"
    if cost.peak is None:
        peak = f"known after compiling there; it has {memory[3:]}"
    else:
        peak = f"{cost.peak / GIB:.2f} {memory}{'' if cost.fits else ': does not fit'}"
    largest = {None: "known after compiling there", 0: "none; see remat, mesh.shard_params and the training's crop"}
    rows = {
        "training": f"{found.training}, batch {found.batch_size}, {devices.count} devices ({devices.topology})",
        "parameters": f"{found.parameters / 1e6:.1f} million",
        "state a device": f"{found.state / GIB:.2f} GiB",
        "peak memory a device": peak,
        "FLOPs a step, a device": f"{cost.flops / 1e12:.2f} T" if cost.fits else "known when it fits",
        "collectives a step, a device": f"{cost.collectives / 2**20:.0f} MiB",
        f"a step at {USED_OF_PEAK:.0%} of the peak": f"{found.seconds * 1e3:.0f} ms",
        "steps": f"{found.steps} ({found.images} training images)",
        "the run": f"{found.seconds * found.steps / 3600:.2f} hours",
        "largest batch that fits": largest.get(found.largest, f"{found.largest}"),
    }
    if not cost.fits:
        rows = {name: value for name, value in rows.items() if "nan" not in value and value != "0 MiB"}
    width = max(map(len, rows)) + 2
    return "\n".join(f"{name:<{width}}{value}" for name, value in rows.items())
