"""``ssenet verify-data``: reads every file of a data set, to say what is wrong before a run does."""

import argparse
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ml_collections import ConfigDict

from ssenet_jax import datasets
from ssenet_jax.commands.configs import add_config, load_config
from ssenet_jax.messages import one_line
from ssenet_jax.training.logs import Progress

MOST_OF_A_KIND = 20
_PLACE = re.compile(r"\S*(?:[\d/\\'\"]|\.\w)\S*")
HELP = """\
Reads every image, mask and list that the config's section data names, and prints a table of what is wrong. The exit
code is 1 when something is. Keys of the config are set with --config.KEY=VALUE.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)


def run(options: argparse.Namespace, overrides: list[str]) -> int:
    found = list(faults(load_config(options.config, overrides).data))
    print(table(found) if found else "nothing is wrong")
    return 1 if found else 0


class Fault(NamedTuple):
    """Something wrong with a data set; `id` is empty where it is with a list and not with one image."""

    split: str
    id: str
    problem: str


def faults(data_config: ConfigDict) -> Iterator[Fault]:
    """Reads the training split and the held-out one, each with a progress bar, and yields what is wrong.

    Args:
        data_config: the config's section `data`; `on_error` makes no difference.
    """
    for split in dict.fromkeys((data_config.train_split, data_config.eval_split)):
        if split:
            yield from _faults_of(data_config, split)


def _faults_of(data_config: ConfigDict, split: str) -> Iterator[Fault]:
    try:
        source = datasets.open_listed(data_config, split)
    except (ValueError, OSError) as error:
        yield Fault(split, "", str(error))
        return
    with Progress(f"reading {split}", len(source)) as progress:
        for image_id, problem in datasets.problems(source):
            progress.advance(1)
            if problem is not None:
                yield Fault(split, image_id, problem)


def table(found: Sequence[Fault]) -> str:
    """One line for each fault, in columns; of a kind that is frequent the first 20, and how many more there are."""
    rows = [Fault("split", "image", "what is wrong")]
    counts: Counter[tuple[str, str]] = Counter()
    for fault in found:
        problem = one_line(fault.problem)
        counts[kind := (fault.split, _kind(problem))] += 1
        if counts[kind] <= MOST_OF_A_KIND:
            rows.append(Fault(fault.split, fault.id or "(the list)", problem))
    more = [(split, count - MOST_OF_A_KIND, kind) for (split, kind), count in counts.items() if count > MOST_OF_A_KIND]
    rows += [Fault(split, f"({count} more)", one_line(f"the same: {kind}")) for split, count, kind in more]
    split, image = (max(len(row[column]) for row in rows) for column in (0, 1))
    return "\n".join(f"{row.split:<{split}}  {row.id:<{image}}  {row.problem}" for row in rows)


def _kind(problem: str) -> str:
    """What is wrong without where: the words in which no name, path or number is."""
    return " ".join(_PLACE.sub("", problem).split())
