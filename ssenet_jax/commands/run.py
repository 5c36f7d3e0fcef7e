"""``ssenet run``: the stages of a config."""

import argparse
import sys
from pathlib import Path

from absl import flags

from ssenet_jax import cache
from ssenet_jax.commands.configs import add_config, load_config
from ssenet_jax.stages.runner import order, run_stages
from ssenet_jax.stages.table import TABLE
from ssenet_jax.training import hosts, stop
from ssenet_jax.training.logs import say

HELP = """\
Runs the stages of an experiment, each where it stopped. Keys of the config are set with --config.KEY=VALUE:
  ssenet run --config=scenes --workdir=runs/scenes --config.ser.rate=0.4
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = _stages()
    add_config(parser)
    parser.add_argument(
        "--workdir", required=True, type=_workdir, help="where everything is written; a rerun goes on there"
    )
    parser.add_argument(
        "--from",
        dest="made_in",
        type=_workdir,
        metavar="WORKDIR",
        help="of another run: what it made under the same settings is linked here, and what was reviewed there",
    )
    parser.add_argument("--stages", default="", help="comma-separated; default: what the config asks for")
    parser.add_argument(
        "--coordinator", default="", metavar="HOST:PORT", help="process 0; found on Cloud TPU and Slurm"
    )
    parser.add_argument("--process_id", default=-1, type=int, metavar="I", help="of this process, counted from 0")
    parser.add_argument("--num_processes", default=0, type=int, metavar="N", help="processes of the run")


def _stages() -> str:
    rows = [
        f"  {name:<22}{TABLE[name].title}, {TABLE[name].writes}" if name in TABLE else f"  {name}" for name in order()
    ]
    return "\n".join(["stages, what each makes, and where in the workdir:", *rows])


def run(options: argparse.Namespace, overrides: list[str]) -> int:
    config = load_config(options.config, overrides)
    flags.FLAGS.mark_as_parsed()  # grain reads absl flags
    cache.keep_compiled()
    hosts.join(options.coordinator, options.process_id, options.num_processes)
    try:
        names = tuple(name for name in options.stages.split(",") if name)
        run_stages(config, options.workdir, names, made_in=options.made_in)
    except stop.Preempted as stopped:
        say(str(stopped), sys.stdout)
        return stop.exit_code()
    return 0


def _workdir(text: str) -> Path:
    if not text.strip():
        raise argparse.ArgumentTypeError("it is empty, as a variable that is not set leaves it; name a folder")
    return Path(text)
