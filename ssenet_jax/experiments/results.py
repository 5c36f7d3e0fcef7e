"""The figures of an experiment, from the metrics in its runs' workdirs."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from ssenet_jax import artifacts
from ssenet_jax.experiments.experiment import Column, Variant
from ssenet_jax.stages import final
from ssenet_jax.stages.context import Context


class Run(NamedTuple):
    """One variant with one seed.

    Attributes:
        variant, seed: which.
        config: of the run.
        workdir: where its results are linked.
        stages: all that it goes through, in order.
    """

    variant: Variant
    seed: int
    config: ConfigDict
    workdir: Path
    stages: tuple[str, ...]

    def record(self, stage: str, split: str) -> dict | None:
        """The metrics of a stage, None before there are any of this config. `split` is a key of its section data."""
        path = Context(self.config, self.workdir).metrics(stage, self.config.data[split])
        record = artifacts.read_json(path) if path.exists() else None
        return record if record and final.is_of(record, stage, self.config) else None


class Figure(NamedTuple):
    """A column's values for one variant, of the runs that have it, in the order of their seeds; never nan."""

    column: Column
    runs: list[Run]
    values: list[float]
    hashes: list[str]  # of the configs they were made under

    @property
    def mean(self) -> float:
        return sum(self.values) / len(self.values) if self.values else math.nan


def figure(column: Column, runs: Sequence[Run]) -> Figure:
    """A column for the runs of one variant."""
    found = Figure(column, [], [], [])
    for run in runs:
        record = run.record(column.stage, column.split)
        if record is not None and (value := look_up(record, column.key)) is not None:
            found.runs.append(run)
            found.values.append(float(value))
            found.hashes.append(record["config_hash"])
    return found


def look_up(record: Mapping, key: str) -> Any:
    """A value of a metrics file by its key with slashes; None where there is none."""
    value: Any = record
    for part in key.split("/"):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def by_variant(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """The runs of each variant by its name, in the order of the variants."""
    names = dict.fromkeys(run.variant.name for run in runs)
    return {name: [run for run in runs if run.variant.name == name] for name in names}


def mean_curve(runs: Sequence[Run], stage: str, split: str, x: str, y: str) -> tuple[list[float], list[float]]:
    """The mean over runs of two lists of a metrics file, nan where a run has no value."""
    records = [record for run in runs if (record := run.record(stage, split)) is not None]
    if not records:
        return [], []
    rows = [[math.nan if value is None else value for value in look_up(record, y)] for record in records]
    return look_up(records[0], x), [sum(values) / len(values) for values in zip(*rows, strict=True)]
