"""Every stage of a config on accelerators that are not here: what it takes of them, and how long all of it is."""

import dataclasses
import functools
import math
from collections.abc import Callable

from ml_collections import ConfigDict

from ssenet_jax.commands import programs
from ssenet_jax.commands.chips import GIB, Devices
from ssenet_jax.commands.compiling import Cost, cost_of, remembered, sources
from ssenet_jax.commands.steps import Step, has_masks, size_of_data
from ssenet_jax.stages import batching, labels
from ssenet_jax.stages.context import Context
from ssenet_jax.stages.table import TABLE, asked_for

# Seconds of one core for a photo, where a stage works on the host: AMD EPYC, 375 x 500 pixels.
HOST_SECONDS: dict[Callable, float] = {labels.refine_seeds: 0.6, labels.label: 0.02}
CRF_SECONDS = 0.3  # of a label stage that has one


@dataclasses.dataclass(frozen=True)
class Row:
    """One program of one stage.

    Attributes:
        stage, program: for people.
        images: that the stage has to do with it.
        calls: images of a call, on all devices together.
        seconds: of a call; nan where it cannot be said.
        cost: of a call, on each device; None for work of the host, and where it cannot be said.
    """

    stage: str
    program: str
    images: int
    calls: float
    seconds: float
    cost: Cost | None = None

    @property
    def hours(self) -> float:
        return self.images / self.calls * self.seconds / 3600


def plan_all(config: ConfigDict, devices: Devices) -> list[Row]:
    """A row for every program of every stage that the config asks for, in the order of the data flow.

    Programs are compiled with the compiler's least effort; what it said is kept, and tracing them again is left out
    while config and code stand.
    """
    rows = []
    for name in asked_for(config):
        make = _training if TABLE[name].training else _applied
        rows += make(config, name, devices)
    return rows


def _training(config: ConfigDict, name: str, devices: Devices) -> list[Row]:
    row = TABLE[name]
    try:
        step = Step(config, row.training, devices)
    except ValueError as error:
        return [Row(row.title, f"{error}", 0, 1, math.nan)]
    size, steps = step.recipe.batch_size, step.recipe.steps
    cost = _known(config, name, step.devices, lambda: step.compile(size, quickly=True))
    used = step.devices.number
    what = f"step, batch {size}" + (f" on {used} devices" if used < devices.number else "")
    return [Row(row.title, what, steps * size, size, cost.seconds(devices.each, config.dtype), cost)]


def _applied(config: ConfigDict, name: str, devices: Devices) -> list[Row]:
    """Images are independent: each device computes its own rows of a batch, so the program of one tells of all."""
    row, one, (num_classes, images) = TABLE[name], _one_of(devices), _images_of(config, name)
    batch = batching.batch_of(config.inference.batch_size, on_cpu=False)
    sizes = programs.Sizes(config, -(-batch * devices.hosts // devices.number), num_classes)
    found = programs.of_stage(config, row.run, sizes)
    if not found:
        has_crf = row.run is labels.label and config.labels.crf
        seconds = CRF_SECONDS if has_crf else HOST_SECONDS.get(row.run, math.nan)
        return [Row(row.title, "on the host, one core", images, 1, seconds)]
    rows = []
    for program in found:
        cost = _known(config, f"{name}: {program.name}", one, functools.partial(cost_of, program, one, quickly=True))
        seconds = cost.seconds(devices.each, config.dtype)
        rows.append(Row(row.title, program.name, images, program.rows * devices.number, seconds, cost))
    return rows


def _images_of(config: ConfigDict, name: str) -> tuple[int, int]:
    """Foreground classes, and the images that a stage works on."""
    data, images = config.data, TABLE[name].images
    num_classes, of_train = size_of_data(data, data.train_split)
    of_eval = size_of_data(data, data.eval_split)[1] if data.eval_split else 0
    if images is Context.training_and_scored_images:
        return num_classes, of_train + (of_eval if has_masks(data, data.eval_split) else 0)
    if images is Context.measured_images:
        return num_classes, min(config.measure.images, of_eval or of_train)
    if images is Context.images_to_segment:
        return num_classes, of_eval or of_train
    return num_classes, of_train


def _one_of(devices: Devices) -> Devices:
    mesh = type(devices.mesh)(devices.mesh.devices[:1], devices.mesh.axis_names, axis_types=devices.mesh.axis_types)
    return devices._replace(number=1, mesh=mesh)


def _known(config: ConfigDict, what: str, devices: Devices, make: Callable[[], Cost]) -> Cost:
    kind = devices.mesh.devices.flat[0].device_kind
    return remembered(make, sources(), config.to_json(), what, devices.number, kind, devices.each)


def table(rows: list[Row]) -> str:
    """The rows as a table in Markdown, and the sum of the hours."""
    head = ("stage", "program", "peak, GiB", "TFLOP", "GB moved", "ms", "images an hour", "images", "hours")
    total = sum(row.hours for row in rows if math.isfinite(row.hours))
    lines = [head, ("---",) * len(head), *map(_cells, rows), ("all", *[""] * 7, f"{total:.2f}")]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cells(row: Row) -> tuple[str, ...]:
    if row.cost is None:
        figures = ("", "", "")
    else:
        peak = "not compiled" if math.isnan(row.cost.peak) else f"{row.cost.peak / GIB:.2f}"
        figures = (peak if row.cost.fits else f"{peak}, too much", _number(row.cost.flops / 1e12),
                   _number(row.cost.traffic / 1e9))  # fmt: skip
    if not math.isfinite(row.seconds):
        return (row.stage, row.program, *figures, *[""] * 4)
    rate = f"{3600 * row.calls / row.seconds:,.0f}"
    return (row.stage, row.program, *figures, _number(1e3 * row.seconds), rate, f"{row.images:,}", _number(row.hours))


def _number(value: float) -> str:
    return f"{value:.3g}" if math.isfinite(value) else ""
