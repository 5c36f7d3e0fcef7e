"""Checkpoints of a training: saved beside the running steps, restored onto any number of devices."""

import contextlib
import itertools
import json
import logging
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp

from ssenet_jax.training import hosts, stop
from ssenet_jax.training.optim import flatten
from ssenet_jax.training.quiet import hush_orbax

_ARRAYS, _PLAIN = ("variables", "momentum"), "loop"
_STEP = re.compile(r"(\d+)(\.damaged(\.\d+)?)?")
# what tensorstore says when a file lacks, is too short or does not decode, and not when it could not be read just now
_DAMAGE = ("DATA_LOSS", "FAILED_PRECONDITION", "OUT_OF_RANGE", "NOT_FOUND", "INVALID_ARGUMENT")
_GONE = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
_log = logging.getLogger(__name__)


class DamagedError(ValueError):
    """Files of a checkpoint are missing, or do not hold what was written."""


class OtherModelError(ValueError):
    """The checkpoint was written for other arrays than those asked for."""


class Restored(NamedTuple):
    """A checkpoint as `Checkpoints.save` was given it."""

    step: int
    variables: dict
    momentum: dict
    loop: dict


class Checkpoints:
    """The checkpoints of one training, a directory a step.

    A save copies the state and writes in the background, under a temporary name until it is complete.

    Args:
        directory: where the steps lie; made when absent.
        keep: how many of the newest steps stay.
    """

    def __init__(self, directory: str | os.PathLike, *, keep: int):
        self.directory = Path(directory).absolute()
        handlers = {name: ocp.StandardCheckpointHandler() for name in _ARRAYS}
        hush_orbax()
        with self._writing():
            self._manager = ocp.CheckpointManager(
                self.directory,
                item_handlers={**handlers, _PLAIN: ocp.JsonCheckpointHandler()},
                options=ocp.CheckpointManagerOptions(max_to_keep=keep, cleanup_tmp_directories=True),
            )

    def __enter__(self):
        return self

    def __exit__(self, kind, *error):
        try:
            with self._writing():
                self._manager.close()
        except OSError:
            if kind is None:  # else the error on its way has said it
                raise

    def newest(self) -> Path | None:
        """The directory of the newest complete checkpoint."""
        self.wait()
        step = self._manager.latest_step()
        return None if step is None else self.directory / str(step)

    def save(self, step: int, variables: dict, momentum: dict, loop: dict) -> None:
        """Writes a step unless it is there already.

        Args:
            step: number of finished training steps.
            variables, momentum: trees of arrays; the first is all that inference needs.
            loop: what JSON can hold: the state of the input and of the running means.

        Raises:
            OSError: this or an earlier step could not be written.
        """
        if step in self._manager.all_steps():
            return
        arrays = {name: ocp.args.StandardSave(tree) for name, tree in zip(_ARRAYS, (variables, momentum), strict=True)}
        with self._writing():
            self._manager.save(step, args=ocp.args.Composite(**arrays, **{_PLAIN: ocp.args.JsonSave(loop)}), force=True)

    def wait(self) -> None:
        """Returns when all that was saved is on disk; raises an OSError when it could not be written."""
        with self._writing():
            self._manager.wait_until_finished()

    def restore(
        self, variables: dict, momentum: dict, fits: Callable[[int, dict], bool] = lambda step, loop: True
    ) -> Restored | None:
        """The newest checkpoint, or None when there never was one.

        One that is damaged is named in the log and set aside as `<step>.damaged`, and the one before it is used. Of
        several processes all do the same, also when only one of them finds the damage.

        Args:
            variables, momentum: trees of jax.ShapeDtypeStruct with the shardings wanted.
            fits: whether what was saved as `loop` of a step is a state to go on from.

        Raises:
            ValueError: the checkpoint belongs to another model, or all that were ever written are damaged.
            OSError: a checkpoint cannot be read just now; nothing was changed.
        """
        wanted = dict(zip(_ARRAYS, (variables, momentum), strict=True))
        for step in steps(self.directory):
            found, reason = _read_together(self.directory / str(step), wanted, fits)
            if found is not None:
                return Restored(step, found["variables"], found["momentum"], found[_PLAIN])
            self._set_aside(step, reason)
        aside = steps(self.directory, damaged=True)
        if aside:
            raise ValueError(
                f"every checkpoint in {self.directory} is damaged (steps {', '.join(map(str, aside))}); delete that "
                "folder to train from the start"
            )
        return None

    @contextlib.contextmanager
    def _writing(self):
        """Whatever the libraries raise when a disk is full or files run out, in one line."""
        try:
            yield
        except Exception as error:
            line = f"a checkpoint in {self.directory} could not be written ({_reason(error)})"
            raise OSError(f"{line}; what was there is untouched: see to it, and run the same command again") from error

    def _set_aside(self, step, reason):
        path = self.directory / str(step)
        if jax.process_index() == 0:
            _log.warning("the checkpoint %s is damaged (%s); it is set aside, and the one before it used", path, reason)
            path.rename(_free_name(path))
        hosts.agree(f"setting aside of {path.parent.name}/{path.name}", "")
        self._manager.reload()


def steps(directory: Path, *, damaged: bool = False) -> list[int]:
    """The complete steps in a training's folder, the newest first; or those that were set aside as damaged."""
    if not directory.is_dir():
        return []
    found = [_STEP.fullmatch(path.name) for path in directory.iterdir() if path.is_dir()]
    return sorted({int(match[1]) for match in found if match and bool(match[2]) == damaged}, reverse=True)


def load_variables(directory: str | os.PathLike, stage: str = "") -> dict:
    """The newest model of a training as numpy arrays, {"params": ..., "batch_stats": ...}; never an older one.

    Args:
        directory: the training's checkpoint directory, or a folder that import-weights wrote.
        stage: the stage that writes it; "" for a folder of weights.

    Raises:
        ValueError: there is none, or the newest one is damaged.
        OSError: it cannot be read just now.
    """
    directory = Path(directory).absolute()
    found, aside = steps(directory), steps(directory, damaged=True)
    if not found and not aside:
        what = f"run the stage {stage} first" if stage else "give the folder that import-weights or a training wrote"
        raise ValueError(f"there is no checkpoint in {directory}; {what}")
    if aside and aside[0] > max(found, default=-1):
        damaged = f"the newest checkpoint in {directory}, step {aside[0]}, is damaged"
        raise ValueError(f"{damaged}; {_remedy(stage, None if found else directory)}")
    path, one_left = directory / str(found[0]), len(found) == 1
    try:
        with _told(path):
            shapes = _metadata(path / "variables")
            empty = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), shapes)
            return _restore(path / "variables", empty)
    except DamagedError as error:
        remedy = _remedy(stage, directory if one_left else path)
        raise ValueError(f"the checkpoint {path} is damaged ({error}); {remedy}") from error


def _remedy(stage: str, in_the_way: Path | None) -> str:
    if not stage:
        return "write the folder again with ssenet import-weights, or give another --config.init.weights"
    first = f"delete {in_the_way} and " if in_the_way else ""
    return f"{first}run the stage {stage} again, which goes on from what is left"


def _read_together(path: Path, wanted: dict, fits: Callable) -> tuple[dict | None, str]:
    """What every process could read of a checkpoint, whose path may differ; or None and why it is damaged."""
    found, failure, damage = None, None, ""
    try:
        found = _read(path, wanted, fits)
    except DamagedError as error:
        damage = f"damaged {error}"
    except (ValueError, OSError) as error:
        failure = error
    words = hosts.agree(f"reading of {path.parent.name}/{path.name}", f"failed {failure}" if failure else damage)
    if failure:
        raise failure
    for index, word in enumerate(words):
        if word.startswith("failed "):
            raise OSError(f"process {index} could not restore {path}: {word.removeprefix('failed ')}")
        if word == "stop":
            raise stop.Preempted("the run was stopped; run the same command again to go on")
    damages = [word.removeprefix("damaged ") for word in words if word]
    return (None, damages[0]) if damages else (found, "")


def _read(path: Path, wanted: dict, fits: Callable) -> dict:
    with _told(path):
        for item, tree in wanted.items():
            _check_same_model(path, item, _metadata(path / item), tree)
        loop = _json(path / _PLAIN / "metadata")
        if not fits(int(path.name), loop):
            raise DamagedError(f"{_PLAIN}/metadata holds no state to go on from")
        return {item: _restore(path / item, tree) for item, tree in wanted.items()} | {_PLAIN: loop}


def _restore(path: Path, tree: dict) -> dict:
    # without orbax's checkpointer, which waits for the other processes even when one of them has failed
    return ocp.StandardCheckpointHandler().restore(path, args=ocp.args.StandardRestore(tree))


def _metadata(path: Path) -> dict:
    """The shapes of the arrays in a part of a checkpoint, after a look at all that is not an array."""
    if not _json(path / "_METADATA").get("tree_metadata"):
        raise DamagedError(f"{path.name}/_METADATA tells of no array")
    for extra in (path / "_sharding", *(path / "array_metadatas").glob("process_*")):
        if extra.exists():
            _json(extra)
    return dict(ocp.StandardCheckpointHandler().metadata(path))


def _json(path: Path) -> dict:
    name = f"{path.parent.name}/{path.name}"
    try:
        value = json.loads(path.read_bytes())
    except _GONE as error:
        raise DamagedError(f"{name} is missing") from error
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"{name} is not JSON") from error
    if not isinstance(value, dict):
        raise DamagedError(f"{name} holds no table")
    return value


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    """Tells damage from all else that the libraries raise while they read: the first changes what is on disk."""
    try:
        yield
    except (DamagedError, OtherModelError):
        raise
    except Exception as error:
        if any(isinstance(link, ValueError) and str(link).startswith(_DAMAGE) for link in _chain(error)):
            raise DamagedError(_reason(error)) from error
        line = f"the checkpoint {path} cannot be read just now ({_reason(error)}); nothing was changed, run it again"
        raise OSError(line) from error


def _reason(error: Exception) -> str:
    *_, first = _chain(error)
    return (str(first).strip() or type(first).__name__).splitlines()[0][:300]


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _free_name(path: Path) -> Path:
    endings = itertools.chain(["damaged"], (f"damaged.{number}" for number in itertools.count(1)))
    return next(name for end in endings if not (name := path.with_name(f"{path.name}.{end}")).exists())


def _check_same_model(path, item, metadata, tree):
    stored, expected = _shapes(metadata), _shapes(tree)
    differing = [name for name in sorted(stored | expected) if stored.get(name) != expected.get(name)]
    if differing:
        listed = ", ".join(f"{n}: {stored.get(n, 'absent')} != {expected.get(n, 'absent')}" for n in differing[:5])
        raise OtherModelError(
            f"the checkpoint {path} holds another model ({len(differing)} arrays of its {item} differ, stored != "
            f"expected: {listed}); use the config it was trained with, or another workdir"
        )


def _shapes(tree):
    return {path: tuple(leaf.shape) for path, leaf in flatten(tree).items()}
