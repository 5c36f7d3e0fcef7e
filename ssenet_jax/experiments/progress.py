"""How long the trainings of an experiment will take, from the speed of those that have begun."""

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ml_collections import ConfigDict

from ssenet_jax.stages.context import Context
from ssenet_jax.stages.table import TABLE
from ssenet_jax.training import recipes
from ssenet_jax.training.logs import clock, read_lines

LOOK_EVERY = 2.0  # seconds between looks at the log of a training that has not logged yet


class Training(NamedTuple):
    """A training that is needed: its stage, the log it has or will have, and how many images it sees."""

    stage: str
    log: Path
    images: int


def training(stage: str, config: ConfigDict, workdir: Path) -> Training:
    """The training of a stage in a workdir."""
    context = Context(config, workdir)
    name = TABLE[stage].training
    steps = recipes.steps_of(config, name, len(context.train_source))
    return Training(stage, context.log(stage), steps * recipes.section(config, name).batch_size)


def speed(log: Path) -> float | None:
    """Images a second so far, or None before the first line of the log."""
    lines = read_lines(log) if log.exists() else []
    rates = [line["images_per_s"] for line in lines if line.get("images_per_s")]
    return len(rates) / sum(1 / rate for rate in rates) if rates else None


def estimate(needed: Sequence[Training], known: Mapping[str, float]) -> str:
    """What trainings will take, from images a second by stage; of one not seen yet the speed is the lowest known."""
    if not known:
        return "how long they take is said when the first one has made its first steps"
    seconds = sum(one.images / known.get(one.stage, min(known.values())) for one in needed)
    speeds = ", ".join(f"{stage} {value:.3g} images/s" for stage, value in sorted(known.items()))
    return f"about {clock(seconds)} of training ({speeds}); inference and scores come on top"


@contextlib.contextmanager
def told_at_first_steps(log: Path, tell: Callable[[], None]) -> Iterator[None]:
    """While the block runs, calls ``tell()`` once, when the log of a training has its first line."""
    ended = threading.Event()

    def watch():
        while not ended.wait(LOOK_EVERY):
            if speed(log):
                return tell()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
