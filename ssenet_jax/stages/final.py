"""What tells how a run went: metrics of every stage, the table at the end, the report."""

from ml_collections import ConfigDict

from ssenet_jax import artifacts
from ssenet_jax.report import page
from ssenet_jax.stages import score
from ssenet_jax.stages.context import Context
from ssenet_jax.stages.table import TABLE, asked_for, place_of, sections_of


def settings_of(name: str, config: ConfigDict) -> dict:
    """The settings that decide the result of a stage, its own and those of every stage before it."""
    return artifacts.result_settings(config, sections_of(name, config))


def is_complete(name: str, context: Context) -> bool:
    """Whether a stage has been completed under the settings of the config; raises for other settings."""
    return artifacts.check_manifest(context.manifest(name), settings_of(name, context.config), stage=name)


def evaluate(context: Context, name: str) -> None:
    """Scores what a stage wrote, on every split that has masks, and prints one line a figure."""
    row = TABLE[name]
    if row.score is None or row.images is None:
        return
    config_hash = artifacts.settings_hash(settings_of(name, context.config))
    subjects = score.subjects(context, place_of(name, context), row.images(context), config_hash)
    for record in row.score(context, subjects):
        artifacts.write_json(context.metrics(name, record["split"]), record)
        context.say(_line(record))


def evaluate_all(context: Context) -> None:
    """`evaluate` for all that the config asks for and that is complete."""
    if not context.is_writer:
        return
    for name in asked_for(context.config):
        if is_complete(name, context):
            evaluate(context, name)


def write_report(context: Context) -> None:
    """Writes report.html and prints where it is."""
    if not context.is_writer:
        return
    config = context.config
    ids = [image_id for source in context.sources.values() for image_id in source.ids[: config.report.examples]]
    shown = [page.Shown(name, row.title, _picture_of(name, context)) for name, row in TABLE.items()]
    path = page.write(
        context.workdir, shown, title=config.title, config_text=str(config), sources=context.sources, ids=ids
    )
    print(summary(context))
    print(f"report: {path}")


def _picture_of(name: str, context: Context):
    """From an image, its id and split, and the stage's alpha, to the picture of its result, if there is one."""
    picture, place = TABLE[name].picture, place_of(name, context)
    if picture is None:
        return None
    return lambda image, image_id, split, alpha: (
        picture(image, place, image_id, split, alpha) if place.file(image_id, split).exists() else None
    )


def summary(context: Context) -> str:
    """The table of a run: one row a stage and split, in percent."""
    records = [artifacts.read_json(path) for path in (context.workdir / "metrics").glob("*.json")]
    if not records:
        return "nothing was scored: no stage has results on a split with masks"
    order = {name: place for place, name in enumerate(TABLE)}
    records.sort(key=lambda record: (order.get(record["stage"], len(order)), record["split"]))
    rows = [f"{'stage':<22}{'split':<10}{'images':>7}{'alpha':>7}{'mIoU':>8}{'mFN':>8}{'mFP':>8}"]
    for r in records:
        alpha = "" if r["alpha"] is None else f"{r['alpha']:.2f}"
        figures = "".join(f"{_percent(r[name]):>8}" for name in ("miou", "m_fn", "m_fp"))
        rows.append(f"{r['stage']:<22}{r['split']:<10}{r['num_images']:>7}{alpha:>7}{figures}")
    return "\n".join(rows)


def _line(record: dict) -> str:
    alpha = "" if record["alpha"] is None else f" at alpha {record['alpha']:.2f}"
    where = f"{record['num_images']} images of {record['split']}{alpha}"
    return f"{record['stage']}: mIoU {_percent(record['miou'])} on {where}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"
