"""What tells how a run went: metrics of every stage, the table at the end, the report."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from ssenet_jax import artifacts
from ssenet_jax.checkpoint import steps
from ssenet_jax.datasets import Source
from ssenet_jax.report import page
from ssenet_jax.report.gallery import Shown
from ssenet_jax.stages import doubt, labels, manifest, reviewed, score
from ssenet_jax.stages.context import Context
from ssenet_jax.stages.table import LABELS, PREDICTIONS, TABLE, asked_for, place_of, sections_of
from ssenet_jax.training import recipes


def settings_of(name: str, config: ConfigDict) -> dict:
    """The settings that decide the result of a stage, its own and those of every stage before it."""
    settings = manifest.result_settings(config, sections_of(name, config))
    # of the stages of a network, only what applies it depends on which round that was trained in
    return {**settings, "segmenter.rounds": config.segmenter.rounds} if name == PREDICTIONS else settings


def made_from(name: str, context: Context) -> manifest.MadeFrom:
    """The data that decide the result of a stage.

    Its images, and their masks where it learns from those (masks to score against come and go); what the weights hold
    that a training starts from; and what a person reviewed of the label maps that it reads. A stage with one file an
    image makes those again that are stale, so for it the review is no other data.
    """
    images, sections = TABLE[name].images, sections_of(name, context.config)
    sources = context.training_images() if images is None else images(context)
    identity: dict[str, Any] = {split: source.identity for split, source in sources.items()}
    if images is None and "init" in sections:
        identity["weights"] = _weights(name, context)
    if TABLE[name].training == "segmenter" and context.config.labels.source == "reviewed":
        identity["reviewed"] = reviewed.joined(labels.origins(context, place_of(LABELS, context.workdir)))
    masks = "labels" in sections and context.config.labels.source == "masks"
    states = {split: context.fingerprints(split, masks=masks) for split in sources}
    found = {f"{split}/{image}": state for split, of_split in states.items() for image, state in of_split.items()}
    return manifest.MadeFrom(identity, found)


def _weights(name: str, context: Context) -> str:
    """What the file or folder of `init.weights` holds; of one that is gone, what it held when the stage was begun."""
    named = context.config.init.weights
    path = Path(named)
    if named and path.exists():
        return manifest.content_hash(path)
    held = manifest.read_manifest(context.manifest(name))
    return held.made_from.identity.get("weights", named) if held else named


def is_complete(name: str, context: Context, *, as_need: bool = False) -> bool:
    """Whether a stage has been completed with the settings of the config and from the data as they are now.

    A training whose last checkpoint is gone is not complete: one before it must not be taken for it.

    Args:
        name: of the stage.
        context: of the run.
        as_need: its results are only read, so a training may have been made before images were added or removed.

    Raises:
        ValueError: it was made with other settings or from other data.
    """
    settings, data = settings_of(name, context.config), made_from(name, context)
    trains = TABLE[name].images is None
    path, grows = context.manifest(name), as_need or not trains
    complete = manifest.check_manifest(path, settings, stage=name, made_from=data, grows=grows)
    return complete and (not trains or has_last_step(name, context))


def has_last_step(name: str, context: Context) -> bool:
    """Whether the checkpoint is there with which a training ended; of the manifest alone, without the data."""
    held = manifest.read_manifest(context.manifest(name))
    if held is None:
        return False
    last = recipes.steps_of(context.config, TABLE[name].training, len(held.made_from.images))
    return last in steps(place_of(name, context.workdir).folder)


def evaluate(context: Context, name: str) -> None:
    """Scores what a stage wrote, against masks on every split that has some, and prints one line a figure."""
    row = TABLE[name]
    if row.score is None or row.images is None:
        return
    config_hash = manifest.settings_hash(settings_of(name, context.config))
    subjects = score.subjects(context, place_of(name, context.workdir), row.images(context), config_hash)
    for record in row.score(context, subjects):
        record["evaluate_hash"] = _evaluate_hash(context.config)
        record["masks_hash"] = _masks_hash(row.images(context)[record["split"]])
        artifacts.write_json(context.metrics(name, record["split"]), record)
        context.say(_line(record))


def is_scored(name: str, context: Context) -> bool:
    """Whether a stage has its figures, made under the config's section `evaluate` and of the masks as they are now."""
    row = TABLE[name]
    if row.score is None or row.images is None:
        return True
    sources = row.images(context)
    paths = {split: context.metrics(name, split) for split in sources}
    records = {split: artifacts.read_json(path) for split, path in paths.items() if path.exists()}
    if any(source.has_masks and split not in records for split, source in sources.items()):
        return False
    return all(
        is_of(record, name, context.config) and record.get("masks_hash") == _masks_hash(sources[split])
        for split, record in records.items()
    )


def is_of(record: Mapping, name: str, config: ConfigDict) -> bool:
    """Whether figures of a stage were made under a config, its section `evaluate` too."""
    return (
        record.get("config_hash") == manifest.settings_hash(settings_of(name, config))
        and record.get("evaluate_hash") == _evaluate_hash(config)
    )  # fmt: skip


def _evaluate_hash(config: ConfigDict) -> str:
    return manifest.settings_hash(config.evaluate.to_dict())


def _masks_hash(source: Source) -> str:
    return manifest.settings_hash(source.mask_fingerprints())


def evaluate_all(context: Context) -> None:
    """`evaluate` for all that the config asks for and that is complete."""
    if not context.is_writer:
        return
    for name in asked_for(context.config):
        if is_complete(name, context, as_need=True):
            evaluate(context, name)


def write_report(context: Context) -> None:
    """Writes report.html and prints where it is."""
    if not context.is_writer:
        return
    config = context.config
    ids = [image_id for source in context.sources.values() for image_id in source.ids[: config.report.examples]]
    shown = [Shown(name, row.title, _picture_of(name, context)) for name, row in TABLE.items()]
    doubts = doubt.measure_all(context.workdir, config.labels, context.training_images())
    texts = {"title": config.title, "config_text": str(config)}
    path = page.write(context.workdir, shown, **texts, sources=context.sources, ids=ids, doubts=doubts)
    print(summary(context))
    print(f"report: {path}")


def _picture_of(name: str, context: Context):
    """From an image, its id and split, and the stage's alpha, to the picture of its result, if there is one."""
    picture, place = TABLE[name].picture, place_of(name, context.workdir)
    if picture is None:
        return None
    return lambda image, image_id, split, alpha: (
        picture(image, place, image_id, split, alpha) if place.file(image_id, split).exists() else None
    )


def summary(context: Context) -> str:
    """The table of a run: one row a stage and split, in percent."""
    records = artifacts.read_metrics(context.workdir / "metrics")
    if not records:
        return "nothing was scored: no stage has results on a split with masks"
    order = {name: place for place, name in enumerate(TABLE)}
    records.sort(key=lambda record: (order.get(record["stage"], len(order)), record["split"]))
    measured = [_line(record) for record in records if "miou" not in record]
    rows = [f"{'stage':<22}{'split':<10}{'images':>7}{'alpha':>7}{'mIoU':>8}{'mFN':>8}{'mFP':>8}"]
    for r in (record for record in records if "miou" in record):
        alpha = "" if r["alpha"] is None else f"{r['alpha']:.2f}"
        figures = "".join(f"{_percent(r[name]):>8}" for name in ("miou", "m_fn", "m_fp"))
        rows.append(f"{r['stage']:<22}{r['split']:<10}{r['num_images']:>7}{alpha:>7}{figures}")
    return "\n".join([*rows, *measured])


def _line(record: dict) -> str:
    if "miou" not in record:
        shown = {name: "-" if value is None else f"{value:.3f}" for name, value in record["equivariance"].items()}
        errors = ", ".join(f"{name} {value}" for name, value in shown.items())
        return f"{record['stage']}: mean AP {_percent(record['mean_ap'])}; error under {errors}"
    alpha = "" if record["alpha"] is None else f" at alpha {record['alpha']:.2f}"
    where = f"{record['num_images']} images of {record['split']}{alpha}"
    return f"{record['stage']}: mIoU {_percent(record['miou'])} on {where}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"
