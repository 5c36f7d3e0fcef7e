"""Predictions of a split beyond those of the config: VOC's test images, whose masks a server holds."""

from ml_collections import ConfigDict

from ssenet_jax import artifacts, datasets
from ssenet_jax.checkpoint import load_variables
from ssenet_jax.experiments.store import Store
from ssenet_jax.stages.apply import counted, segment_records
from ssenet_jax.stages.context import Context
from ssenet_jax.stages.table import PREDICTIONS, final_training, place_of
from ssenet_jax.training import hosts


def source_of(config: ConfigDict, split: str) -> datasets.Source | None:
    """The images of a split; None where the data have no such split, or the stages segment it already."""
    if not split or split in (config.data.train_split, config.data.eval_split):
        return None
    try:
        datasets.open_listed(config.data, split)
    except ValueError:  # there is no list of it
        return None
    return datasets.load(config.data, split)


def predict(store: Store, config: ConfigDict, split: str) -> None:
    """Writes the label maps that are missing, beside those of the stage segment.

    Raises:
        BlockingIOError: another process is at it.
    """
    source = source_of(config, split)
    if source is None:
        return
    workdir = store.place(PREDICTIONS, config)
    with artifacts.locked(workdir):
        context = Context(config, workdir)
        training, place = place_of(final_training(config), context.workdir), place_of(PREDICTIONS, context.workdir)
        todo = [index for index in range(len(source)) if not place.file(source.ids[index], split).exists()]
        if not todo:
            return

        def finish(record, labels):
            artifacts.write_mask(place.file(record["id"], split), labels)

        def records():
            for index in counted(f"predictions of {split}", todo, len(todo)):
                hosts.leave_if_told(f"the predictions of {split}", workdir)
                yield source[index]

        variables = load_variables(training.folder, training.stage)
        segment_records(config, context.network("segmenter"), variables, records(), finish)
