"""Config files: how a command names one, and how it is read."""

import argparse
import difflib
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from ssenet_jax.artifacts import flatten, read_json
from ssenet_jax.config import paper_config


def add_config(parser: argparse.ArgumentParser) -> None:
    """The option of the commands that read a config; their other words are its ``--config.KEY=VALUE``."""
    parser.add_argument("--config", required=True, metavar="FILE[:ARG]", help="a config file, ARG to its get_config")


def load_config(path: str, overrides: list[str]) -> ConfigDict:
    """Reads a config file and applies ``--config.KEY=VALUE`` overrides.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a key that the config does not have (the nearest one is named), or a value of the wrong type.
    """
    file = path.partition(":")[0]
    if not Path(file).is_file():
        raise FileNotFoundError(f"the config {file} does not exist; give the path of one of the files in configs/")
    refuse_words([word for word in overrides if not word.startswith("--config.")])
    known = _parse([f"--config={path}"])
    _check_keys(known, overrides)
    return _parse([f"--config={path}", *overrides])


def config_of(workdir: Path) -> ConfigDict:
    """The config of the last run in a workdir.

    Raises:
        FileNotFoundError: nothing was run there.
        ValueError: the config is of another version of this package; a key that only one of them has is named.
    """
    path = workdir / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; --workdir is to be the workdir of a run")
    made, config = flatten(read_json(path)), paper_config()
    for key in sorted(made.keys() ^ flatten(config).keys()):
        which = "has the key" if key in made else "lacks the key"
        raise ValueError(f"{path} {which} {key}, unlike this version of ssenet_jax; use the version that ran there")
    for key, value in made.items():
        *sections, name = key.split(".")
        section = config
        for part in sections:
            section = section[part]
        section[name] = _tuples(value)
    return config


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


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
