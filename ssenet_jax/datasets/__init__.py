"""Where examples come from: `load` gives one split of the data set that a config names."""

import importlib

from ssenet_jax.datasets.checking import drop_broken, problems
from ssenet_jax.datasets.records import Record, Shrunk, Source

# name -> the module whose open_split(data_config, split, check_files=...) gives its records; imported when asked for
DATASETS = {
    "scenes": "ssenet_jax.datasets.scenes",
    "voc12": "ssenet_jax.datasets.voc12",
    "folder": "ssenet_jax.datasets.folder",
}

__all__ = ["DATASETS", "Record", "Source", "load", "open_listed", "problems"]


def load(data_config, split: str) -> Source:
    """Opens one split of a data set; records are read when they are asked for.

    Images whose longer side is above max_side are shrunk to it, and their masks are not; 0 shrinks none.
    With on_error "skip" every file is read once here and the records that fail are left out, so every stage sees the
    same list in the same order. A fault in a list (CSV, image set, XML) always raises.

    Args:
        data_config: the config's `data` section.
        split: scenes "train", "test"; voc12 "train", "val", "train_aug", "test"; folder "train", "eval".

    Returns:
        The split's records by position; see `Source` for what it knows of them.

    Raises:
        ValueError: an unknown name, split or on_error, or data that is missing or wrong; one line that names the file.
        OSError: prepared records are damaged, or the machine is short of memory or open files.
    """
    if data_config.on_error not in ("raise", "skip"):
        raise ValueError(f'config.data.on_error is {data_config.on_error!r}; expected "raise" or "skip"')
    source = _open(data_config, split, check_files=data_config.on_error == "raise")
    if data_config.on_error == "skip":
        source = drop_broken(source)
    return Shrunk(source, data_config.max_side) if data_config.max_side else source


def open_listed(data_config, split: str) -> Source:
    """Opens all that a split lists, also what cannot be read: asking for such a record raises.

    Args:
        data_config: the config's `data` section.
        split: see `load`.

    Raises:
        ValueError: an unknown name or split, or a fault in a list.
    """
    return _open(data_config, split, check_files=False)


def _open(data_config, split: str, *, check_files: bool) -> Source:
    if data_config.name not in DATASETS:
        raise ValueError(f"config.data.name is {data_config.name!r}; expected one of {', '.join(DATASETS)}")
    module = importlib.import_module(DATASETS[data_config.name])
    return module.open_split(data_config, split, check_files=check_files)
