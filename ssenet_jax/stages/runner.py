"""Runs stages one after the other, each where it stopped."""

import functools
import json
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

import jax
from ml_collections import ConfigDict

from ssenet_jax import artifacts
from ssenet_jax.bounds import check
from ssenet_jax.datasets import Source
from ssenet_jax.models import BACKBONES
from ssenet_jax.stages import facts, final, manifest, train
from ssenet_jax.stages.context import Context, Job
from ssenet_jax.stages.links import part, take_over
from ssenet_jax.stages.table import TABLE, asked_for, needs_of, place_of
from ssenet_jax.training import hosts, recipes

FINAL = {"evaluate": final.evaluate_all, "report": final.write_report}


def order() -> tuple[str, ...]:
    """Every stage, in the order of the data flow."""
    return (*TABLE, *FINAL)


def run_stages(config: ConfigDict, workdir: Path, names: tuple[str, ...] = (), *, made_in: Path | None = None) -> None:
    """Runs stages in the order of the data flow; what is finished is skipped.

    Args:
        config: see ``config.paper_config``.
        workdir: made when absent; held by a lock while this runs.
        names: of ``order()``; none stands for those that the config asks for, and the final ones.
        made_in: another workdir; what it has under the same settings is linked and not made again.

    Raises:
        Preempted: the run was told to stop; see `stop.listening`.
        ValueError: an unknown stage, bad data, or results in the workdir that were made under other settings.
        OSError: the workdir cannot be written, or another run is using it.
    """
    unknown = [name for name in names if name not in order()]
    if unknown:
        raise ValueError(f"there is no stage {unknown[0]}; the stages are {', '.join(order())}")
    check(config)
    wanted = set(names) or {*asked_for(config), *FINAL}
    with hosts.leaving_word(), artifacts.locked(workdir, jax.process_index()):
        context = Context(config, workdir)
        if made_in is not None:
            _take_over(context, made_in, wanted)
        _check_processes(context)
        _check_weights(context, wanted)
        _check_batches(context, wanted)
        # a run that is refused leaves what the workdir says of itself
        facts.check_classes(workdir, context.train_source.class_names)
        complete = {name: final.is_complete(name, context) for name in TABLE if name in wanted}
        for name in asked_for(config) if wanted & FINAL.keys() else ():
            final.is_complete(name, context, as_need=True)
        trainings = [name for name, is_complete in complete.items() if TABLE[name].training and not is_complete]
        for name in trainings:
            train.check(context, TABLE[name].training)
        for check_stage in (TABLE[name].check for name, is_complete in complete.items() if not is_complete):
            if check_stage:
                check_stage(context)
        for name in trainings:
            _tell_if_short(name, context)
        if context.is_writer:
            folders = [context.workdir / name for name in ("manifests", "metrics", "logs")]
            for name in complete:
                part(name, context, complete=complete[name])
            folders += [place_of(name, workdir).folder for name in TABLE]
            artifacts.remove_partial(workdir, [folder for folder in folders if not folder.is_symlink()])
            facts.write_facts(context)
        hosts.wait_for_all("beginning of the run")
        for name in (name for name in order() if name in wanted):
            if name in FINAL:
                FINAL[name](context)
            else:
                _run_stage(name, context)
            hosts.wait_for_all(f"way to what follows {name}")


def _take_over(context: Context, made_in: Path, wanted: Collection[str]) -> None:
    """Links what another workdir has, and says what that is."""
    if context.is_writer:
        linked, other = take_over(context.config, made_in, context.workdir, wanted)
        context.say("; ".join([f"taken from {made_in}: {', '.join(linked) or 'nothing'}", *filter(None, [other])]))
    hosts.wait_for_all("links to another run")


def _check_processes(context: Context) -> None:
    """Raises a ValueError on every process when one of them has another config, or lists other photos."""
    if jax.process_count() == 1:
        return
    settings = manifest.result_settings(context.config, tuple(context.config))
    ids = {split: manifest.settings_hash({"ids": list(source.ids)}) for split, source in context.sources.items()}
    mine = {"settings": manifest.settings_hash(settings), **{f"photos of {split}": of for split, of in ids.items()}}
    words = hosts.agree("settings and photos of the run", json.dumps(mine))
    if not all(word.startswith("{") for word in words):
        return  # one was stopped, which all hear of when they meet next
    first, *others = map(json.loads, words)
    for index, other in enumerate(others, 1):
        differing = [what for what, held in first.items() if other.get(what) != held]
        if differing:
            raise ValueError(
                f"process {index} has other {differing[0]} than process 0; start all of them with one command, on the "
                "same photos"
            )


def _check_weights(context: Context, names: Collection[str]) -> None:
    """Raises a ValueError when a training would start from nothing with layers that never learn."""
    config = context.config
    if config.init.weights or (config.model.norm == "batch" and not config.model.frozen):
        return
    packaged = ", ".join(name for name, row in BACKBONES.items() if row.weights_package)
    for name in (name for name in TABLE if name in names and TABLE[name].training):
        if recipes.starts_from(config, TABLE[name].training) == "weights":
            raise ValueError(
                f"{name} would train from random weights with layers frozen: set init.weights to a file of ImageNet "
                f"weights of {config.model.backbone} (by name where a package brings them: {packaged}), "
                "or model.norm=batch and model.frozen=()"
            )


def _check_batches(context: Context, names: Iterable[str]) -> None:
    """Raises one ValueError for every training whose batch the processes of the run cannot share."""
    problems = []
    for training in dict.fromkeys(TABLE[name].training for name in TABLE if name in names):
        try:
            if training:
                context.mesh_of(training)
        except ValueError as error:
            problems.append(f"{recipes.TRAININGS[training].section}: {error}")
    if problems:
        raise ValueError("; ".join(dict.fromkeys(problems)))


def _tell_if_short(name: str, context: Context) -> None:
    """One line for a training that ends before its loss has settled, with the number of steps to ask for."""
    training = TABLE[name].training
    steps = recipes.steps_of(context.config, training, len(context.train_source))
    wanted = recipes.settling_steps(context.config, training)
    if steps < wanted:
        finetuned = recipes.starts_from(context.config, training) == "baseline"
        key = f"{'finetune' if finetuned else recipes.TRAININGS[training].section}.steps"
        context.say(f"{name}: {steps} steps are too few for the loss to settle; --config.{key}={wanted} or more")


def _run_stage(name: str, context: Context) -> None:
    for need in needs_of(name, context.config):
        if not final.is_complete(need, context, as_need=True):
            raise ValueError(f"{name} reads what {need} writes; run --stages={need} in {context.workdir} first")
    complete, todo = final.is_complete(name, context), todo_of(name, context)
    words = hosts.agree(f"work of {name}", str(sum(map(len, todo.values()))), until_stopped=True)
    left = sum(int(word) for word in words if word.isdecimal())  # a process that was stopped has another word
    if complete and not left:
        context.say(f"{name}: done before")
    else:
        context.say(f"{name}: {left} images have no result yet, or a stale one" if complete else name)
        _make(name, context, todo)
    hosts.wait_for_all(f"end of {name}")
    if context.is_writer and not (complete and not left):
        final.evaluate(context, name)  # before it counts as complete, so that what is complete has its figures
        _write_manifest(name, context, complete=True)


def todo_of(name: str, context: Context) -> dict[str, list[int]]:
    """By split the images that a stage still has to work on."""
    row, place = TABLE[name], place_of(name, context.workdir)
    if row.images is None:
        return {}
    stale = row.stale(context, place) if row.stale else ()
    return {
        split: missing(source, functools.partial(place.file, split=split), stale)
        for split, source in row.images(context).items()
    }


def missing(source: Source, file_of: Callable[[str], Path], stale: Collection[str] = ()) -> list[int]:
    """The images of this process's share without a result, or with a stale one.

    The share does not depend on what others have written.
    """
    share = range(jax.process_index(), len(source), jax.process_count())
    return [index for index in share if source.ids[index] in stale or not file_of(source.ids[index]).exists()]


def _make(name: str, context: Context, todo: dict[str, list[int]]) -> None:
    row, writes = TABLE[name], place_of(name, context.workdir)
    if context.is_writer:
        _write_manifest(name, context, complete=False)
    reads = tuple(place_of(need, context.workdir) for need in needs_of(name, context.config))
    try:
        row.run(context, Job(row.title, reads, writes, todo))
    except Exception as error:
        # settings that nothing was made with must not stand in the way of corrected ones; of others it is not known
        if jax.process_count() == 1 and not any(writes.folder.glob("*")):
            context.manifest(name).unlink()
        if isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error):
            section = recipes.TRAININGS[row.training].section if row.training else "inference"
            remedy = f"lower {section}.batch_size" + (", or set remat=True" if row.training else "")
            reason = str(error).splitlines()[0]
            raise MemoryError(f"{name}: the device is out of memory ({reason}); {remedy}") from error
        raise


def _write_manifest(name: str, context: Context, *, complete: bool) -> None:
    settings, data = final.settings_of(name, context.config), final.made_from(name, context)
    path = context.manifest(name)
    if TABLE[name].images is not None and (held := manifest.read_manifest(path)):
        # results of photos that were taken out stay, and are those of these photos when they come back
        data = data._replace(images={**held.made_from.images, **data.images})
    manifest.write_manifest(path, settings, complete=complete, made_from=data)
