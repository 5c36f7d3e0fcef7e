"""The command ``ssenet``: finds the command that is asked for, and says in one line what went wrong."""

import argparse
import contextlib
import importlib
import logging
import os
import signal
import sys
from typing import NamedTuple

from ssenet_jax import __version__, huge_pages
from ssenet_jax.messages import one_line
from ssenet_jax.training import stop


class Command(NamedTuple):
    """One row: a module of `commands` with HELP, add_arguments(parser) and run(options, other words) -> exit code.

    With `heeds_signals` a signal sets a flag that the command looks at; others end where they are. Those are the ones
    that compute for long.
    """

    module: str
    summary: str
    heeds_signals: bool = False


COMMANDS = {
    "run": Command("run", "run the stages of a config", heeds_signals=True),
    "review": Command("review", "a page on which to accept or correct the masks of a run"),
    "predict": Command("predict", "segment photos with a trained network", heeds_signals=True),
    "tune": Command("tune", "find the settings that make the best labels of what a run left"),
    "experiment": Command("experiment", "the paper's tables and figures, over several seeds", heeds_signals=True),
    "verify-data": Command("verify", "read every file of a data set"),
    "export": Command("export", "label maps for other tools, or the network to stand alone"),
    "configs": Command("configs", "list the configs that come with the package"),
    "plan": Command("plan", "what a training takes on chips that are not here"),
    "import-weights": Command("weights", "turn a weight file into a checkpoint"),
}


def console() -> None:
    """Entry point of the console command."""
    row = COMMANDS.get(sys.argv[1]) if len(sys.argv) > 1 else None
    if row and row.heeds_signals:
        huge_pages.start_with()
    _open_streams()
    code = main(sys.argv[1:])
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback while the interpreter ends
    sys.exit(code)


def _open_streams() -> None:
    """Gives closed standard streams somewhere to go, or the next file opened would get what is printed."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115, for as long as the process lives
        getattr(sys, name).reconfigure(errors="backslashreplace")


def main(argv: list[str]) -> int:
    """Runs one command.

    Returns:
        The exit code: 0, also after a preemption that can be continued; 130 after Ctrl-C; 2 for what came from outside
        and is wrong, with one line on stderr.
    """
    row = COMMANDS.get(argv[0]) if argv else None
    with stop.listening() if row and row.heeds_signals else contextlib.nullcontext():
        try:
            return _run(argv)
        except KeyboardInterrupt:
            print("ssenet: stopped", file=sys.stderr)
            return 130


def _run(argv: list[str]) -> int:
    options, words = _parser(argv).parse_known_args(argv)
    logging.getLogger("absl").setLevel(logging.ERROR)  # orbax tells of each checkpoint it opens
    if not hasattr(options, "run"):
        print(f"ssenet: {one_line(argv[0])} stands before the command; write it after the command", file=sys.stderr)
        return 2
    try:
        return options.run(options, words)
    except (ValueError, OSError, MemoryError, ImportError) as error:  # an import fails where an extra is missing
        if options.traceback:
            raise
        print(f"ssenet: {one_line(error) or 'out of memory'}", file=sys.stderr)
        return 2


def _parser(argv: list[str]) -> argparse.ArgumentParser:
    """The parser of the command that is asked for; the others are known by name and import nothing."""
    about = "From image-level labels to masks and a segmentation network."
    parser = argparse.ArgumentParser(prog="ssenet", description=about, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"ssenet_jax {__version__}")
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
