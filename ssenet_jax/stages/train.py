"""The stages that train: the classifier with and without the second branch, AffinityNet, DeepLab."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from ml_collections import ConfigDict

from ssenet_jax import pretrained
from ssenet_jax.artifacts import read_arrays, read_mask
from ssenet_jax.checkpoint import load_variables
from ssenet_jax.datasets import Source, augment, batches
from ssenet_jax.report import pictures
from ssenet_jax.stages.context import Context
from ssenet_jax.stages.inference import cam_function, class_slots, views
from ssenet_jax.training import recipes
from ssenet_jax.training.loop import Records, fit

PICTURES = 4  # fixed examples whose CAMs go to TensorBoard


def train_baseline(context: Context) -> None:
    """The classifier of one branch."""
    _train_classifier(context, "baseline")


def train_classifier(context: Context) -> None:
    """The classifier with the scale equivariance regulariser of ``ser``."""
    _train_classifier(context, "classifier")


def _train_classifier(context: Context, name: str) -> None:
    settings, model = context.config.classifier, context.cam_net()
    only_here = {name: settings[name] for name in ("crop", "long_edge", "brightness_shift")}
    transform = augment.classifier_transform(**only_here, **_looks(context, settings))
    variables, source = _start(context, model, "weights"), context.train_source
    _fit(context, name, model, variables, source, transform, picture_fn=_cam_pictures(context))


def train_affinity(context: Context) -> None:
    """AffinityNet on pixel pairs of the seeds."""
    settings, model = context.config.affinity, context.affinity_net()
    transform = augment.affinity_transform(crop=settings.crop, **_looks(context, settings))
    source = Extended(context.train_source, lambda record: _with_seeds(context, record))
    _fit(context, "affinity", model, _start(context, model, settings.init), source, transform)


def train_segmenter(context: Context) -> None:
    """DeepLab on the pseudo labels."""
    settings, model = context.config.segmenter, context.deeplab()
    facts = {"mean": context.backbone.mean, "std": context.backbone.std}
    transform = augment.segmenter_transform(settings.crop, scale=settings.scale, flip=settings.flip, **facts)
    source = Extended(
        context.train_source, lambda record: {**record, "mask": read_mask(context.pseudo_label(record["id"]))}
    )
    _fit(context, "segmenter", model, _start(context, model, settings.init), source, transform)


class Extended:
    """A source whose records get more from the workdir."""

    def __init__(self, source: Source, extend: Callable[[dict], dict]):
        self.ids, self.class_names = source.ids, source.class_names
        self._source, self._extend = source, extend

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> dict:
        return self._extend(self._source[index])


def _with_seeds(context: Context, record: dict) -> dict:
    low, high, classes = read_arrays(context.seed(record["id"]), "low", "high", "classes")
    return {**record, "low": low, "high": high, "classes": classes}


def _looks(context: Context, settings: ConfigDict) -> dict[str, Any]:
    jitter = {name: settings[name] for name in ("flip", "brightness", "contrast", "saturation", "hue")}
    return {**jitter, "mean": context.backbone.mean, "std": context.backbone.std}


def _start(context: Context, model: nn.Module, init: str) -> dict:
    """New variables, with the backbone from a weight file or from the trained classifier.

    Raises:
        ValueError: for another ``init``, or weights that do not fit.
    """
    variables = pretrained.shapes_of(model)
    if init == "classifier":
        trained = load_variables(context.checkpoints("classifier"), "train_classifier")
        variables = {kind: {**tree, "backbone": trained[kind]["backbone"]} for kind, tree in variables.items()}
    elif init != "weights":
        raise ValueError(f"init is {init!r}; it must be 'weights' (those of init.weights) or 'classifier'")
    elif weights := context.config.init.weights:
        heads = [name for name in variables["params"] if name != "backbone"]
        variables = pretrained.load_weights(weights, model, variables, allow_missing=heads)
    return pretrained.initialise_missing(model, variables, context.config.seed)


def _fit(
    context: Context,
    name: str,
    model: nn.Module,
    variables: dict,
    source: Any,
    transform: Callable,
    picture_fn: Callable | None = None,
) -> None:
    settings = recipes.section(context.config, name)
    recipe = recipes.build(context.config, name, model, len(source))
    dataset = batches.train_batches(
        source,
        transform,
        batch_size=recipe.batch_size,
        seed=recipe.seed,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
    stage = f"train_{name}"
    records = Records(
        checkpoints=context.checkpoints(name),
        log=context.workdir / "logs" / f"{stage}.jsonl",
        tensorboard=context.workdir / "tensorboard" / stage,
        **{key: settings[key] for key in ("checkpoint_every", "keep", "log_every", "picture_every")},
    )
    mesh, shard_params = context.mesh, context.config.mesh.shard_params
    iterator = batches.iterate(dataset, 0)
    fit(recipe, variables, iterator, records, mesh=mesh, name=stage, shard_params=shard_params, picture_fn=picture_fn)


def _cam_pictures(context: Context) -> Callable[[dict], dict[str, np.ndarray]]:
    """Pictures of the single-scale CAMs of the first training images, by image id."""
    config, source = context.config, context.train_source
    function = cam_function(context.cam_net(), scales=(1.0,), flip=False)
    records = [source[index] for index in range(min(PICTURES, len(source)))]

    def picture(variables: dict, record: dict) -> np.ndarray:
        height, width = record["image"].shape[:2]
        canvas = tuple(-(-side // config.inference.bucket) * config.inference.bucket for side in (height, width))
        batch = views([record["image"]], canvas, (1.0,), config.model.backbone, 1)
        cam = function(variables, batch, *class_slots([record["labels"]], 1), canvas=canvas)
        return pictures.cam_picture(record["image"], np.asarray(cam[0, :height, :width]))

    return lambda variables: {f"cam/{record['id']}": picture(variables, record) for record in records}
