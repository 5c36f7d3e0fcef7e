"""``ssenet experiment``: the paper's tables and figures, and what it left open, as one command each."""

import argparse
from pathlib import Path

from ml_collections import ConfigDict

from ssenet_jax import cache
from ssenet_jax.commands.configs import load_config, refuse_words
from ssenet_jax.config import paper_config
from ssenet_jax.experiments import runner
from ssenet_jax.experiments.store import Store, trainings
from ssenet_jax.training import stop

HELP = """\
Trains and scores every variant of an experiment over several seeds; results that variants or experiments share are made
once. The page is written anew after every stage; the same command goes on where it was stopped.
  ssenet experiment --list
  ssenet experiment table1 --config=voc12_lite --config.data.root=/data/VOCdevkit --workdir=runs/experiments
  ssenet experiment table1 ... --shard=0/2     # and --shard=1/2 on another device or host, the same --workdir
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", metavar="NAME", help="which experiment")
    parser.add_argument("--list", action="store_true", help="say what each experiment is and what it costs")
    parser.add_argument("--config", metavar="FILE[:ARG]", help="the config that the variants change")
    parser.add_argument("--workdir", type=Path, help="of all experiments on this config; what they share is made once")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="seeds 0 to N - 1; default: 3")
    parser.add_argument("--shard", default="0/1", metavar="I/N", help="take every N-th run, from number I on")


def run(options: argparse.Namespace, overrides: list[str]) -> int:
    if options.seeds < 1:
        raise ValueError(f"--seeds is {options.seeds}; it is a number of seeds, at least 1")
    if options.list:
        refuse_words([] if options.config else overrides)
        base = load_config(options.config, overrides) if options.config else paper_config()
        print(listing(base, options.seeds))
        return 0
    if not (options.name and options.config and options.workdir):
        raise ValueError("an experiment takes NAME, --config and --workdir; --list says what there is")
    cache.keep_compiled()
    shard, base = shard_of(options.shard), load_config(options.config, overrides)
    try:
        print(f"report: {runner.run(options.name, base, options.workdir, options.seeds, shard)}")
    except stop.Preempted as stopped:
        print(stopped)
        return stop.exit_code()
    return 0


def shard_of(text: str) -> runner.Shard:
    """Reads ``I/N``.

    Raises:
        ValueError: it is not two numbers with 0 <= I < N.
    """
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise ValueError(f"--shard is {text!r}; write I/N with I from 0 to N - 1, for example 0/2 and 1/2")
    return runner.Shard(int(index), int(count))


def listing(base: ConfigDict, seeds: int) -> str:
    """One paragraph an experiment: what it asks, its variants, and the trainings it takes alone."""
    paragraphs = []
    for name in runner.NAMES:
        experiment = runner.load(name)
        runs = runner.runs_of(experiment, base, Path(name), seeds)
        store = Store(Path("stages"))
        places = {store.place(stage, run.config) for run in runs for stage in trainings(run.stages)}
        kinds = [place.name.rpartition("-")[0] for place in places]
        costs = ", ".join(f"{kinds.count(kind)} x {kind}" for kind in sorted(set(kinds)))
        variants = "; ".join(dict.fromkeys(run.variant.name for run in runs))
        paragraphs.append(
            f"{name}: {experiment.title}. {experiment.about}\n  variants: {variants}\n  {seeds} seeds: {costs}"
        )
    return "\n".join(paragraphs)
