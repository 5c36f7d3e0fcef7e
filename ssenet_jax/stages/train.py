"""The stages that train: the classifier with and without a regulariser, AffinityNet, DeepLab."""

import contextlib
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from ssenet_jax import pretrained
from ssenet_jax.artifacts import read_mask, read_seeds
from ssenet_jax.checkpoint import load_variables
from ssenet_jax.datasets import Record, Source, augment, batches, transforms
from ssenet_jax.metrics import mean_average_precision
from ssenet_jax.report import pictures
from ssenet_jax.stages.batching import batch_of, bucket_of, class_slots, padded_images
from ssenet_jax.stages.context import Context, Job
from ssenet_jax.stages.inference import cam_function, class_maps
from ssenet_jax.training import recipes
from ssenet_jax.training.loop import NO_LOOKS, Looks, Records, fit
from ssenet_jax.training.optim import split_trainable

PICTURES = 4  # fixed examples whose CAMs go to TensorBoard


class Examples(NamedTuple):
    """What a training learns from: records, and the transform that makes examples of them."""

    source: Any
    transform: transforms.Transform


def check(context: Context, training: str) -> None:
    """Raises the ValueError with which a training would refuse its settings when its turn comes; computes nothing."""
    model, source = context.network(training), context.train_source
    recipe, shapes = recipes.build(context.config, training, model, len(source)), pretrained.shapes_of(model)
    split_trainable(shapes["params"], recipe.groups)
    batch = recipes.batch_shapes(context.config, training, len(source.class_names), recipe.batch_size)

    for loss_fn in recipe.losses.forms:
        arguments = shapes["params"], shapes["batch_stats"], batch, jax.random.key(0), jnp.int32(0)
        jax.eval_shape(loss_fn, *arguments)


def train_baseline(context: Context, job: Job) -> None:
    """The classifier of one branch."""
    _train_classifier(context, job, "baseline")


def train_classifier(context: Context, job: Job) -> None:
    """The classifier with the regulariser of its CAM that ``classifier.regulariser`` names."""
    _train_classifier(context, job, "classifier")


def _train_classifier(context: Context, job: Job, training: str) -> None:
    settings = context.config.classifier
    only_here = {name: settings[name] for name in ("crop", "long_edge", "brightness_shift")}
    transform = transforms.classifier_transform(**only_here, **_looks(context, settings))
    examples = Examples(context.train_source, transform)
    every = recipes.section(context.config, training).picture_every
    looks = Looks(every, _cam_pictures(context, training), _validation(context, training))
    _fit(context, job, training, examples, looks)


def train_affinity(context: Context, job: Job) -> None:
    """AffinityNet on pixel pairs of the seeds."""
    settings, seeds = context.config.affinity, job.reads[0]
    split = context.config.data.train_split

    def with_seeds(record):
        low, high = read_seeds(seeds.file(record["id"], split))
        return {**record, "low": low.maps, "high": high.maps, "classes": low.classes}

    transform = transforms.affinity_transform(crop=settings.crop, stride=settings.stride, **_looks(context, settings))
    examples = Examples(Extended(context.train_source, with_seeds), transform)
    _fit(context, job, "affinity", examples)


def train_segmenter(context: Context, job: Job) -> None:
    """DeepLab on the label maps of the training images."""
    settings, labels = context.config.segmenter, job.reads[0]
    split, num_classes = context.config.data.train_split, len(context.train_source.class_names)

    def with_label(record):
        label = read_mask(labels.file(record["id"], split), num_classes, record["size"])
        return {**record, "mask": augment.resize_mask(label, record["image"].shape[:2])}

    facts = {"mean": context.backbone.mean, "std": context.backbone.std}
    transform = transforms.segmenter_transform(settings.crop, scale=settings.scale, flip=settings.flip, **facts)
    _fit(context, job, "segmenter", Examples(Extended(context.train_source, with_label), transform))


class Extended:
    """A source whose records get more from the workdir."""

    def __init__(self, source: Source, extend: Callable[[Record], dict]):
        self.ids, self.class_names = source.ids, source.class_names
        self._source, self._extend = source, extend

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> dict:
        return self._extend(self._source[index])


def _looks(context: Context, settings: ConfigDict) -> dict[str, Any]:
    jitter = {name: settings[name] for name in ("flip", "brightness", "contrast", "saturation", "hue")}
    return {**jitter, "mean": context.backbone.mean, "std": context.backbone.std}


def start_of(context: Context, job: Job, model: nn.Module, training: str) -> dict:
    """New variables, with the backbone from a weight file or a trained classifier, or all that the baseline has.

    Raises:
        ValueError: for weights that do not fit.
    """
    variables = pretrained.shapes_of(model)
    if (start := recipes.starts_from(context.config, training)) != "weights":
        trained = load_variables(job.reads[-1].folder, job.reads[-1].stage)
        names = ["backbone"] if start == "classifier" else _in_common(trained["params"], variables["params"])
        taken = {kind: {name: tree[name] for name in names if name in tree} for kind, tree in trained.items()}
        variables = {kind: {**tree, **taken[kind]} for kind, tree in variables.items()}
    elif weights := context.config.init.weights:
        heads = [name for name in variables["params"] if name != "backbone"]
        variables = pretrained.load_weights(weights, model, variables, allow_missing=heads)
    return pretrained.initialise_missing(model, variables, context.config.seed)


def _in_common(params: dict, others: dict) -> list[str]:
    """The modules that two networks have with the same shapes: SEAM's last layer has the background as a class."""

    def shapes(module: dict) -> dict:
        return {path: leaf.shape for path, leaf in flatten_dict(module).items()}

    return [name for name in params if name in others and shapes(params[name]) == shapes(others[name])]


def _fit(
    context: Context,
    job: Job,
    training: str,
    examples: Examples,
    looks: Looks = NO_LOOKS,
) -> None:
    model = context.network(training)
    settings = recipes.section(context.config, training)
    recipe = recipes.build(context.config, training, model, len(examples.source))
    dataset = batches.train_batches(
        *examples,
        batch_size=recipe.batch_size,
        seed=recipe.seed,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
    stage, mesh = job.writes.stage, context.mesh_of(training)
    if mesh.size < context.mesh.size:
        context.say(f"{stage}: a batch of {recipe.batch_size} on {mesh.size} of {context.mesh.size} devices")
    records = Records(
        name=stage,
        checkpoints=job.writes.folder,
        log=context.log(stage),
        tensorboard=context.workdir / "tensorboard" / stage,
        **{key: settings[key] for key in ("checkpoint_every", "keep", "log_every")},
    )
    with contextlib.closing(batches.iterate(dataset, 0, workers=context.config.data.workers)) as ahead:
        fit(
            recipe,
            start_of(context, job, model, training),
            ahead,
            records,
            mesh=mesh,
            shard_params=context.config.mesh.shard_params,
            looks=looks,
        )


def _validation(context: Context, training: str) -> Callable[[dict], dict[str, float]] | None:
    """Mean average precision on centre crops of some held-out images; None where none are held out."""
    source = context.validation_images()
    if not len(source):
        return None
    model, rows = context.network(training), batch_of(context.config.inference.batch_size)
    crop, facts = context.config.classifier.crop, (context.backbone.mean, context.backbone.std)
    scores_of = jax.jit(lambda variables, images: class_maps(model, variables, images).scores)

    def validate(variables: dict) -> dict[str, float]:
        labels, scores = [], []
        for start in range(0, len(source), rows):
            records = [source[index] for index in range(start, min(start + rows, len(source)))]
            images = [augment.centre_crop(record["image"], crop, *facts) for record in records]
            images += images[-1:] * (rows - len(images))  # one shape is compiled
            scores.append(np.asarray(scores_of(variables, np.stack(images)))[: len(records)])
            labels += [record["labels"] for record in records]
        mean = mean_average_precision(np.stack(labels), np.concatenate(scores))
        return {"val_mean_ap": mean} if math.isfinite(mean) else {}

    return validate


def _cam_pictures(context: Context, training: str) -> Callable[[dict], dict[str, np.ndarray]]:
    """Pictures of the single-scale CAMs of the first training images, by image id."""
    config, source = context.config, context.train_source
    function = cam_function(context.network(training), scales=(1.0,), flip=False)
    records = [source[index] for index in range(min(PICTURES, len(source)))]

    def picture(variables: dict, record: Record) -> np.ndarray:
        height, width = record["image"].shape[:2]
        canvas = bucket_of(height, width, config.inference.bucket)
        photos = padded_images([record["image"]], canvas, 1)
        cam = function(variables, photos, *class_slots([record["labels"]], 1))
        return pictures.cam_picture(record["image"], np.asarray(cam[0, :height, :width]))

    return lambda variables: {f"cam/{record['id']}": picture(variables, record) for record in records}
