"""What lies in another workdir: links to it in place of the same work again."""

import os
from collections.abc import Collection
from pathlib import Path

from ml_collections import ConfigDict

from ssenet_jax import artifacts
from ssenet_jax.stages import doubt, facts, final, manifest
from ssenet_jax.stages.context import Context
from ssenet_jax.stages.reviewed import REVIEWED, read_decisions
from ssenet_jax.stages.table import TABLE, asked_for, needs_of, place_of


def take_over(config: ConfigDict, made: Path, workdir: Path, wanted: Collection[str]) -> tuple[list[str], str]:
    """Links into a workdir what another one has of the stages of a config: complete, and what a run would make now.

    What reads results that are not taken is not taken either. What a person reviewed there is linked too. Results that
    the workdir has of its own are left as they are.

    Args:
        config: of the run.
        made: the other workdir.
        workdir: of the run.
        wanted: the stages that the run is asked for; a training that is not may be of fewer photos than there are.

    Returns:
        The stages that are linked now, and in words why the first other one is not; "" where there is none.

    Raises:
        ValueError: nothing was run in the other workdir, it is the same one, or what was reviewed there is of other
            classes or photos.
    """
    if made.resolve() == workdir.resolve():
        raise ValueError(f"--from={made} is the --workdir itself; give the run another --workdir")
    if not (made / "manifests").is_dir():
        raise ValueError(f"--from={made} holds no run; name the --workdir of one")
    theirs, linked, other = Context(config, made), [], ""
    if (made / REVIEWED).is_dir() and not (workdir / REVIEWED).exists():
        differing = _reviewed_of_other(theirs)
        if differing and config.labels.source == "reviewed":
            raise ValueError(f"--from={made} was reviewed with other {differing}; leave --from out")
        if not differing:
            link(workdir / REVIEWED, made / REVIEWED)
    left: set[str] = set()  # not taken
    changing: set[str] = set()  # taken, but the run will make some of the results anew
    for name in asked_for(config):
        row, own, needs = TABLE[name], place_of(name, workdir).folder, needs_of(name, config)
        as_need = name not in wanted
        why = _why_not(name, theirs, as_need=as_need, reads_new=not as_need and not changing.isdisjoint(needs))
        if why or (own.exists() and not own.is_symlink()) or not left.isdisjoint(needs):
            other = other or why
            left.add(name)
        elif final.is_complete(name, theirs, as_need=True):
            link_stage(name, theirs, workdir)
            linked.append(name)
            if row.stale and row.stale(theirs, place_of(name, made)):
                changing.add(name)
    return linked, other


def _reviewed_of_other(theirs: Context) -> str:
    """In words, which classes or photos were others when a person reviewed them; "" where none were."""
    if differing := facts.other_classes(theirs.workdir, theirs.train_source.class_names):
        return f"classes: {differing}"
    changed = doubt.changed_since(theirs.workdir, theirs.config.data.train_split, theirs.train_source)
    decided = [image_id for image_id in changed if image_id in read_decisions(theirs.workdir)]
    return f"photos: {len(decided)} changed since ({decided[0]})" if decided else ""


def _why_not(name: str, theirs: Context, *, as_need: bool, reads_new: bool) -> str:
    """Why what another workdir has of a stage is not what a run would make now; "" where it is, or has nothing."""
    held = manifest.read_manifest(theirs.manifest(name))
    if held is None:
        return ""
    if key := manifest.differing(held.settings, final.settings_of(name, theirs.config)):
        return f"{name} was made there under another {key}"
    try:
        final.is_complete(name, theirs, as_need=as_need)
    except ValueError:
        reads_new = True
    return f"{name} was made there from other data" if reads_new else ""


def part(name: str, context: Context, *, complete: bool) -> None:
    """Takes a linked stage that has something to do out of the other workdir, where nothing may be written.

    Args:
        name: of the stage.
        context: of the run.
        complete: whether the stage is; a training that is not begins anew.
    """
    row, place = TABLE[name], place_of(name, context.workdir)
    if not place.folder.is_symlink():
        return
    if row.images is None:
        linked = () if complete else (place.folder, context.log(name), context.workdir / "tensorboard" / name)
        for path in filter(Path.is_symlink, linked):
            path.unlink()
        return
    stale = row.stale(context, place) if row.stale else ()
    images = [(split, image_id) for split, source in row.images(context).items() for image_id in source.ids]
    if all(image_id not in stale and place.file(image_id, split).exists() for split, image_id in images):
        return
    theirs = place.folder.resolve()
    place.folder.unlink()  # a run that is stopped here makes again what is not linked yet
    for path in (path for path in theirs.rglob("*") if path.is_file()):
        link(place.folder / path.relative_to(theirs), path)


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
