"""Results of stages that several workdirs share: one folder a stage and settings, linked into every workdir.

The folder is a workdir of its own, in which that stage alone is run; its name is the hash of all settings that decide
the result. So whoever needs the result finds it, goes on with it, or sees by its lock that someone is at it.
"""

from pathlib import Path

from ml_collections import ConfigDict

from ssenet_jax.stages import final
from ssenet_jax.stages.context import Context
from ssenet_jax.stages.links import link, link_stage
from ssenet_jax.stages.manifest import settings_hash
from ssenet_jax.stages.runner import run_stages, todo_of
from ssenet_jax.stages.table import TABLE, needs_of, with_needs


class Store:
    """The results of stages under one folder."""

    def __init__(self, folder: Path):
        self.folder = folder

    def place(self, stage: str, config: ConfigDict) -> Path:
        """The workdir of one stage under a config."""
        return self.folder / f"{stage}-{settings_hash(final.settings_of(stage, config))}"

    def is_complete(self, stage: str, config: ConfigDict) -> bool:
        """Whether a stage has been completed, for images that were added since too."""
        context = Context(config, self.place(stage, config))
        return final.is_complete(stage, context) and not any(todo_of(stage, context).values())

    def make(self, stage: str, config: ConfigDict) -> None:
        """Runs a stage, or goes on with it; what it reads is complete in this store.

        Raises:
            BlockingIOError: another process is at it.
        """
        workdir = self.place(stage, config)
        for need in with_needs(needs_of(stage, config), config):
            link_stage(need, Context(config, self.place(need, config)), workdir)
        run_stages(config, workdir, (stage,))

    def link(self, stage: str, config: ConfigDict, workdir: Path) -> None:
        """Shows a complete stage in another workdir, with figures under the config's section `evaluate`."""
        made = Context(config, self.place(stage, config))
        scored = final.is_scored(stage, made)
        link_stage(stage, made, workdir, metrics=scored)
        link(workdir / "data.json", made.workdir / "data.json")
        if not scored:
            final.evaluate(Context(config, workdir), stage)


def trainings(stages: tuple[str, ...]) -> list[str]:
    """Those of the stages that train."""
    return [name for name in stages if TABLE[name].images is None]
