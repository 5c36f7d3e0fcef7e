"""What CAMs are like beside their mIoU: equivariance under operators, classification, and each test scale alone."""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ssenet_jax import equivariance, metrics
from ssenet_jax.artifacts import read_arrays, write_arrays
from ssenet_jax.cam import normalize_cam
from ssenet_jax.checkpoint import load_variables
from ssenet_jax.datasets.augment import centre_crop, resize_mask
from ssenet_jax.stages import apply, batching, inference
from ssenet_jax.stages.context import Context, Job
from ssenet_jax.stages.score import Subject, finite, records_of
from ssenet_jax.training import hosts

TOGETHER = 32  # images that are in memory with all their maps at once
OPERATORS = {
    "resize 0.5": equivariance.resize(0.5),
    "resize 0.3": equivariance.resize(0.3),
    "hflip": equivariance.hflip(),
    "rotate 20": equivariance.rotate(20.0),
    "translate 0.1": equivariance.translate(0.1, 0.1),
    "affine": equivariance.affine(((0.9, 0.1, 0.0), (-0.1, 0.9, 0.0))),
}


class Crops(NamedTuple):
    """What is measured on the centre crops of images, at the size of the classifier's training."""

    errors: np.ndarray  # (n, o) mean |f(Ax) - A f(x)| of each operator
    scores: np.ndarray  # (n, c) of the classes


def check_measured(context: Context) -> None:
    """Raises a ValueError when there is nothing to measure CAMs on."""
    if not any(map(len, context.measured_images().values())):
        raise ValueError("measure.images is 0, so there is nothing to measure CAMs on; set it to a number of images")


def measure_cams(context: Context, job: Job) -> None:
    """Measures the sample of held-out images; what lies in a file is what an image adds to the figures."""
    config, (training,) = context.config, job.reads
    variables = load_variables(training.folder, training.stage)
    model = context.network(training.training)
    on_crops = error_function(model)
    at_scales = [inference.cam_function(model, scales=(scale,), flip=config.cam.flip) for scale in config.cam.scales]
    waiting = _records(context, job)
    while records := list(itertools.islice(waiting, TOGETHER)):
        crops = _on_crops(context, on_crops, variables, records)
        maps: dict[str, list[np.ndarray]] = {record["id"]: [] for record in records}

        def finish(record, cam, maps=maps):
            height, width = record["image"].shape[:2]
            cam = cam[:height, :width, : int(record["labels"].sum())]
            maps[record["id"]].append(cam.astype(np.float16))

        for cams in at_scales:
            apply.run_network(config, records, batching.photos_and_classes, cams, variables, finish)
        for record, errors, scores in zip(records, *crops, strict=True):
            place, of_scales = job.writes.file(record["id"], record["split"]), np.stack(maps[record["id"]])
            write_arrays(place, errors=errors, scores=scores, maps=of_scales, labels=record["labels"])


def _records(context: Context, job: Job) -> Iterator[dict]:
    sources = context.measured_images()
    for split, todo in job.todo.items():
        for index in apply.counted(f"{job.title}, {split}", todo, len(todo)):
            hosts.leave_if_told(job.title, context.workdir)
            yield {**sources[split][index], "split": split}


def _on_crops(context: Context, function: Callable, variables: dict, records: Sequence[dict]) -> Crops:
    crop, rows = context.config.classifier.crop, batching.batch_of(context.config.inference.batch_size)
    found = []
    for start in range(0, len(records), rows):
        part = records[start : start + rows]
        part = [*part, *[part[-1]] * (rows - len(part))]
        images = np.stack([centre_crop(r["image"], crop, context.backbone.mean, context.backbone.std) for r in part])
        found.append(jax.device_get(function(variables, images, np.stack([r["labels"] for r in part]))))
    errors, scores = (np.concatenate([getattr(one, name) for one in found]) for name in Crops._fields)
    return Crops(errors[: len(records)], scores[: len(records)])


def error_function(model: Any) -> Callable:
    """Builds the measures of a batch of crops: ``f(variables, images, labels)`` -> `Crops`.

    The maps are enlarged to their image, as the regulariser's are, and normalised where the operator leaves no border;
    an error is the mean over those pixels and the present classes.
    """

    def measure(variables, images, labels):
        def f(x):
            return inference.class_maps(model, variables, x)

        transformed = [operator(images) for operator in OPERATORS.values()]
        (cam, scores), *others = _together(f, [images, *transformed])
        own = equivariance.resize_to(cam, images.shape[1:3])
        inside = jnp.ones_like(images[:1, :, :, :1])
        errors = []
        for operator, (other, _), image in zip(OPERATORS.values(), others, transformed, strict=True):
            where = operator(inside) > 0.999
            other = equivariance.resize_to(other, image.shape[1:3])
            pair = [normalize_cam(jnp.where(where, maps, 0.0), labels) for maps in (other, operator(own))]
            gap = jnp.sum(jnp.abs(pair[0] - pair[1]), axis=(1, 2, 3))
            errors.append(gap / (jnp.sum(where, dtype=jnp.float32) * jnp.maximum(labels.sum(-1), 1)))
        return Crops(jnp.stack(errors, axis=1), scores)

    return jax.jit(measure)


def _together(f: Callable, batches: Sequence[jax.Array]) -> list[inference.ClassMaps]:
    """f of each batch, those of one shape in one call."""
    found: dict[int, inference.ClassMaps] = {}
    for shape in dict.fromkeys(batch.shape for batch in batches):
        alike = [index for index, batch in enumerate(batches) if batch.shape == shape]
        results = f(jnp.concatenate([batches[index] for index in alike]))
        parts = zip(*(jnp.split(result, len(alike)) for result in results), strict=True)
        found.update({index: inference.ClassMaps(*part) for index, part in zip(alike, parts, strict=True)})
    return [found[index] for index in range(len(batches))]


def score_measures(context: Context, subjects: Sequence[Subject]) -> list[dict]:
    """The figures of the sample: "equivariance" by operator, "mean_ap" and "ap" by class, "scales" mIoU by scale."""
    return [_score(context, subject) for subject in subjects]


def _score(context: Context, subject: Subject) -> dict:
    settings, k = context.config.evaluate, len(subject.source.class_names) + 1
    alphas = settings.alphas if settings.best_alpha else (settings.alpha,)
    errors, scores, labels = [], [], []
    total: int | np.ndarray = 0
    for record in records_of(subject):
        path = subject.place.file(record["id"], subject.split)
        error, score, maps, label = read_arrays(path, "errors", "scores", "maps", "labels")
        errors += [error] if label.any() else []  # without a class there is no map to compare
        scores.append(score)
        labels.append(label)
        if "mask" in record:
            total = total + _by_scale(maps, np.flatnonzero(label), record["mask"], alphas, k)
    of_images = np.stack(labels), np.stack(scores)
    mean_errors = np.mean(errors, axis=0) if errors else np.full(len(OPERATORS), math.nan)
    names, ap = subject.source.class_names, metrics.average_precision(*of_images)
    scales = [f"{scale:g}" for scale in context.config.cam.scales]
    unknown = [[math.nan]] * len(scales)  # no image of the sample has a mask
    by_scale = unknown if isinstance(total, int) else [[metrics.mean_iou(c) for c in each] for each in total]
    return {
        "stage": subject.place.stage,
        "split": subject.split,
        "num_images": len(subject.source),
        "config_hash": subject.config_hash,
        "equivariance": dict(zip(OPERATORS, map(finite, mean_errors), strict=True)),
        "mean_ap": finite(metrics.mean_average_precision(*of_images)),
        "ap": {name: finite(value) for name, value in zip(names, ap, strict=True)},
        "scales": {scale: finite(max(miou)) for scale, miou in zip(scales, by_scale, strict=True)},
    }


def _by_scale(maps: np.ndarray, classes: np.ndarray, mask: np.ndarray, alphas: Sequence[float], k: int) -> np.ndarray:
    """(s, a, k, k) confusions of the maps (s, h, w, m) of one image at every alpha."""
    mask = resize_mask(mask, maps.shape[1:3])
    found = []
    for of_scale in maps:
        best = of_scale.max(-1, initial=0)
        winner = classes[of_scale.argmax(-1)] + 1 if len(classes) else np.zeros(best.shape, np.int64)
        found.append(metrics.alpha_confusions(best, winner, mask, alphas, k))
    return np.stack(found)
