"""Checkpoints of a training: saved beside the running steps, restored onto any number of devices."""

import logging
import os
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from ssenet_jax.training.optim import flatten

_ARRAYS, _PLAIN = ("variables", "momentum"), "loop"
_log = logging.getLogger(__name__)


class Checkpoints:
    """The checkpoints of one training, a directory a step.

    A save copies the state and writes in the background, under a temporary name until it is complete. A checkpoint
    that cannot be read is named in the log and set aside as `<step>.damaged`, and the one before it is used.

    Args:
        directory: where the steps lie; made when absent.
        keep: how many of the newest steps stay.
    """

    def __init__(self, directory: str | os.PathLike, *, keep: int):
        self.directory = Path(directory).absolute()
        self._manager = _manager(self.directory, max_to_keep=keep, cleanup_tmp_directories=True)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._manager.close()

    def newest(self) -> Path | None:
        """The directory of the newest complete checkpoint."""
        self._manager.wait_until_finished()
        step = self._manager.latest_step()
        return None if step is None else self.directory / str(step)

    def save(self, step: int, variables: dict, momentum: dict, loop: dict) -> None:
        """Writes a step unless it is there already.

        Args:
            step: number of finished training steps.
            variables: tree of arrays, all that inference needs.
            momentum: tree of arrays.
            loop: what JSON can hold: the state of the input and of the running means.
        """
        if step in self._manager.all_steps():
            return
        arrays = {name: ocp.args.StandardSave(tree) for name, tree in zip(_ARRAYS, (variables, momentum), strict=True)}
        self._manager.save(step, args=ocp.args.Composite(**arrays, **{_PLAIN: ocp.args.JsonSave(loop)}), force=True)

    def wait(self) -> None:
        """Returns when all that was saved is on disk; raises what went wrong in the background."""
        self._manager.wait_until_finished()

    def restore(self, variables: dict, momentum: dict) -> tuple[int, dict, dict, dict] | None:
        """The newest checkpoint that can be read, or None when there never was one.

        Args:
            variables: tree of jax.ShapeDtypeStruct with the shardings wanted.
            momentum: the same for the momentum.

        Returns:
            The step, and what `save` was given.

        Raises:
            ValueError: when the checkpoint belongs to another model, or none of those present can be read.
        """
        wanted = dict(zip(_ARRAYS, (variables, momentum), strict=True))

        def read(step):
            _check_same_model(self.directory / str(step), self._manager.item_metadata(step), wanted)
            arrays = {name: ocp.args.StandardRestore(tree) for name, tree in wanted.items()}
            loaded = self._manager.restore(step, args=ocp.args.Composite(**arrays, **{_PLAIN: ocp.args.JsonRestore()}))
            return step, loaded["variables"], loaded["momentum"], loaded[_PLAIN]

        return _first_readable(self._manager, self.directory, read, self._set_aside)

    def _set_aside(self, step):
        if jax.process_index() == 0:
            (self.directory / str(step)).rename(self.directory / f"{step}.damaged")
        multihost_utils.sync_global_devices(f"set aside {step}")
        self._manager.reload()


def load_variables(directory: str | os.PathLike, stage: str) -> dict:
    """The newest model of a training as numpy arrays, {"params": ..., "batch_stats": ...}.

    Args:
        directory: the training's checkpoint directory.
        stage: the stage that writes it, for the error message.

    Raises:
        ValueError: when there is none, or none can be read.
    """
    directory = Path(directory).absolute()
    variables = None
    if directory.is_dir():
        with _manager(directory, read_only=True, create=False) as manager:
            variables = _first_readable(manager, directory, lambda step: _read_variables(manager, step))
    if variables is None:
        raise ValueError(f"there is no checkpoint in {directory}; run the stage {stage} first")
    return variables


def _manager(directory, **options):
    handlers = {name: ocp.StandardCheckpointHandler() for name in _ARRAYS}
    return ocp.CheckpointManager(
        directory,
        item_handlers={**handlers, _PLAIN: ocp.JsonCheckpointHandler()},
        options=ocp.CheckpointManagerOptions(**options),
    )


def _read_variables(manager, step):
    tree = manager.item_metadata(step)["variables"]
    empty = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), dict(tree))
    return manager.restore(step, args=ocp.args.Composite(variables=ocp.args.StandardRestore(empty)))["variables"]


def _first_readable(manager, directory, read, set_aside=None):
    damaged = []
    for step in sorted(manager.all_steps(), reverse=True):
        try:
            return read(step)
        except OtherModelError:
            raise
        except Exception as e:  # whatever a broken file makes the readers raise
            reason = (str(e).strip() or type(e).__name__).splitlines()[0][:200]
            _log.warning("the checkpoint %s is damaged (%s); trying the one before it", directory / str(step), reason)
            damaged.append(step)
            if set_aside is not None:
                set_aside(step)
    if damaged:
        raise ValueError(
            f"none of the checkpoints {damaged} in {directory} can be read; remove it to train from the start"
        )
    return None


class OtherModelError(ValueError):
    """The checkpoint was written for other arrays than those asked for."""


def _check_same_model(path, metadata, wanted):
    for item, tree in wanted.items():
        stored, expected = _shapes(dict(metadata[item])), _shapes(tree)
        differing = [name for name in sorted(stored | expected) if stored.get(name) != expected.get(name)]
        if differing:
            listed = ", ".join(f"{n}: {stored.get(n, 'absent')} != {expected.get(n, 'absent')}" for n in differing[:5])
            raise OtherModelError(
                f"the checkpoint {path} holds another model ({len(differing)} arrays differ, stored != expected: "
                f"{listed}); use the config it was trained with, or another workdir"
            )


def _shapes(tree):
    return {path: tuple(leaf.shape) for path, leaf in flatten(tree).items()}
