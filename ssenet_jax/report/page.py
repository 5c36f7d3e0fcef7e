"""report.html: what a run reached and how it looks, as one file that needs nothing else to be shown."""

import base64
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from PIL import Image

from ssenet_jax import artifacts
from ssenet_jax.report.charts import Chart, line_chart
from ssenet_jax.report.pictures import cam_picture, fit, overlay_labels, palette

THUMBNAIL = 256  # long edge of a gallery picture, in pixels
BASELINE = "infer_baseline_cams"
STAGE_TITLES = {
    BASELINE: "Baseline CAM",
    "infer_cams": "SSENet CAM",
    "refine_seeds": "CRF seeds",
    "propagate": "Random walk",
    "segment": "DeepLab",
}
LOG_TITLES = {
    "train_baseline": "Baseline classifier",
    "train_classifier": "SSENet classifier",
    "train_affinity": "AffinityNet",
    "train_segmenter": "DeepLab",
}
PICTURE_TITLES = ("Image", "Ground truth", "Baseline CAM", "SSENet CAM", "Random walk", "Prediction")


def write(workdir: Path, *, title: str, config_text: str, sources: Mapping[str, Any], ids: Sequence[str]) -> Path:
    """Writes `workdir/report.html` from what the stages left under `workdir`; what is not there is left out.

    The same inputs give the same bytes: the page carries no date.

    Args:
        workdir: of the run.
        title: heading of the page.
        config_text: shown as it is.
        sources: split -> data set, in the order in which the page shows them; the first one names the classes.
        ids: the examples of the gallery, each from the first source that has it.
    Returns:
        The path of the page.
    Raises:
        ValueError: no source was given, or none has one of the ids.
    """
    if not sources:
        raise ValueError("a report needs at least one source: got an empty `sources`")
    class_names = tuple(next(iter(sources.values())).class_names)
    metrics = _read_metrics(workdir / "metrics", tuple(sources))
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ssenet_jax.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=_percent, points=_points, over_baseline=_over_baseline)
    html = environment.get_template("report.html.j2").render(
        title=title,
        config_text=config_text,
        headline=_headline(metrics),
        splits=_by_split(metrics),
        metrics=metrics,
        class_rows=_class_rows(metrics, ("background", *class_names)),
        sweeps=_sweep_charts(metrics),
        losses=_loss_charts(workdir / "logs"),
        colors=_colors(class_names),
        gallery=_gallery(workdir, sources, ids, class_names, metrics),
    )
    path = workdir / "report.html"
    artifacts.write_text(path, html)
    return path


def _colors(class_names: Sequence[str]) -> dict[str, str]:
    """Class name -> its colour in CSS."""
    colors = palette(len(class_names) + 1)[1:]
    return {name: f"#{bytes(color).hex()}" for name, color in zip(class_names, colors, strict=True)}


def _percent(fraction: float | None) -> str:
    """A fraction as percent to one decimal; a dash where it is undefined."""
    return "–" if fraction is None else f"{100 * fraction:.1f}"


def _points(fraction: float) -> str:
    """A difference of two fractions in signed points."""
    return f"{100 * fraction:+.1f}".replace("-", "−")


def _over_baseline(gain: float) -> str:
    """A gain in words."""
    return f"{abs(100 * gain):.1f} points {'above' if gain >= 0 else 'below'} the baseline CAM"


def _read_metrics(folder: Path, splits: Sequence[str]) -> list[dict[str, Any]]:
    """Every metrics file, by split in the order given and by stage in the order of the data flow."""
    metrics = [artifacts.read_json(path) for path in sorted(folder.glob("*.json"))]
    stages = list(STAGE_TITLES)

    def order(entry: dict[str, Any]) -> tuple[int, int]:
        split, stage = entry["split"], entry["stage"]
        return (
            splits.index(split) if split in splits else len(splits),
            stages.index(stage) if stage in stages else len(stages),
        )

    metrics = sorted(metrics, key=order)
    start = {entry["split"]: entry["miou"] for entry in metrics if entry["stage"] == BASELINE}
    for entry in metrics:
        before = None if entry["stage"] == BASELINE else start.get(entry["split"])
        entry["gain"] = None if before is None else entry["miou"] - before
        entry["title"] = STAGE_TITLES.get(entry["stage"], entry["stage"])
    return metrics


def _by_split(metrics: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """split -> its metrics."""
    return {split: [m for m in metrics if m["split"] == split] for split in dict.fromkeys(m["split"] for m in metrics)}


def _headline(metrics: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The last stage's result, and the last one that shares a split with the baseline: a gain is within a split."""
    if not metrics:
        return None
    stages = list(STAGE_TITLES)
    last = max(metrics, key=lambda m: stages.index(m["stage"]) if m["stage"] in stages else -1)
    compared = last if last["gain"] is not None else None
    for entry in metrics if compared is None else ():
        compared = entry if entry["gain"] is not None else compared
    return {"last": last, "compared": compared}


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


def _loss_charts(folder: Path) -> list[Chart]:
    """The losses of each training over its steps."""
    charts = []
    for stage, title in LOG_TITLES.items():
        path = folder / f"{stage}.jsonl"
        entries = _read_log(path) if path.exists() else []
        names = dict.fromkeys(name for entry in entries for name in entry if name == "loss" or name.startswith("loss_"))
        series = {
            name: ([e["step"] for e in entries if name in e], [e[name] for e in entries if name in e]) for name in names
        }
        charts.append(line_chart(series, title=title, x_label="step", y_label="loss", log_y=True))
    return [chart for chart in charts if chart]


def _read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a log; where a resumed run wrote a step again, the later line counts."""
    entries = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue  # a run that was killed leaves a part of a line
        entries[entry["step"]] = entry
    return [entries[step] for step in sorted(entries)]


def _gallery(
    workdir: Path,
    sources: Mapping[str, Any],
    ids: Sequence[str],
    class_names: Sequence[str],
    metrics: Sequence[dict[str, Any]],
) -> list[dict[str, Any]]:
    """One group a split: the columns that any of its examples fills, and the examples."""
    places = {split: {name: i for i, name in enumerate(source.ids)} for split, source in sources.items()}
    groups: dict[str, list[dict[str, Any]]] = {split: [] for split in sources}
    for example_id in ids:
        split = next((split for split, place in places.items() if example_id in place), None)
        if split is None:
            raise ValueError(f"no example {example_id!r} in {', '.join(sources)}: take the ids from a source's .ids")
        record = sources[split][places[split][example_id]]
        alphas = {m["stage"]: m["alpha"] for m in metrics if m["split"] == split}
        present = [name for name, label in zip(class_names, record["labels"], strict=True) if label > 0]
        pictures = _pictures(workdir, split, record, alphas)
        groups[split].append({"id": example_id, "classes": present, "pictures": pictures})
    return [{"split": s, "examples": group, "columns": _columns(group)} for s, group in groups.items() if group]


def _columns(examples: Sequence[dict[str, Any]]) -> list[str]:
    """The picture titles that any of the examples has."""
    return [title for title in PICTURE_TITLES if any(title in example["pictures"] for example in examples)]


def _pictures(
    workdir: Path, split: str, record: Mapping[str, Any], alphas: Mapping[str, float | None]
) -> dict[str, str]:
    """Title -> data URI of each picture that the run has of one example."""
    name, image = record["id"], fit(record["image"], THUMBNAIL)
    pictures = {"Image": image}
    labels = {
        "Random walk": workdir / "pseudo_labels" / f"{name}.png",
        "Prediction": workdir / "predictions" / split / f"{name}.png",
    }
    cams = {
        "Baseline CAM": (workdir / "baseline" / "cams" / f"{name}.npz", BASELINE),
        "SSENet CAM": (workdir / "cams" / f"{name}.npz", "infer_cams"),
    }
    if "mask" in record:
        pictures["Ground truth"] = overlay_labels(image, record["mask"])
    for title, path in labels.items():
        if path.exists():
            pictures[title] = overlay_labels(image, artifacts.read_mask(path))
    for title, (path, stage) in cams.items():
        if path.exists():
            (cam,) = artifacts.read_arrays(path, "cam")
            pictures[title] = cam_picture(image, cam, alpha=alphas.get(stage))
    return {title: _jpeg(picture) for title, picture in pictures.items()}


def _jpeg(picture: np.ndarray) -> str:
    """A picture as a data URI."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=85, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
