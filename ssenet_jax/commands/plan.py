"""``ssenet plan``: what a config takes of accelerators that are not here, its real programs compiled for a topology."""

import argparse
import math
from typing import NamedTuple

import jax
from ml_collections import ConfigDict

from ssenet_jax.commands import paper
from ssenet_jax.commands.chips import GIB, Devices, devices_of
from ssenet_jax.commands.compiling import USED_OF_PEAK, Cost
from ssenet_jax.commands.configs import add_config, load_config
from ssenet_jax.commands.steps import Step, largest_batch
from ssenet_jax.training import recipes

HELP = """\
Compiles a training step for TPUs that are not here (pip install ssenet_jax[plan]) and prints what it takes of each
device; with --all every program of every stage, and the hours of the whole. What the compiler said is kept below
~/.cache/ssenet_jax/plans. With --topology=cuda:h100x8 programs are only lowered: the compiler's figures stay open.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument("--topology", required=True, help="a TPU topology such as v5e:4x4, or cuda:h100x8")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--training", default="classifier", help="baseline, classifier, affinity or segmenter")
    what.add_argument("--all", action="store_true", help="a table of every stage")
    parser.add_argument(
        "--largest-batch", action="store_true", help="search for the largest batch that fits: a compilation a try"
    )


def run(options: argparse.Namespace, overrides: list[str]) -> int:
    config = load_config(options.config, overrides)
    jax.config.update("jax_platforms", "cpu")  # or libtpu, where it is installed, looks for a TPU first
    if options.all:
        print(paper.table(paper.plan_all(config, devices_of(options.topology, config.mesh.data))))
    else:
        print(table(plan(config, options.topology, options.training, search=options.largest_batch)))
    return 0


class Plan(NamedTuple):
    """What a training takes.

    Attributes:
        devices, training, dtype, batch_size, steps: of what.
        images: of the training split.
        parameters: of the network.
        state: bytes on each device of parameters, statistics and momentum.
        cost: of a step.
        largest: the largest batch that fits, 0 for none; None where it was not searched.
    """

    devices: Devices
    training: str
    dtype: str
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
        return self.cost.seconds(self.devices.each, self.dtype)


def plan(config: ConfigDict, topology: str, training: str = "classifier", *, search: bool = False) -> Plan:
    """Plans one training of a config.

    Args:
        config: see ``config.paper_config``.
        topology: see ``chips.devices_of``.
        training: one of ``recipes.TRAININGS``.
        search: for the largest batch that fits.

    Raises:
        ValueError: an unknown topology, chip or training, a batch that does not divide, or libtpu is not installed.
    """
    if training not in recipes.TRAININGS:
        raise ValueError(f"there is no training {training!r}; the trainings are {', '.join(recipes.TRAININGS)}")
    devices = devices_of(topology, config.mesh.data)
    if search and not devices.compiles:
        raise ValueError(f"--largest-batch takes a compiler, and {topology} is lowered only; plan for a TPU topology")
    step = Step(config, training, devices)
    cost = step.compile(step.recipe.batch_size)
    return Plan(
        devices=step.devices,
        training=training,
        dtype=config.dtype,
        batch_size=step.recipe.batch_size,
        steps=step.recipe.steps,
        images=step.images,
        parameters=sum(leaf.size for leaf in jax.tree.leaves(step.variables["params"])),
        state=step.state_bytes(),
        cost=cost,
        largest=largest_batch(step, cost) if search else None,
    )


def table(found: Plan) -> str:
    """A plan as lines of a name and a figure."""
    devices, cost = found.devices, found.cost
    memory = f"of {devices.each.memory / GIB:.0f} GiB"
    if math.isnan(cost.peak):
        peak = f"known after compiling there; it has {memory[3:]}"
    else:
        peak = f"{cost.peak / GIB:.2f} {memory}{'' if cost.fits else ': does not fit'}"
    largest = {None: "", 0: "none; see remat, mesh.shard_params and the training's crop"}
    rows = {
        "training": f"{found.training}, batch {found.batch_size}, {devices.number} devices ({devices.topology})",
        "parameters": f"{found.parameters / 1e6:.1f} million",
        "state a device": f"{found.state / GIB:.2f} GiB",
        "peak memory a device": peak,
        "FLOPs a step, a device": f"{cost.flops / 1e12:.2f} T" if cost.fits else "known when it fits",
        "collectives a step, a device": f"{cost.collectives / 2**20:.0f} MiB",
        "bytes moved a step, a device": f"{cost.traffic / 1e9:.2f} GB",
        f"a step at {USED_OF_PEAK:.0%} of the peak": f"{found.seconds * 1e3:.0f} ms",
        "steps": f"{found.steps} ({found.images} training images)",
        "the run": f"{found.seconds * found.steps / 3600:.2f} hours",
        "largest batch that fits": largest.get(found.largest, f"{found.largest}"),
    }
    unknown = ("", "0 MiB") if not cost.fits else ("",)
    rows = {name: value for name, value in rows.items() if "nan" not in value and value not in unknown}
    width = max(map(len, rows)) + 2
    return "\n".join(f"{name:<{width}}{value}" for name, value in rows.items())
