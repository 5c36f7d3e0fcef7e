"""What a workdir says of itself: its config and its data set, so that what comes later needs neither.

`config.json` is the config of the latest run; `data.json` holds the class names and, for each split, the ids and the
photos' paths relative to `data.root`.
"""

import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from ssenet_jax import bounds
from ssenet_jax.artifacts import flatten, read_json, write_json, write_text
from ssenet_jax.config import paper_config
from ssenet_jax.datasets.ids import check_ids
from ssenet_jax.messages import quoted
from ssenet_jax.stages.context import Context

LONGEST = 1024  # the longer side that a network is applied at, where data.max_side sets none


class Split(NamedTuple):
    """The images of a split: ids and, unless the data set draws its photos, a path for each."""

    ids: list[str]
    photos: list[str]


class Facts(NamedTuple):
    """The data of a run."""

    class_names: tuple[str, ...]
    splits: dict[str, Split]


def write_facts(context: Context) -> None:
    """Writes both files, at the beginning of a run."""
    root, names = context.config.data.root, context.train_source.class_names
    splits = {
        split: {"ids": source.ids, "photos": [_below(root, photo) for photo in source.photos]}
        for split, source in context.sources.items()
    }
    write_json(context.workdir / "data.json", {"class_names": names, "splits": splits})
    write_text(context.workdir / "config.json", context.config.to_json(indent=1) + "\n")


def _below(root: str, photo: str) -> str:
    path = Path(os.path.abspath(photo))
    return str(path.relative_to(os.path.abspath(root))) if path.is_relative_to(os.path.abspath(root)) else str(path)


def read_facts(workdir: Path) -> Facts:
    """Reads data.json.

    Raises:
        ValueError: it is missing or damaged.
    """
    path = workdir / "data.json"
    stored = _read(path)
    try:
        names, splits = tuple(stored["class_names"]), stored["splits"]
        splits = {split: Split(list(entry["ids"]), list(entry["photos"])) for split, entry in splits.items()}
        whole = all(len(split.photos) in (0, len(split.ids)) for split in splits.values())
        strings = [*names, *(text for split in splits.values() for text in (*split.ids, *split.photos))]
        if not whole or not all(isinstance(text, str) for text in strings):
            raise TypeError("its lists do not hold what they should")
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged ({error}); run ssenet run again, which writes it") from error
    for split, entry in splits.items():
        check_ids(((image_id, f"{path}, {split}, image {place}") for place, image_id in enumerate(entry.ids, 1)))
    return Facts(names, splits)


def check_classes(workdir: Path, class_names: Sequence[str]) -> None:
    """Raises a ValueError when masks in a workdir are of other classes than the data are now: they hold numbers."""
    differing = other_classes(workdir, class_names) if any((workdir / "manifests").glob("*.json")) else ""
    if differing:
        raise ValueError(
            f"{workdir} holds results of other classes: {differing}; use another --workdir, or set them back"
        )


def other_classes(workdir: Path, class_names: Sequence[str]) -> str:
    """In words the first class that data.json has otherwise; "" for none, or where the file says nothing."""
    try:
        made = read_facts(workdir).class_names
    except ValueError:  # the next run writes it
        return ""
    for number, (was, now) in enumerate(itertools.zip_longest(made, class_names), 1):
        if was != now:
            told = ("absent" if name is None else quoted(name) for name in (was, now))
            return "number {} was {} and is {}".format(number, *told)
    return ""


def read_config(workdir: Path) -> ConfigDict:
    """The config of the last run in a workdir.

    Raises:
        ValueError: nothing was run there, the file is damaged, or the config is of another version of this package; a
            key that only one of them has is named.
    """
    path = workdir / "config.json"
    stored = _read(path)
    made, known = flatten(stored) if isinstance(stored, dict) else {}, flatten(paper_config())
    for key in sorted(made.keys() ^ known.keys()):
        which = "has the key" if key in made else "lacks the key"
        raise ValueError(f"{path} {which} {key}, unlike this version of ssenet_jax; use the version that ran there")
    return config_of(stored, path)


def config_of(stored: Any, path: Path) -> ConfigDict:
    """A config from some of its sections as JSON holds them; the others stay as they are published.

    Raises:
        ValueError: a key that this version does not have, or a value that cannot work; names the file.
    """
    config = paper_config()
    try:
        config.update(ConfigDict(dict(_tuples(stored))))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = str(error).strip("\"'").partition(".")[0]
        raise ValueError(f"{path} does not hold a config of this version ({reason}); write it again") from error
    try:
        bounds.check(config)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return config


def _tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _tuples(each) for key, each in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _read(path: Path) -> Any:
    if not path.exists():
        raise ValueError(f"{path} is missing; {path.parent} must be the workdir of a run of this version")
    return read_json(path)
