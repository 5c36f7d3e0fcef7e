"""Runs an experiment: every variant and seed through its stages, shared results once, several shards side by side."""

import contextlib
import importlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from absl import flags
from ml_collections import ConfigDict

from ssenet_jax import artifacts
from ssenet_jax.experiments import page, predictions, progress
from ssenet_jax.experiments.experiment import Experiment
from ssenet_jax.experiments.results import Run
from ssenet_jax.experiments.store import Store, trainings
from ssenet_jax.stages.context import Context
from ssenet_jax.stages.table import asked_for
from ssenet_jax.training import hosts

NAMES = ("table1", "table2", "table3", "figure2", "figure4", "figure5", "figure6", "operators", "bound", "seam")
LOOK_AGAIN = 10.0  # seconds before a result that another shard is making is looked at again


def load(name: str) -> Experiment:
    """The experiment of a name.

    Raises:
        ValueError: there is none.
    """
    if name not in NAMES:
        raise ValueError(f"there is no experiment {name!r}; the experiments are {', '.join(NAMES)}")
    return importlib.import_module(f"ssenet_jax.experiments.{name}").EXPERIMENT


def runs_of(experiment: Experiment, base: ConfigDict, folder: Path, seeds: int) -> list[Run]:
    """The runs of an experiment, all variants of a seed before the next seed's."""
    found = []
    for seed in range(seeds):
        for variant in experiment.variants(base):
            config = variant.config(base, experiment.stages, seed)
            workdir = folder / variant.folder / f"seed{seed}"
            found.append(Run(variant, seed, config, workdir, asked_for(config)))
    return found


class Shard(NamedTuple):
    """Which part of the runs this process takes: every stride-th, from start on."""

    start: int
    stride: int


def run(name: str, base: ConfigDict, folder: Path, seeds: int, shard: Shard) -> Path:
    """Runs a shard of an experiment and writes its page after every stage that adds to it.

    Args:
        name: of NAMES.
        base: the config that the variants change.
        folder: of all experiments on this config; what they share lies below it too.
        seeds: 0 to seeds - 1.
        shard: the part that this process takes.

    Returns:
        The page.
    """
    flags.FLAGS.mark_as_parsed()  # grain reads absl flags
    experiment, store = load(name), Store(folder / "stages")
    every = runs_of(experiment, base, folder / name, seeds)
    mine = every[shard.start :: shard.stride]
    work = _Work(experiment, store, every, mine, folder / name)
    work.say_what_is_needed()
    waiting = list(mine)
    while waiting:
        busy = [one for one in waiting if not work.advance(one)]
        if len(busy) == len(waiting):
            time.sleep(LOOK_AGAIN)
        waiting = busy
    return work.write_page()


class _Work:
    def __init__(self, experiment: Experiment, store: Store, every: Sequence[Run], mine: Sequence[Run], folder: Path):
        self.experiment, self.store, self.every, self.mine, self.folder = experiment, store, every, mine, folder
        self._say = Context(every[0].config, folder).say
        self._shown = {column.stage for column in experiment.columns}
        self._told = False

    def advance(self, one: Run) -> bool:
        """Takes a run to its end: whether it came there; not when another process is at something that it reads."""
        hosts.leave_if_told(f"the experiment {self.folder.name}", self.folder.parent)
        artifacts.write_text(one.workdir / "config.json", one.config.to_json(indent=1) + "\n")
        for stage in one.stages:
            made = self.store.is_complete(stage, one.config)
            if not made:
                self._say(f"{one.variant.name}, seed {one.seed}: {stage}")
                try:
                    with self._telling(stage, one):
                        self.store.make(stage, one.config)
                except BlockingIOError:
                    self._say(f"{one.variant.name}, seed {one.seed}: another process is at {stage}; later")
                    return False
            self.store.link(stage, one.config, one.workdir)
            if not made and stage in self._shown:
                self.write_page()
        try:
            predictions.predict(self.store, one.config, self.experiment.predicts)
        except BlockingIOError:
            return False
        return True

    def say_what_is_needed(self) -> None:
        """How many trainings there are to do, and what they will take."""
        needed = self._needed()
        stages = [one.stage for one in needed]
        counts = ", ".join(f"{stages.count(stage)} x {stage}" for stage in dict.fromkeys(stages))
        self._say(f"{len(self.mine)} of {len(self.every)} runs; trainings to do: {counts or 'none'}")
        split = self.experiment.predicts
        if split and predictions.source_of(self.every[0].config, split) is None:
            self._say(f"the data have no split {split} to predict beyond the config's")
        if needed:
            self._say(progress.estimate(needed, self._speeds()))

    def _needed(self) -> list[progress.Training]:
        found = {}
        for one in self.mine:
            for stage in trainings(one.stages):
                place = self.store.place(stage, one.config)
                if place not in found and not self.store.is_complete(stage, one.config):
                    found[place] = progress.training(stage, one.config, place)
        return list(found.values())

    def _speeds(self) -> dict[str, float]:
        """Images a second of each stage that trains, over all that the store holds."""
        found: dict[str, list[float]] = {}
        for log in sorted(self.store.folder.glob("*/logs/*.jsonl")):
            if value := progress.speed(log):
                found.setdefault(log.stem, []).append(value)
        return {stage: sum(values) / len(values) for stage, values in found.items()}

    @contextlib.contextmanager
    def _telling(self, stage: str, one: Run) -> Iterator[None]:
        """The first training of this process says what all of them will take."""
        if self._told or stage not in trainings(one.stages):
            yield
            return
        self._told, needed = True, self._needed()
        log = progress.training(stage, one.config, self.store.place(stage, one.config)).log
        with progress.told_at_first_steps(log, lambda: self._say(progress.estimate(needed, self._speeds()))):
            yield

    def write_page(self) -> Path:
        """Writes the page from what all runs have so far, those of other shards too."""
        while True:
            try:
                with artifacts.locked(self.folder):
                    for left in self.folder.glob("*.ssenet-part"):  # by a process that was killed at this
                        left.unlink()
                    return page.write(self.experiment, self.every, self.folder)
            except BlockingIOError:  # another shard is writing it, perhaps without what this one has just made
                time.sleep(0.2)
