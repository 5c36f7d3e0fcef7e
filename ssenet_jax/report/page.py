"""report.html: what a run reached and how it looks, as one file that needs nothing else to be shown."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ssenet_jax import artifacts
from ssenet_jax.palette import palette
from ssenet_jax.report.charts import Chart, line_chart
from ssenet_jax.report.gallery import Shown, gallery
from ssenet_jax.report.templates import template
from ssenet_jax.training.logs import read_lines


def write(
    workdir: Path,
    stages: Sequence[Shown],
    *,
    title: str,
    config_text: str,
    sources: Mapping[str, Any],
    ids: Sequence[str],
    doubts: Mapping[str, Any],
) -> Path:
    """Writes `workdir/report.html` from what the stages left under `workdir`; what is not there is left out.

    The same inputs give the same bytes: the page carries no date.

    Args:
        workdir: of the run.
        stages: in the order of the data flow.
        title: heading of the page.
        config_text: shown as it is.
        sources: split -> data set, in the order in which the page shows them; the first one names the classes.
        ids: the examples of the gallery, each from the first source that has it.
        doubts: id -> `doubt.Doubt` of the masks of the training photos; empty before there are masks.
    Returns:
        The path of the page.
    Raises:
        ValueError: no source was given, or none has one of the ids.
    """
    if not sources:
        raise ValueError("a report needs at least one source: got an empty `sources`")
    class_names = tuple(next(iter(sources.values())).class_names)
    found = _read_metrics(workdir / "metrics", tuple(sources), stages)
    metrics, measures = ([entry for entry in found if ("miou" in entry) == scored] for scored in (True, False))
    html = template("report.html.j2").render(
        title=title,
        config_text=config_text,
        headline=_headline(metrics),
        splits=_by_split(metrics),
        metrics=metrics,
        class_rows=_class_rows(metrics, ("background", *class_names)),
        sweeps=_sweep_charts(metrics),
        measures=measures,
        validation=_validation_chart(workdir / "logs", stages),
        losses=_loss_charts(workdir / "logs", stages),
        colors=_colors(class_names),
        masks=_masks(class_names, doubts),
        doubtful=gallery(stages, sources, most_doubtful(doubts)[: len(ids)], metrics, doubts),
        gallery=gallery(stages, sources, ids, metrics, doubts),
    )
    path = workdir / "report.html"
    artifacts.write_text(path, html)
    return path


def _colors(class_names: Sequence[str]) -> dict[str, str]:
    """Class name -> its colour in CSS."""
    colors = palette(len(class_names) + 1)[1:]
    return {name: f"#{bytes(color).hex()}" for name, color in zip(class_names, colors, strict=True)}


def _read_metrics(folder: Path, splits: Sequence[str], stages: Sequence[Shown]) -> list[dict[str, Any]]:
    """Every metrics file, by split in the order given and by stage in that of the data flow.

    Each carries its `gain` over the first stage that was scored on its split, and that stage's title as `over`.
    """
    metrics = artifacts.read_metrics(folder)
    titles = {stage.name: stage.title for stage in stages}
    places = {name: place for place, name in enumerate(titles)}

    def order(entry: dict[str, Any]) -> tuple[int, int]:
        split = entry["split"]
        where = splits.index(split) if split in splits else len(splits)
        return where, places.get(entry["stage"], len(places))

    metrics = sorted(metrics, key=order)
    first: dict[str, dict[str, Any]] = {}
    for entry in metrics:
        entry["place"] = places.get(entry["stage"], len(places))
        entry["title"] = titles.get(entry["stage"], entry["stage"])
        if "miou" not in entry:
            continue
        start = first.setdefault(entry["split"], entry)
        compared = start is not entry and None not in (entry["miou"], start["miou"])
        entry["gain"] = entry["miou"] - start["miou"] if compared else None
        entry["over"] = start["title"]
    return metrics


def _by_split(metrics: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """split -> its metrics."""
    return {split: [m for m in metrics if m["split"] == split] for split in dict.fromkeys(m["split"] for m in metrics)}


def _headline(metrics: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The result that comes last in the data flow, and the last one that has a gain within its split."""
    if not metrics:
        return None
    last = max(metrics, key=lambda entry: entry["place"])
    gains = [entry for entry in metrics if entry["gain"] is not None]
    return {"last": last, "compared": last if last in gains else gains[-1] if gains else None}


def _class_rows(metrics: Sequence[dict[str, Any]], names: Sequence[str]) -> list[tuple[str, list[float | None]]]:
    """One row a class: its IoU in every stage; a class that no stage scored is left out."""
    rows = [(name, [entry["iou"].get(name) for entry in metrics]) for name in names]
    return [(name, values) for name, values in rows if any(value is not None for value in values)]


def _sweep_charts(metrics: Sequence[dict[str, Any]]) -> list[Chart]:
    """mIoU over alpha, one chart a split with one line a stage."""
    charts = []
    for split, entries in _by_split([m for m in metrics if m["alpha_sweep"]]).items():
        sweeps = {entry["title"]: entry["alpha_sweep"] for entry in entries}
        series = {
            name: (sweep["alphas"], [math.nan if v is None else 100 * v for v in sweep["miou"]])
            for name, sweep in sweeps.items()
        }
        charts.append(line_chart(series, title=split, x_label="alpha", y_label="mIoU, %", mark_best=True))
    return [chart for chart in charts if chart]


def _loss_charts(folder: Path, stages: Sequence[Shown]) -> list[Chart]:
    """The losses of each training over its steps."""
    charts = []
    for name, title, _ in stages:
        path = folder / f"{name}.jsonl"
        entries = _read_log(path) if path.exists() else []
        names = dict.fromkeys(name for entry in entries for name in entry if name == "loss" or name.startswith("loss_"))
        series = {name: _over_steps(entries, name) for name in names}
        charts.append(line_chart(series, title=title, x_label="step", y_label="loss", log_y=True))
    return [chart for chart in charts if chart]


def _validation_chart(folder: Path, stages: Sequence[Shown]) -> list[Chart]:
    """The mean average precision of each classifier on held-out images over its steps."""
    logs = {title: folder / f"{name}.jsonl" for name, title, _ in stages}
    series = {title: _over_steps(_read_log(path), "val_mean_ap", 100) for title, path in logs.items() if path.exists()}
    chart = line_chart(series, title="Classification", x_label="step", y_label="mean average precision, %")
    return [chart] if chart else []


def _over_steps(entries: Sequence[Mapping[str, Any]], name: str, factor: float = 1) -> tuple[list[int], list[float]]:
    have = [entry for entry in entries if name in entry]
    return [entry["step"] for entry in have], [factor * entry[name] for entry in have]


def _read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a log; where a resumed run wrote a step again, the later line counts."""
    entries: dict[int, dict[str, Any]] = {}
    for entry in read_lines(path):
        entries.setdefault(entry["step"], {}).update(entry)
    return [entries[step] for step in sorted(entries)]


def most_doubtful(doubts: Mapping[str, Any]) -> list[str]:
    """The ids, the least certain mask first."""
    return sorted(doubts, key=lambda image_id: (-doubts[image_id].doubt, image_id))


def _masks(class_names: Sequence[str], doubts: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the masks of all photos hold, class by class; no mask to compare with is needed for it."""
    if not doubts:
        return None
    shares: dict[int, list[float]] = {}
    for doubt in doubts.values():
        for index, share in doubt.coverage:
            shares.setdefault(index, []).append(share)
    rows = [_mask_row(class_names[index], shares[index]) for index in sorted(shares)]
    covered = [sum(share for _, share in doubt.coverage) for doubt in doubts.values()]
    parted = [doubt.disagreement for doubt in doubts.values() if doubt.disagreement is not None]
    return {
        "count": len(doubts),
        "rows": rows,
        "coverage": _mean(covered),
        "undecided": _mean([doubt.undecided for doubt in doubts.values()]),
        "contested": _mean([doubt.contested for doubt in doubts.values()]),
        "disagreement": _mean(parted),
    }


def _mask_row(name: str, shares: Sequence[float]) -> dict[str, Any]:
    found = [share for share in shares if share > 0]
    return {"name": name, "labelled": len(shares), "found": len(found), "coverage": _mean(found)}


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
