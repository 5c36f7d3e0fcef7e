"""Results of stages that several workdirs share: one folder a stage and settings, linked into every workdir.

The folder is a workdir of its own, in which that stage alone is run; its name is the hash of all settings that decide
the result. So whoever needs the result finds it, goes on with it, or sees by its lock that someone is at it.
"""

import os
from pathlib import Path

from ml_collections import ConfigDict

from ssenet_jax.stages import final
from ssenet_jax.stages.context import Context
from ssenet_jax.stages.manifest import settings_hash
from ssenet_jax.stages.runner import run_stages
from ssenet_jax.stages.table import TABLE, needs_of, place_of, with_needs


class Store:
    """The results of stages under one folder."""

    def __init__(self, folder: Path):
        self.folder = folder

    def place(self, stage: str, config: ConfigDict) -> Path:
        """The workdir of one stage under a config."""
        return self.folder / f"{stage}-{settings_hash(final.settings_of(stage, config))}"

    def is_complete(self, stage: str, config: ConfigDict) -> bool:
        return final.is_complete(stage, Context(config, self.place(stage, config)))

    def make(self, stage: str, config: ConfigDict) -> None:
        """Runs a stage, or goes on with it; what it reads is complete in this store.

        Raises:
            BlockingIOError: another process is at it.
        """
        workdir = self.place(stage, config)
        for need in with_needs(needs_of(stage, config), config):
            self.link(need, config, workdir)
        run_stages(config, workdir, (stage,))

    def link(self, stage: str, config: ConfigDict, workdir: Path) -> None:
        """Shows a complete stage in another workdir."""
        link_stage(stage, Context(config, self.place(stage, config)), workdir)


def link_stage(stage: str, made: Context, workdir: Path) -> None:
    """Links all that a stage wrote in one workdir into another: results, manifest, log, metrics."""
    log, manifest = made.log(stage), made.manifest(stage)
    found = [place_of(stage, made.workdir).folder, manifest, log, made.workdir / "tensorboard" / stage]
    found += sorted((made.workdir / "metrics").glob(f"{stage}.*.json"))
    for path in found:
        if path.exists():
            _link(workdir / path.relative_to(made.workdir), path)


def _link(path: Path, target: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.symlink_to(os.path.relpath(target.resolve(), path.parent.resolve()))
    except FileExistsError:
        if not path.is_symlink():
            raise ValueError(f"{path} is in the way of a result that is to be linked there; move it away") from None


def trainings(stages: tuple[str, ...]) -> list[str]:
    """Those of the stages that train."""
    return [name for name in stages if TABLE[name].images is None]
