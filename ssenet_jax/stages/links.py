"""What lies in another workdir: links to it in place of the same work again."""

import os
from pathlib import Path

from ml_collections import ConfigDict

from ssenet_jax import artifacts
from ssenet_jax.stages import final, manifest
from ssenet_jax.stages.context import Context
from ssenet_jax.stages.reviewed import REVIEWED
from ssenet_jax.stages.table import TABLE, asked_for, place_of


def take_over(config: ConfigDict, made: Path, workdir: Path) -> tuple[list[str], str]:
    """Links into a workdir what another one has of the stages of a config: complete, and under the same settings.

    What a person reviewed there is linked too. Results that the workdir has of its own are left as they are. Whether
    the data are the same is for the run to see, which compares them with the manifests.

    Args:
        config: of the run.
        made: the other workdir.
        workdir: of the run.

    Returns:
        The stages that are linked now, and in words the first that was made under another setting; "" for none.

    Raises:
        ValueError: nothing was run in the other workdir, or it is the same one.
    """
    if made.resolve() == workdir.resolve():
        raise ValueError(f"--from={made} is the --workdir itself; give the run another --workdir")
    if not (made / "manifests").is_dir():
        raise ValueError(f"--from={made} holds no run; name the --workdir of one")
    theirs, linked, other = Context(config, made), [], ""
    for name in asked_for(config):
        held, own = manifest.read_manifest(theirs.manifest(name)), place_of(name, workdir).folder
        if held is None or (own.exists() and not own.is_symlink()):
            continue
        key = manifest.differing(held.settings, final.settings_of(name, config))
        if key:
            other = other or f"{name} was made there under another {key}"
        elif held.complete and (TABLE[name].images is not None or final.has_last_step(name, theirs)):
            link_stage(name, theirs, workdir)
            linked.append(name)
    if (made / REVIEWED).is_dir() and not (workdir / REVIEWED).exists():
        link(workdir / REVIEWED, made / REVIEWED)
    return linked, other


def link_stage(stage: str, made: Context, workdir: Path, *, metrics: bool = True) -> None:
    """Links all that a stage wrote in one workdir into another: results, manifest, log, and its metrics or not.

    Links to what was made under other settings are replaced.
    """
    results, board = place_of(stage, made.workdir).folder, made.workdir / "tensorboard" / stage
    for path in (results, made.manifest(stage), made.log(stage), board):
        if path.exists():
            link(workdir / path.relative_to(made.workdir), path)
    if metrics:
        names = {path.name: path for path in (made.workdir / "metrics").glob(f"{stage}.*.json")}
        for left in (workdir / "metrics").glob(f"{stage}.*.json"):
            if left.name not in names or not left.is_symlink():
                left.unlink()
        for name, path in names.items():
            link(workdir / "metrics" / name, path)


def link(path: Path, target: Path) -> None:
    """Makes a path a link to what is elsewhere, relative, so that both may be moved together.

    Raises:
        ValueError: a file or folder is there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    wanted = os.path.relpath(target.resolve(), path.parent.resolve())
    if path.is_symlink():
        if os.readlink(path) == wanted:
            return
    elif path.exists():
        raise ValueError(f"{path} is in the way of a result that is to be linked there; move it away")
    with artifacts.replacing(path) as temporary:
        temporary.symlink_to(wanted)
