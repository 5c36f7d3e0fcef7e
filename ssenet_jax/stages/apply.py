"""The stages that apply a trained network to every image."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from ml_collections import ConfigDict

from ssenet_jax.artifacts import Cam, read_cam, write_cam, write_mask
from ssenet_jax.checkpoint import load_variables
from ssenet_jax.datasets.augment import resize_mask
from ssenet_jax.stages import batching, inference, propagation
from ssenet_jax.stages.context import Context, Job, Place
from ssenet_jax.training import hosts, recipes
from ssenet_jax.training.logs import Progress


def infer_cams(context: Context, job: Job) -> None:
    """Multi-scale CAMs of every image whose labels are known."""
    config, (training,) = context.config, job.reads
    variables = load_variables(training.folder, training.stage)
    model = context.network(training.training)
    cams = inference.cam_function(model, scales=config.cam.scales, flip=config.cam.flip, dtype=jnp.float16)

    def finish(record, cam):
        height, width = record["image"].shape[:2]
        classes = np.flatnonzero(record["labels"])
        path = job.writes.file(record["id"], record["split"])
        write_cam(path, Cam(cam[:height, :width, : len(classes)], classes))

    run_network(config, records(context, job), batching.photos_and_classes, cams, variables, finish)


def propagate(context: Context, job: Job) -> None:
    """Random walk on the training images' CAMs; the scores are kept, label maps come later."""
    config, (cams, training) = context.config, job.reads
    model, variables = walk_features(config, training)
    walk = propagation.walk_function(model, **walk_options(config))

    def finish(record, scores):
        classes = record["cam"].classes
        height, width = propagation.cells_of(record["image"].shape[:2], config.affinity.stride)
        path = job.writes.file(record["id"], record["split"])
        write_cam(path, Cam(scores[:height, :width, : len(classes)], classes))

    def extend(record):
        return {**record, "cam": read_cam(cams.file(record["id"], record["split"]))}

    run_network(config, records(context, job, extend), batching.photos_and_cams, walk, variables, finish)


def walk_features(config: ConfigDict, training: Place) -> tuple[nn.Module, dict]:
    """The network that the walk takes its features from, and its variables out of a training."""
    model, variables = recipes.walk_network(config), load_variables(training.folder, training.stage)
    if config.random_walk.features == "classifier":
        variables = {kind: {"backbone": tree["backbone"]} for kind, tree in variables.items()}
    return model, variables


def walk_options(config: ConfigDict) -> dict[str, Any]:
    """The keywords of ``propagation.walk_function`` that a config settles."""
    settings = config.random_walk
    flow = {"radius": config.affinity.radius, "beta": settings.beta, "border": settings.border}
    return {"flow": flow, **{name: settings[name] for name in ("steps", "method", "normalize", "contrast")}}


def segment(context: Context, job: Job) -> None:
    """Predictions of the segmentation network, with a CRF when ``segment.crf`` asks for it.

    Those of training images keep to the labels that the network was trained with.
    """
    (training,) = job.reads
    variables = load_variables(training.folder, training.stage)

    def finish(record, labels):
        write_mask(job.writes.file(record["id"], record["split"]), labels)

    def keep_to_labels(record):
        trained_with = record["split"] == context.config.data.train_split
        return {**record, "keep_to": record["labels"]} if trained_with else record

    todo = records(context, job, keep_to_labels)
    segment_records(context.config, context.network("segmenter"), variables, todo, finish)


def segment_records(
    config: ConfigDict, model: nn.Module, variables: Mapping, records: Iterable[Mapping], finish: Callable
) -> None:
    """Segments records, each with an "image" and the "size" that its label map is to have.

    Args:
        config: the sections segment, crf, inference and model are read.
        model, variables: the segmentation network.
        records: drawn ahead in a thread; one with "keep_to", (c,) 0 or 1, is given those classes and background only.
        finish: takes a record and its (h, w) uint8 label map; called in threads.
    """
    settings = config.segment
    probabilities = inference.probability_function(model, scales=tuple(settings.scales), flip=settings.flip)
    labels = inference.label_function(probabilities, crf_options(config) if settings.crf else None)

    def prepare(records, canvas, rows):
        photos = batching.padded_images([r["image"] for r in records], canvas, rows)
        weights = np.ones((rows, model.num_classes), np.float32)
        weights[:, 0] = settings.background_weight
        for row, record in zip(weights, records, strict=False):
            row[1:] = record.get("keep_to", 1)
        return photos, weights

    def finish_at_size(record, labels):
        height, width = record["image"].shape[:2]
        finish(record, resize_mask(labels[:height, :width], record["size"]))

    run_network(config, records, prepare, labels, variables, finish_at_size)


def crf_options(config: ConfigDict) -> dict[str, Any]:
    """The keywords of ``dense_crf`` that a config settles."""
    names = ("iterations", "sxy_gaussian", "compat_gaussian", "sxy_bilateral", "srgb", "compat_bilateral")
    return {name: config.crf[name] for name in names}


def records(context: Context, job: Job, extend: Callable[[dict], dict] = lambda record: record) -> Iterator[dict]:
    """The records still to do, read ahead in threads, with a progress line a split.

    Args:
        context, job: of the stage.
        extend: what a record gets from earlier stages; called in those threads with its "split" known.
    """
    for split, todo in job.todo.items():
        source = context.sources[split]

        def read(index, split=split, source=source):
            return extend({**source[index], "split": split})

        for record in counted(f"{job.title}, {split}", batching.read_ahead(read, todo), len(todo)):
            hosts.leave_if_told(job.title, context.workdir)
            yield record


def counted(title: str, items: Iterable[Any], total: int) -> Iterator[Any]:
    """The items, with a progress line."""
    with Progress(title, total) as progress:
        for item in items:
            yield item
            progress.advance(1)


def run_network(
    config: ConfigDict,
    records: Iterable[Mapping],
    prepare: Callable,
    function: Callable,
    variables: Mapping,
    finish: Callable,
) -> None:
    """`batching.run` in batches and buckets of the config's section ``inference``."""
    rows, bucket = batching.batch_of(config.inference.batch_size), config.inference.bucket
    batching.run(records, prepare, function, variables, finish, batch_size=rows, bucket=bucket)
