"""The command ``ssenet``: finds the command that is asked for, and says in one line what went wrong."""

import argparse
import importlib
import logging
import sys
from typing import NamedTuple


class Command(NamedTuple):
    """One row: a module of `commands` with HELP, add_arguments(parser) and run(options, other words) -> exit code."""

    module: str
    summary: str


COMMANDS = {
    "run": Command("run", "run the stages of a config"),
    "predict": Command("predict", "segment photos with a trained network"),
    "tune": Command("tune", "find the settings that make the best labels of what a run left"),
    "experiment": Command("experiment", "the paper's tables and figures, over several seeds"),
    "verify-data": Command("verify", "read every file of a data set"),
    "plan": Command("plan", "what a training takes on chips that are not here"),
    "import-weights": Command("weights", "turn a weight file into a checkpoint"),
}


def console() -> None:
    """Entry point of the console command."""
    sys.exit(main(sys.argv[1:]))


def main(argv: list[str]) -> int:
    """Runs one command.

    Returns:
        The exit code: 0, also after a preemption that can be continued; 2 for bad input, with one line on stderr.
    """
    options, words = _parser(argv).parse_known_args(argv)
    logging.getLogger("absl").setLevel(logging.ERROR)  # orbax tells of each checkpoint it opens
    try:
        return options.run(options, words)
    except (ValueError, OSError) as error:
        if options.traceback:
            raise
        print(f"ssenet: {' '.join(str(error).split())}", file=sys.stderr)
        return 2


def _parser(argv: list[str]) -> argparse.ArgumentParser:
    """The parser of the command that is asked for; the others are known by name and import nothing."""
    about = "From image-level labels to masks and a segmentation network."
    parser = argparse.ArgumentParser(prog="ssenet", description=about, allow_abbrev=False)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for name, row in COMMANDS.items():
        command = commands.add_parser(
            name, help=row.summary, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        if argv[:1] == [name]:
            module = importlib.import_module(f"ssenet_jax.commands.{row.module}")
            command.description = module.HELP
            command.add_argument("--traceback", action="store_true", help="show the whole traceback of an error")
            command.set_defaults(run=module.run)
            module.add_arguments(command)
    return parser
