"""The stages that apply a trained network, or the CRF, to every image."""

from collections.abc import Callable, Iterator

import jax
import numpy as np

from ssenet_jax.artifacts import read_arrays, write_arrays, write_mask
from ssenet_jax.checkpoint import load_variables
from ssenet_jax.crf import dense_crf, jax_backend, pick_backend
from ssenet_jax.datasets import Source
from ssenet_jax.stages import inference, seeds
from ssenet_jax.stages.context import Context
from ssenet_jax.training.logs import Progress


def infer_baseline_cams(context: Context) -> None:
    """Multi-scale CAMs of the classifier that was trained without the second branch."""
    _infer_cams(context, baseline=True)


def infer_cams(context: Context) -> None:
    """Multi-scale CAMs of every image whose labels are known."""
    _infer_cams(context, baseline=False)


def _infer_cams(context: Context, *, baseline: bool) -> None:
    config = context.config
    training, stage = ("baseline", "train_baseline") if baseline else ("classifier", "train_classifier")
    variables = load_variables(context.checkpoints(training), stage)
    cams = inference.cam_function(context.cam_net(), scales=config.cam.scales, flip=config.cam.flip)

    def prepare(records, canvas, rows):
        views = inference.views([r["image"] for r in records], canvas, config.cam.scales, config.model.backbone, rows)
        return views, *inference.class_slots([r["labels"] for r in records], rows)

    def finish(record, cam):
        height, width = record["image"].shape[:2]
        classes = np.flatnonzero(record["labels"])
        cam = cam[:height, :width, : len(classes)].astype(np.float16)
        write_arrays(context.cam(record["id"], baseline=baseline), cam=cam, classes=classes.astype(np.int32))

    for split, source in context.sources.items():
        if split == config.data.train_split or source.has_masks:
            todo = missing(source, lambda image_id: context.cam(image_id, baseline=baseline))
            _apply(context, f"CAMs of {split}", source, todo, prepare, cams, variables, finish)


def refine_seeds(context: Context) -> None:
    """Dense CRFs of the training images' CAMs at a low and a high alpha."""
    crf = context.config.crf
    alphas, options = (crf.alpha_low, crf.alpha_high), _crf_options(context)
    todo = missing(context.train_source, context.seed)
    what = f"seeds of {context.config.data.train_split}"
    if pick_backend(crf.backend) == "jax":
        return _refine_on_device(context, what, todo, alphas, options)
    options["backend"] = "pydensecrf"  # by name, so that a worker process does not look for an accelerator

    def calls():
        for record in _records(what, context.train_source, todo):
            cam, classes = read_arrays(context.cam(record["id"]), "cam", "classes")
            yield context.seed(record["id"]), record["image"], cam, classes, alphas, options

    seeds.in_processes(seeds.refine_to_file, calls(), crf.workers)


def _refine_on_device(context: Context, what: str, todo: list[int], alphas: tuple, options: dict) -> None:
    def prepare(records, canvas, rows):
        images, sizes = inference.padded_images([r["image"] for r in records], canvas, rows)
        cams = inference.padded_cams([r["cam"] for r in records], canvas, rows)
        present = np.zeros((rows, cams.shape[-1]), bool)
        for row, record in enumerate(records):
            present[row, : len(record["classes"])] = True
        return images, cams, sizes, present

    def refine(_, images, cams, sizes, present, canvas):
        return seeds.refine_batch(images, cams, sizes, present, alphas, options)

    def finish(record, marginals):
        height, width = record["image"].shape[:2]
        marginals = marginals[:height, :width, :, : len(record["classes"]) + 1].astype(np.float16)
        low, high = np.moveaxis(marginals, 2, 0)
        write_arrays(context.seed(record["id"]), low=low, high=high, classes=record["classes"])

    _apply(context, what, context.train_source, todo, prepare, refine, {}, finish, _with_cam(context))


def _crf_options(context: Context) -> dict:
    names = ("iterations", "sxy_gaussian", "compat_gaussian", "sxy_bilateral", "srgb", "compat_bilateral")
    return {name: context.config.crf[name] for name in names}


def _with_cam(context: Context) -> Callable[[dict], dict]:
    def extend(record):
        cam, classes = read_arrays(context.cam(record["id"]), "cam", "classes")
        return {**record, "cam": cam, "classes": classes}

    return extend


def propagate(context: Context) -> None:
    """Random walk on the training images' CAMs: the pseudo labels."""
    config = context.config
    variables = load_variables(context.checkpoints("affinity"), "train_affinity")
    walk = inference.walk_function(context.affinity_net(), radius=config.affinity.radius, **config.random_walk)

    def prepare(records, canvas, rows):
        views = inference.views([r["image"] for r in records], canvas, (1.0,), config.model.backbone, rows)
        return views, inference.padded_cams([r["cam"] for r in records], canvas, rows)

    def finish(record, slots):
        height, width = record["image"].shape[:2]
        names = np.concatenate([[0], record["classes"] + 1])
        write_mask(context.pseudo_label(record["id"]), names[slots[:height, :width]])

    todo = missing(context.train_source, context.pseudo_label)
    _apply(context, "random walk", context.train_source, todo, prepare, walk, variables, finish, _with_cam(context))


def segment(context: Context) -> None:
    """Predictions of the segmentation network, with a CRF when ``segment.crf`` asks for it."""
    config, split = context.config, context.prediction_split
    variables = load_variables(context.checkpoints("segmenter"), "train_segmenter")
    network = inference.segmenter_function(context.deeplab(), scales=config.segment.scales, flip=config.segment.flip)
    crf = pick_backend(config.crf.backend) if config.segment.crf else None

    def prepare(records, canvas, rows):
        images = [r["image"] for r in records]
        views = inference.views(images, canvas, config.segment.scales, config.model.backbone, rows)
        return (views, inference.padded_images(images, canvas, rows)[0]) if crf == "jax" else (views,)

    def refined(variables, batch, images, canvas):
        probabilities = network(variables, batch, canvas=canvas)
        return jax_backend.mean_field(images, probabilities, batch.original, **_crf_options(context))

    def finish(record, probabilities):
        height, width = record["image"].shape[:2]
        probabilities = probabilities[:height, :width]
        if crf == "pydensecrf":
            probabilities = dense_crf(record["image"], probabilities, backend=crf, **_crf_options(context))
        write_mask(context.prediction(split, record["id"]), probabilities.argmax(-1))

    source = context.sources[split]
    todo = missing(source, lambda image_id: context.prediction(split, image_id))
    function = refined if crf == "jax" else network
    _apply(context, f"predictions of {split}", source, todo, prepare, function, variables, finish)


def missing(source: Source, path_of: Callable) -> list[int]:
    """The images of this process's share without a result; the share does not depend on what others have written."""
    share = range(jax.process_index(), len(source), jax.process_count())
    return [index for index in share if not path_of(source.ids[index]).exists()]


def _records(what: str, source: Source, todo: list[int]) -> Iterator[dict]:
    """The records still to do, with a progress line."""
    with Progress(what, len(todo)) as progress:
        for index in todo:
            yield source[index]
            progress.advance(1)


def _apply(context, what, source, todo, prepare, function, variables, finish, extend=None) -> None:
    records = _records(what, source, todo)
    if extend is not None:
        records = map(extend, records)
    settings = context.config.inference
    inference.run(records, prepare, function, variables, finish, batch_size=settings.batch_size, bucket=settings.bucket)
