"""The stages that tell how it went: metrics of every stage, the table at the end, the report."""

from collections.abc import Mapping

import numpy as np

from ssenet_jax import artifacts
from ssenet_jax.report import page as report
from ssenet_jax.stages import score as evaluation
from ssenet_jax.stages.context import Context

CAM_STAGES = {"infer_baseline_cams": True, "infer_cams": False}  # stage -> of the baseline


def evaluate(context: Context, settings: Mapping[str, dict]) -> None:
    """Scores what the stages wrote, on every split that has masks, and prints one line a figure.

    Args:
        context: of the run.
        settings: by stage, those that decide its result; stages that wrote nothing yet are passed over.
    """
    if not context.is_writer:
        return
    for stage, stage_settings in settings.items():
        if artifacts.check_manifest(context.manifest(stage), stage_settings, stage=stage):
            for record in _scores(context, stage, artifacts.settings_hash(stage_settings)):
                artifacts.write_json(context.metrics(stage, record["split"]), record)
                context.say(_line(record))


def write_report(context: Context, settings: Mapping[str, dict]) -> None:
    """Writes report.html and prints where it is."""
    if not context.is_writer:
        return
    examples = context.config.report.examples
    ids = [image_id for source in context.sources.values() for image_id in source.ids[:examples]]
    path = report.write(
        context.workdir, title=context.config.title, config_text=str(context.config), sources=context.sources, ids=ids
    )
    print(summary(context))
    print(f"report: {path}")


def summary(context: Context) -> str:
    """The table of a run: one row a stage and split, in percent."""
    records = [artifacts.read_json(path) for path in (context.workdir / "metrics").glob("*.json")]
    if not records:
        return "nothing was scored: no stage has results on a split with masks"
    order = list(report.STAGE_TITLES)
    records.sort(key=lambda record: (order.index(record["stage"]), record["split"]))
    rows = [f"{'stage':<22}{'split':<10}{'images':>7}{'alpha':>7}{'mIoU':>8}{'mFN':>8}{'mFP':>8}"]
    for r in records:
        alpha = "" if r["alpha"] is None else f"{r['alpha']:.2f}"
        figures = "".join(f"{_percent(r[name]):>8}" for name in ("miou", "m_fn", "m_fp"))
        rows.append(f"{r['stage']:<22}{r['split']:<10}{r['num_images']:>7}{alpha:>7}{figures}")
    return "\n".join(rows)


def _scores(context: Context, stage: str, config_hash: str) -> list[dict]:
    data = context.config.data

    def subject(split):
        source = context.sources[split]
        return evaluation.Subject(stage, split, source, f"masks of {data.name} {split}", config_hash)

    labels_of = {
        "refine_seeds": lambda image_id: _seed_labels(context, image_id),
        "propagate": lambda image_id: artifacts.read_mask(context.pseudo_label(image_id)),
        "segment": lambda image_id: artifacts.read_mask(context.prediction(context.prediction_split, image_id)),
    }
    if stage in CAM_STAGES:
        records = _cam_scores(context, [subject(split) for split in context.sources], baseline=CAM_STAGES[stage])
    elif stage in labels_of:
        split = context.prediction_split if stage == "segment" else data.train_split
        records = [evaluation.score_labels(subject(split), labels_of[stage])]
    else:
        records = []
    return [record for record in records if record is not None]


def _seed_labels(context: Context, image_id: str) -> np.ndarray:
    """The CRF's labels at the alpha that leaves most to the background: what AffinityNet takes as an object."""
    low, classes = artifacts.read_arrays(context.seed(image_id), "low", "classes")
    return np.concatenate([[0], classes + 1])[low.argmax(-1)]


def _cam_scores(context: Context, subjects: list, *, baseline: bool) -> list[dict | None]:
    """The training split first: with ``evaluate.best_alpha`` it settles the alpha of the others too."""
    settings, records = context.config.evaluate, []
    alpha = None if settings.best_alpha and subjects[0].source.has_masks else settings.alpha
    for subject in subjects:
        path_of = lambda image_id: context.cam(image_id, baseline=baseline)  # noqa: E731
        records.append(evaluation.score_cams(subject, path_of, settings.alphas, alpha))
        if alpha is None:
            alpha = records[-1]["alpha"]
    return records


def _line(record: dict) -> str:
    alpha = "" if record["alpha"] is None else f" at alpha {record['alpha']:.2f}"
    where = f"{record['num_images']} images of {record['split']}{alpha}"
    return f"{record['stage']}: mIoU {_percent(record['miou'])} on {where}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"
