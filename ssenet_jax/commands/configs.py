"""Config files: where they lie, how a command names one, and how it is read; ``ssenet configs`` lists them."""

import argparse
import ast
import difflib
import os
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict, config_flags

from ssenet_jax.artifacts import flatten

PACKAGE = Path(__file__).parents[1]
FOLDERS = (PACKAGE / "configs", PACKAGE.parent / "configs")  # of an installation, of a checkout

HELP = """\
Lists the configs that come with the package, each with what it is. --config takes a name of this list, or the path of
a file, and after a colon an argument to its get_config: --config=scenes, --config=scenes:tiny, --config=mine.py.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """``ssenet configs`` has no options."""


def run(options: argparse.Namespace, words: list[str]) -> int:
    refuse_words(words)
    files = installed()
    width = max(map(len, files), default=0) + 2
    for name, file in files.items():
        print(f"{name:<{width}}{first_line(file)}")
    return 0


def installed() -> dict[str, Path]:
    """The configs that come with the package, by name."""
    folder = next((folder for folder in FOLDERS if folder.is_dir()), FOLDERS[0])
    return {file.stem: file for file in sorted(folder.glob("[a-z]*.py"))}


def first_line(file: Path) -> str:
    """The first line of a config's docstring."""
    return (ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").partition("\n")[0]


def add_config(parser: argparse.ArgumentParser) -> None:
    """The option of the commands that read a config; their other words are its ``--config.KEY=VALUE``."""
    parser.add_argument(
        "--config", required=True, metavar="NAME[:ARG]", help="see ssenet configs; or a file; ARG to its get_config"
    )


def load_config(name: str, overrides: list[str]) -> ConfigDict:
    """Reads a config and applies ``--config.KEY=VALUE`` overrides.

    Args:
        name: of an installed config, or the path of a file; after a colon the argument of its ``get_config``.
        overrides: the words.

    Raises:
        FileNotFoundError: there is no such config.
        ValueError: a key that the config does not have (the nearest one is named), or a value of the wrong type.
    """
    path = _find(name)
    refuse_words([word for word in overrides if not word.startswith("--config.")])
    known = _parse([f"--config={path}"])
    _check_keys(known, overrides)
    return _parse([f"--config={path}", *overrides])


def _find(name: str) -> str:
    """The path of a config and its argument."""
    file, colon, argument = name.partition(":")
    known = installed()
    is_path = file.endswith(".py") or os.sep in file
    path = Path(file) if is_path else known.get(file)
    if path is None or not path.is_file():
        raise FileNotFoundError(f"there is no config {file!r}; those that are installed: {', '.join(known)}")
    return f"{path}{colon}{argument}"


def refuse_words(stray: list[str]) -> None:
    """Raises a ValueError for the first word that a command did not expect."""
    if stray:
        raise ValueError(f"{stray[0]} is not an option of this command; --help after its name lists them")


def _parse(arguments: list[str]) -> ConfigDict:
    values, words = flags.FlagValues(), ["ssenet", *arguments]
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=words)
    try:
        values(words)
        config = values["config"].value
    except Exception as error:  # a config file is code, and may raise anything
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
        raise ValueError(f"{' '.join(arguments)}: {reason}") from error
    if not isinstance(config, ConfigDict):
        raise ValueError(f"{arguments[0]}: its get_config gives a {type(config).__name__}, expected a ConfigDict")
    return config


def _check_keys(config: ConfigDict, overrides: list[str]) -> None:
    known = flatten(config)
    for override in overrides:
        key, separator, _ = override.removeprefix("--config.").partition("=")
        base = key.partition("[")[0]
        if not separator:
            raise ValueError(f"{override} has no value; write --config.{key}=VALUE")
        if base not in known:
            near = difflib.get_close_matches(base, known, n=1, cutoff=0.0)
            raise ValueError(f"the config has no key {base}; the nearest is {near[0]}")
