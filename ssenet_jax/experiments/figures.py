"""The figure of an experiment, as SVG and PNG, and as a chart of the page where it has lines."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure as Canvas

from ssenet_jax import artifacts
from ssenet_jax.experiments.experiment import Column, Curve, Experiment, Pictures
from ssenet_jax.experiments.results import Run, by_variant, figure, mean_curve
from ssenet_jax.report import charts
from ssenet_jax.report.gallery import THUMBNAIL
from ssenet_jax.report.pictures import overlay_labels, to_long_edge
from ssenet_jax.stages.context import Context
from ssenet_jax.stages.table import TABLE, place_of

Series = Mapping[str, tuple[Sequence[float], Sequence[float]]]  # name -> x values and y values


def draw(experiment: Experiment, runs: Sequence[Run], stem: Path) -> charts.Chart | None:
    """Writes ``stem.svg`` and ``stem.png``: the same bytes for the same results.

    Returns:
        The figure as a chart of the page, for those with lines.
    """
    chart = None
    if isinstance(experiment.figure, Pictures):
        canvas = _examples(experiment.figure, runs)
    elif experiment.figure == "columns":
        canvas = _points([column for column in experiment.columns if column.percent], by_variant(runs))
    else:
        series, x_label, y_label = _lines(experiment, runs)
        canvas = _curves(series, x_label, y_label)
        chart = charts.line_chart(series, title=experiment.title, x_label=x_label, y_label=y_label, mark_best=True)
    _save(canvas, stem)
    return chart


def _save(canvas: Canvas, stem: Path) -> None:
    for suffix, metadata in ((".svg", {"Date": None}), (".png", {"Software": None})):
        # the same bytes each time, text as text
        style = matplotlib.rc_context({"svg.hashsalt": "ssenet", "svg.fonttype": "none"})
        with style, artifacts.replacing(stem.with_suffix(suffix)) as path:
            canvas.savefig(path, format=suffix[1:], metadata=metadata, dpi=120, bbox_inches="tight")


def _points(columns: Sequence[Column], variants: Mapping[str, Sequence[Run]]) -> Canvas:
    """Each column's mean over the variants, with bars from the lowest to the highest seed."""
    canvas = Canvas(figsize=(1.5 + 0.9 * len(variants), 4))
    axes = canvas.subplots()
    for number, column in enumerate(columns):
        place = (number - (len(columns) - 1) / 2) * 0.12
        for x, runs in enumerate(variants.values()):
            found = figure(column, runs)
            label = f"{column.title}, {column.split.removesuffix('_split')}" if x == 0 else None
            if found.values:
                low, high = 100 * (found.mean - min(found.values)), 100 * (max(found.values) - found.mean)
                axes.errorbar(
                    x + place, 100 * found.mean, [[low], [high]], fmt="o", capsize=3, color=f"C{number}", label=label
                )
    axes.set_xticks(range(len(variants)), list(variants), rotation=20, ha="right")
    axes.set_ylabel("%")
    axes.grid(axis="y", alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return canvas


def _lines(experiment: Experiment, runs: Sequence[Run]) -> tuple[Series, str, str]:
    """The lines of a figure in percent: a mean curve a variant, or a line a group and column over the variants' x."""
    variants = by_variant(runs)
    if isinstance(experiment.figure, Curve):
        curve = experiment.figure
        found = {name: mean_curve(of, curve.stage, curve.split, curve.x, curve.y) for name, of in variants.items()}
        return {name: (xs, [100 * y for y in ys]) for name, (xs, ys) in found.items()}, curve.x_label, curve.y_label
    series: dict[str, tuple[list[float], list[float]]] = {}
    for of in variants.values():
        variant = of[0].variant
        for column in experiment.columns:
            xs, ys = series.setdefault(f"{variant.group}, {column.title}", ([], []))
            xs.append(variant.x)
            ys.append(100 * figure(column, of).mean)
    return series, "test scale", "%"


def _curves(series: Series, x_label: str, y_label: str) -> Canvas:
    canvas = Canvas(figsize=(7, 4.5))
    axes = canvas.subplots()
    for name, (xs, ys) in series.items():
        if any(math.isfinite(y) for y in ys):
            axes.plot(xs, ys, marker="o" if len(xs) < 10 else None, label=name)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize="small")
    return canvas


def _examples(wanted: Pictures, runs: Sequence[Run]) -> Canvas:
    """A row an image of the first seed: the image, the ground truth, and each variant's result where there is one."""
    of_seed = [run for run in runs if run.seed == runs[0].seed]
    split = _split(wanted, runs[0])
    source = Context(runs[0].config, runs[0].workdir).sources[split]
    records = [source[index] for index in range(min(wanted.images, len(source)))]
    titles = ["image", "ground truth", *(run.variant.name for run in of_seed)]
    canvas = Canvas(figsize=(1.9 * len(titles), 2 * len(records)))
    for axes, record in zip(canvas.subplots(len(records), len(titles), squeeze=False), records, strict=True):
        image = to_long_edge(record["image"], THUMBNAIL)
        mask = overlay_labels(image, record["mask"]) if "mask" in record else None
        shown = [image, mask, *(_result(wanted, run, image, record["id"]) for run in of_seed)]
        for ax, title, picture in zip(axes, titles, shown, strict=True):
            ax.set_axis_off()
            ax.set_title(title, fontsize=7)
            if picture is not None:
                ax.imshow(picture)
    return canvas


def _split(wanted: Pictures, run: Run) -> str:
    """The name of the split that is shown: without held-out images predictions are of those of the training."""
    return run.config.data[wanted.split] or run.config.data.train_split


def _result(wanted: Pictures, run: Run, image: np.ndarray, image_id: str) -> np.ndarray | None:
    split = _split(wanted, run)
    place, record = place_of(wanted.stage, run.workdir), run.record(wanted.stage, wanted.split)
    picture = TABLE[wanted.stage].picture
    if picture is None or not place.file(image_id, split).exists():
        return None
    return picture(image, place, image_id, split, record["alpha"] if record else None)
