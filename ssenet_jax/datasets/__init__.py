"""Where examples come from: `load` gives one split of the data set that a config names."""

from ssenet_jax.datasets.checking import drop_broken, problems
from ssenet_jax.datasets.records import Record, Shrunk, Source

NAMES = ("scenes", "voc12", "folder")

__all__ = ["NAMES", "Record", "Source", "load", "open_listed", "problems"]


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
    if data_config.on_error == "skip" and data_config.name != "scenes":
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
    if data_config.name not in NAMES:
        raise ValueError(f"config.data.name is {data_config.name!r}; expected one of {', '.join(NAMES)}")
    # Each reader is imported when it is asked for: voc12 brings in tensorflow_datasets, which takes seconds.
    if data_config.name == "scenes":
        from ssenet_jax.datasets.scenes import Scenes

        scenes = data_config.scenes
        count = scenes.num_train if split == "train" else scenes.num_test
        return Scenes(split, seed=scenes.seed, count=count, size=scenes.size)
    if data_config.name == "voc12":
        from ssenet_jax.datasets.voc12 import open_voc12

        return open_voc12(
            data_config.root,
            split,
            sbd_root=data_config.sbd_root,
            cache=data_config.cache,
            check_files=check_files,
        )
    from ssenet_jax.datasets.folder import Folder

    folder = data_config.folder
    return Folder(
        split,
        root=data_config.root,
        csv=folder.csv,
        eval_csv=folder.eval_csv,
        images=folder.images,
        masks=folder.masks,
        check_files=check_files,
    )
