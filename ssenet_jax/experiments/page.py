"""What an experiment leaves to look at: one page that needs nothing else, its table as CSV, its figure as SVG, PNG."""

import base64
import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path

from ssenet_jax import artifacts
from ssenet_jax.experiments import figures
from ssenet_jax.experiments.experiment import Column, Experiment
from ssenet_jax.experiments.results import Figure, Run, by_variant, figure
from ssenet_jax.report.templates import template
from ssenet_jax.stages import final
from ssenet_jax.stages.manifest import read_manifest, settings_hash


def write(experiment: Experiment, runs: Sequence[Run], folder: Path) -> Path:
    """Writes page, CSV and figure from what the runs have by now; the same results give the same bytes.

    Args:
        experiment: what is shown.
        runs: of all shards.
        folder: of the experiment; the files are named after it.

    Returns:
        The page.
    """
    stem = folder / folder.name
    variants = {name: [figure(column, of) for column in experiment.columns] for name, of in by_variant(runs).items()}
    on_voc = runs[0].config.data.name == "voc12"
    chart = figures.draw(experiment, runs, stem)
    artifacts.write_text(stem.with_suffix(".csv"), _csv(variants, on_voc, folder))
    html = template("experiment.html.j2").render(
        title=experiment.title,
        about=experiment.about,
        setting=runs[0].config.title,
        done=sum(_is_complete(run) for run in runs),
        total=len(runs),
        columns=[_heading(column, runs[0], on_voc) for column in experiment.columns],
        published=on_voc and any(column.published for column in experiment.columns),
        rows=[_row(name, cells) for name, cells in variants.items()],
        chart=chart,
        figure=_data_uri(stem.with_suffix(".svg")),
        figure_text=f"{experiment.title}: the figures of the table above",
        stages=runs[0].stages,
        runs=[_source(run, runs[0].stages, folder) for run in runs],
        config_text=str(runs[0].config),
    )
    path = folder / "report.html"
    artifacts.write_text(path, html)
    return path


def _is_complete(run: Run) -> bool:
    held = {stage: read_manifest(run.workdir / "manifests" / f"{stage}.json") for stage in run.stages}
    return all(made and made.settings == final.settings_of(stage, run.config) for stage, made in held.items())


def _heading(column: Column, run: Run, on_voc: bool) -> dict:
    split = run.config.data[column.split] or "no held-out images"
    return {"title": column.title, "split": split, "published": on_voc and bool(column.published)}


def _row(name: str, cells: Sequence[Figure]) -> dict:
    seeds = max((len(cell.values) for cell in cells), default=0)
    return {"name": name, "seeds": seeds, "cells": [_cell(name, cell) for cell in cells]}


def _cell(variant: str, found: Figure) -> dict:
    published = found.column.published.get(variant)
    values = [_text(found.column, value) for value in found.values]
    ends = f"{_text(found.column, min(found.values))} to {_text(found.column, max(found.values))}" if values else ""
    return {
        "mean": _text(found.column, found.mean),
        "spread": ends if len(values) > 1 else "",
        "published": "" if published is None else f"{published:.1f}",
    }


def _text(column: Column, value: float) -> str:
    if not math.isfinite(value):
        return "–"
    return f"{100 * value:.1f}" if column.percent else f"{value:.3g}"


def _source(run: Run, stages: Sequence[str], folder: Path) -> dict:
    """Where the results of a run lie, and the configs of its stages."""
    hashes = [settings_hash(final.settings_of(stage, run.config)) if stage in run.stages else "" for stage in stages]
    changes = " ".join(f"{key}={value}" for key, value in run.variant.changes.items())
    workdir = str(run.workdir.relative_to(folder))
    return {"variant": run.variant.name, "seed": run.seed, "changes": changes, "workdir": workdir, "hashes": hashes}


def _csv(variants: dict[str, list[Figure]], on_voc: bool, folder: Path) -> str:
    """One line a figure: mean, ends, each seed's value, and where it was read."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        "variant figure stage split key mean lowest highest seeds paper_percent values workdirs config_hashes".split()
    )
    for name, cells in variants.items():
        for column, runs, values, hashes in cells:
            ends = [sum(values) / len(values), min(values), max(values)] if values else ["", "", ""]
            paper = column.published.get(name, "") if on_voc else ""
            where = [str(run.workdir.relative_to(folder)) for run in runs]
            each = [";".join(map(str, many)) for many in (values, where, hashes)]
            of = [name, column.title, column.stage, column.split.removesuffix("_split"), column.key]
            writer.writerow([*of, *ends, len(values), paper, *each])
    return text.getvalue()


def _data_uri(path: Path) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(path.read_bytes()).decode()
