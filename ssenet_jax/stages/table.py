"""The stages of an experiment: what each reads, what it writes, and the order they depend on each other."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import jax
from ml_collections import ConfigDict

from ssenet_jax import artifacts
from ssenet_jax.config import BASELINE_STAGES, STAGES
from ssenet_jax.stages import apply as inference_stages
from ssenet_jax.stages import train as training_stages
from ssenet_jax.stages.context import Context
from ssenet_jax.stages.final import evaluate, write_report
from ssenet_jax.training import hosts
from ssenet_jax.training.loop import Preempted

COMMON = ("seed", "dtype", "data", "model")


class Stage(NamedTuple):
    """One row of the table.

    Attributes:
        run: does what is missing.
        needs: the stages whose results it reads.
        sections: the parts of the config that decide its result, beside those of the stages it needs.
        writes: the folder of its results in the workdir.
    """

    run: Callable[[Context], None]
    needs: tuple[str, ...]
    sections: tuple[str, ...]
    writes: str


TABLE = {
    "train_baseline": Stage(training_stages.train_baseline, (), ("init", "classifier"), "checkpoints/baseline"),
    "infer_baseline_cams": Stage(inference_stages.infer_baseline_cams, ("train_baseline",), ("cam",), "baseline/cams"),
    "train_classifier": Stage(
        training_stages.train_classifier, (), ("init", "classifier", "ser"), "checkpoints/classifier"
    ),
    "infer_cams": Stage(inference_stages.infer_cams, ("train_classifier",), ("cam",), "cams"),
    "refine_seeds": Stage(inference_stages.refine_seeds, ("infer_cams",), ("crf",), "seeds"),
    "train_affinity": Stage(training_stages.train_affinity, ("refine_seeds",), ("affinity",), "checkpoints/affinity"),
    "propagate": Stage(inference_stages.propagate, ("infer_cams", "train_affinity"), ("random_walk",), "pseudo_labels"),
    "train_segmenter": Stage(training_stages.train_segmenter, ("propagate",), ("segmenter",), "checkpoints/segmenter"),
    "segment": Stage(inference_stages.segment, ("train_segmenter",), ("segment",), "predictions"),
}
FINAL = {"evaluate": evaluate, "report": write_report}


def run_stages(config: ConfigDict, workdir: Path, names: tuple[str, ...]) -> None:
    """Runs the named stages in the order of the data flow; what is finished is skipped.

    Args:
        config: see ``config.paper_config``.
        workdir: made when absent; held by a lock while this runs.
        names: stages of ``TABLE``, ``"evaluate"`` and ``"report"``.

    Raises:
        ValueError: an unknown stage, bad data, or results in the workdir that were made under other settings.
        OSError: the workdir cannot be written, or another run is using it.
    """
    order = (*BASELINE_STAGES, *STAGES)
    unknown = [name for name in names if name not in order]
    if unknown:
        raise ValueError(f"there is no stage {unknown[0]}; the stages are {', '.join(order)}")
    with artifacts.locked(workdir, jax.process_index()):
        context = Context(config, workdir)
        if context.is_writer:
            artifacts.remove_partial(workdir)
            artifacts.write_text(workdir / "config.json", config.to_json(indent=1) + "\n")
        hosts.wait_for_all("begin")
        for name in sorted(set(names), key=order.index):
            if name in FINAL:
                FINAL[name](context, {stage: settings_of(stage, config) for stage in TABLE})
            else:
                with _stopped_by_sigterm(name, workdir):
                    _run_stage(name, context)
            hosts.wait_for_all(f"after {name}")


def settings_of(name: str, config: ConfigDict) -> dict:
    """The settings that decide the result of a stage, its own and those of every stage before it."""
    return artifacts.result_settings(config, tuple(dict.fromkeys((*COMMON, *_sections(name)))))


def _sections(name: str) -> list[str]:
    stage = TABLE[name]
    return [section for need in stage.needs for section in _sections(need)] + list(stage.sections)


def _run_stage(name: str, context: Context) -> None:
    for need in TABLE[name].needs:
        if not _is_complete(need, context):
            raise ValueError(f"{name} reads what {need} writes; run --stages={need} in {context.workdir} first")
    if _is_complete(name, context):
        context.say(f"{name}: done before")
        return
    settings = settings_of(name, context.config)
    if context.is_writer:
        artifacts.write_manifest(context.manifest(name), settings, complete=False)
    context.say(f"{name}")
    try:
        TABLE[name].run(context)
    except Exception:
        # settings that nothing was made with must not stand in the way of corrected ones
        if context.is_writer and not any((context.workdir / TABLE[name].writes).glob("*")):
            context.manifest(name).unlink()
        raise
    hosts.wait_for_all(f"end of {name}")
    if context.is_writer:
        artifacts.write_manifest(context.manifest(name), settings, complete=True)
        evaluate(context, {name: settings})


@contextlib.contextmanager
def _stopped_by_sigterm(name: str, workdir: Path) -> Iterator[None]:
    """Raises Preempted when SIGTERM comes; a training, while it steps, takes the signal itself and saves first."""
    # with several processes JAX listens for the signal, so that all of them stop at one step
    if jax.process_count() > 1 or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number, frame):
        raise Preempted(f"{name} was stopped; what it wrote stays in {workdir}; run the same command again to go on")

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _is_complete(name: str, context: Context) -> bool:
    return artifacts.check_manifest(context.manifest(name), settings_of(name, context.config), stage=name)
