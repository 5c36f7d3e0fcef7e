"""The labels that the results in a workdir can give: every source, walk, background and CRF, scored on a sample.

One pass over the sample scores all backgrounds without a CRF, since each is a threshold on the best class's score. A
second one runs the CRF on the backgrounds around the best of each source.
"""

import functools
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict
from scipy.optimize import brentq

from ssenet_jax import cores, metrics
from ssenet_jax.artifacts import Cam, read_arrays, read_cam, read_seeds, write_arrays
from ssenet_jax.datasets.augment import resize_mask
from ssenet_jax.stages import apply, batching, final, labels, propagation, seeds
from ssenet_jax.stages.context import Context, Place
from ssenet_jax.stages.manifest import settings_hash
from ssenet_jax.stages.score import best_of
from ssenet_jax.stages.seeds import Background
from ssenet_jax.stages.table import CAMS, SEEDS, TABLE, TRAIN_CLASSIFIER, place_of, walk_training

BETAS = (2.0, 4.0, 8.0, 16.0)
STEPS = (1, 4, 16, 64, 256)
WALK_KEYS = ("beta", "steps", "normalize", "contrast")  # of the config's section random_walk
CONTRASTS = (0.0, 0.2, 0.4)  # shares of the contrast, in stretched maps
POWERS = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0)
AROUND = (0.5, 0.75, 1.0, 1.25)  # a CRF is tried at these times the threshold that is best without one
is_there = functools.partial(final.is_complete, as_need=True)


def _needs(config: ConfigDict) -> dict[str, tuple[str, ...]]:
    """The stages that each source of labels takes."""
    return {"cam": (CAMS,), "seeds": (SEEDS,), "walk": (CAMS, walk_training(config))}


class Scores(NamedTuple):
    """Where scores come from; of a walk also its `beta` and `steps`, whether its maps are stretched, and the share of
    the contrast to the border in them."""

    source: str
    beta: float | None = None
    steps: int | None = None
    normalize: bool = False
    contrast: float = 0.0


class Choice(NamedTuple):
    """One way to make labels; seeds have been through their CRF already, with the background they were made with."""

    scores: Scores
    background: Background
    crf: bool

    def overrides(self) -> dict[str, Any]:
        """The keys of the config that take it."""
        seeds = self.scores.source == "seeds"
        keys: dict[str, Any] = {"labels.source": self.scores.source, "labels.crf": self.crf and not seeds}
        if not seeds:
            keys |= {"labels.background": self.background.kind, "labels.alpha": self.background.alpha}
        if self.scores.beta is not None:
            keys |= {f"random_walk.{name}": getattr(self.scores, name) for name in WALK_KEYS}
        return keys


class Found(NamedTuple):
    """A choice and its figures on the sample, in fractions."""

    choice: Choice
    miou: float
    m_fn: float
    m_fp: float


class Sample(NamedTuple):
    """Training images that have masks."""

    split: str
    records: Sequence[dict]
    num_classes: int  # the background included


def take_sample(context: Context, count: int, results: Sequence[Place] = ()) -> Sample:
    """Up to `count` training images with masks and with all of some results, the same ones each time.

    Raises:
        ValueError: none has a mask.
    """
    source, split = context.train_source, context.config.data.train_split
    order = np.random.default_rng(0).permutation(len(source)) if source.has_masks else ()
    records: list[dict] = []
    for index in order:
        record = source[int(index)]
        if "mask" in record and all(place.file(record["id"], split).exists() for place in results):
            records.append({**record, "split": split})
        if len(records) == count:
            break
    if not records:
        raise ValueError(f"no image of {split} has a mask to score labels against; give masks to some of them")
    return Sample(split, records, len(source.class_names) + 1)


def search(context: Context, count: int) -> list[Found]:
    """Scores what the complete stages of a workdir allow, the best first.

    Args:
        context: of the workdir.
        count: images of the sample.

    Raises:
        ValueError: no masks, no CAMs, or results of other settings than the config's.
    """
    needed = _needs(context.config)
    there = [name for name, needs in needed.items() if all(is_there(need, context) for need in needs)]
    if "cam" not in there:
        raise ValueError(f"{context.workdir} has no CAMs to make labels from; run --stages={TRAIN_CLASSIFIER},{CAMS}")
    results = [place_of(need, context.workdir) for name in there for need in needed[name] if TABLE[need].images]
    sample = take_sample(context, count, results)
    context.say(f"{len(sample.records)} images of {sample.split}; sources: {', '.join(there)}")
    readers = _readers(context, _walk(context, sample) if "walk" in there else None)
    found = _without_crf(context, sample, readers)
    without = list(found)
    for kind in (("cam", False), ("walk", False), ("walk", True)):
        of_kind = (one for one in without if (one.choice.scores.source, one.choice.scores.normalize) == kind)
        best = max(of_kind, key=_by_miou, default=None)
        if best is not None:
            found += _with_crf(context, sample, best.choice, readers[best.choice.scores])
    if "seeds" in there:
        found.append(_seeds(context, sample))
    return sorted(found, key=_by_miou, reverse=True)


def _by_miou(found: Found) -> float:
    return found.miou if math.isfinite(found.miou) else -1.0


def threshold_of(background: Background) -> float:
    """The score of the best class above which a pixel is not background."""
    if background.kind == "constant":
        return background.alpha
    return brentq(lambda score: score - (1 - score) ** background.alpha, 0.0, 1.0)


def backgrounds_around(best: Background) -> list[Background]:
    """Constants and powers that begin about where the best one without a CRF does."""
    threshold = max(threshold_of(best), 0.01)  # of a threshold of 0 there is no power
    thresholds = [min(factor * threshold, 0.95) for factor in AROUND]
    constants = [Background("constant", float(f"{threshold:.2g}")) for threshold in thresholds]
    powers = [Background("power", float(f"{power_at(threshold):.2g}")) for threshold in thresholds]
    return list(dict.fromkeys([*constants, *powers]))


def power_at(threshold: float) -> float:
    """The alpha at which the background (1 - score) ** alpha begins at a threshold; the inverse of `threshold_of`."""
    return math.log(threshold) / math.log(1 - threshold)


def _walk(context: Context, sample: Sample) -> Place:
    """The walks of the sample at every beta and number of steps; what an earlier search left is not made again."""
    config = context.config
    betas, steps = _grid(context)
    settings = config.random_walk
    flow = {"radius": config.affinity.radius, "border": settings.border}
    of = [*_made_of(context), settings.features, flow, settings.method, betas, steps]
    place = Place("tune", context.workdir, f"tune/walks-{settings_hash({'of': of})}/{{id}}.npz")
    cams, training = place_of(CAMS, context.workdir), place_of(walk_training(config), context.workdir)
    model, variables = apply.walk_features(config, training)
    walks = propagation.walks_function(model, flow=flow, betas=betas, steps=steps, method=settings.method)

    def finish(record, walked):
        classes = record["cam"].classes
        height, width = propagation.cells_of(record["image"].shape[:2], config.affinity.stride)
        slots = [*range(len(classes)), -1]  # the contrast comes last
        maps = walked[:, :, :height, :width, slots].astype(np.float16)
        write_arrays(place.file(record["id"], sample.split), walks=maps, classes=classes.astype(np.int32))

    todo = [r for r in sample.records if not place.file(r["id"], sample.split).exists()]
    if todo:
        counted = apply.counted("random walks", todo, len(todo))
        with_cams = ({**r, "cam": read_cam(cams.file(r["id"], sample.split))} for r in counted)
        apply.run_network(config, with_cams, batching.photos_and_cams, walks, variables, finish)
    return place


def _made_of(context: Context) -> list[dict]:
    """The settings of the results that scores are read from."""
    read = _needs(context.config)["walk"]
    return [final.settings_of(name, context.config) for name in read if is_there(name, context)]


def _grid(context: Context) -> tuple[tuple[float, ...], tuple[int, ...]]:
    """Betas and numbers of steps, those of the config among them."""
    walk = context.config.random_walk
    return tuple(sorted({*BETAS, walk.beta})), tuple(sorted({*STEPS, max(1, walk.steps)}))


Reader = Callable[[dict], Cam]  # of a record, its scores at the image's size


def _readers(context: Context, walks: Place | None) -> dict[Scores, Reader]:
    """How to read the scores of a record, by where they come from."""
    cams = place_of(CAMS, context.workdir)
    stride = context.config.affinity.stride
    readers: dict[Scores, Reader] = {Scores("cam"): lambda record: read_cam(cams.file(record["id"], record["split"]))}
    if walks is None:
        return readers

    def reader(place, b, s, scores):
        def read(record):
            walked, classes = read_arrays(place.file(record["id"], record["split"]), "walks", "classes")
            maps = walked[b, s].astype(np.float32)
            if scores.normalize:
                maps = np.asarray(propagation.stretched(maps, np.ones(maps.shape[:2], bool)))
            maps = propagation.mix_contrast(maps, scores.contrast)
            return labels.walk_scores(Cam(maps, classes), record["image"].shape[:2], stride)

        return read

    betas, numbers = _grid(context)
    contrasts = sorted({*CONTRASTS, context.config.random_walk.contrast})
    for (b, beta), (s, steps) in itertools.product(enumerate(betas), enumerate(numbers)):
        for scores in (Scores("walk", beta, steps), *(Scores("walk", beta, steps, True, share) for share in contrasts)):
            readers[scores] = reader(walks, b, s, scores)
    return readers


def _without_crf(context: Context, sample: Sample, readers: Mapping[Scores, Reader]) -> list[Found]:
    """The best background for each kind of scores, in one pass over the sample."""
    backgrounds = [Background("constant", float(alpha)) for alpha in context.config.evaluate.alphas]
    backgrounds += [Background("power", alpha) for alpha in POWERS]
    thresholds, k = [threshold_of(background) for background in backgrounds], sample.num_classes

    def confusions(record):
        each = []
        for read in readers.values():
            best, winner = best_of(read(record))
            mask = resize_mask(record["mask"], best.shape)
            each.append(metrics.alpha_confusions(best, winner, mask, thresholds, k))
        return np.stack(each)

    total = _sum_over(sample, confusions, "labels without a CRF")
    found = []
    for scores, of_each in zip(readers, total, strict=True):
        tried = [_found(Choice(scores, one, False), of_one) for one, of_one in zip(backgrounds, of_each, strict=True)]
        found.append(max(tried, key=_by_miou))
    return found


def _with_crf(context: Context, sample: Sample, best: Choice, read: Reader) -> list[Found]:
    """A CRF on one kind of scores, against backgrounds around the one that is best without it."""
    backgrounds, scores = backgrounds_around(best.background), best.scores
    of = [*_made_of(context), context.config.random_walk.to_dict(), scores, context.config.crf.to_dict(), backgrounds]
    place = Place("tune", context.workdir, f"tune/labels-{settings_hash({'of': of})}/{{id}}.npz")
    todo = [record for record in sample.records if not place.file(record["id"], sample.split).exists()]
    counted = apply.counted(f"CRF on {scores.source}", todo, len(todo))
    with_scores = ({**record, "cam": read(record)} for record in counted)
    labels.refine_records(context, place, with_scores, backgrounds, seeds.write_label_stack)

    def confusions(record):
        (stack,) = read_arrays(place.file(record["id"], sample.split), "labels")
        return np.stack([_confusion(record, one, sample.num_classes) for one in stack])

    total = _sum_over(sample, confusions)
    return [_found(Choice(scores, one, True), of_one) for one, of_one in zip(backgrounds, total, strict=True)]


def _seeds(context: Context, sample: Sample) -> Found:
    """The seeds as they lie: CAMs through a CRF against the background of `crf.alpha_low`."""
    place = place_of(SEEDS, context.workdir)

    def confusion(record):
        low, _ = read_seeds(place.file(record["id"], sample.split))
        return _confusion(record, labels.seed_labels(low), sample.num_classes)

    background = Background("power", context.config.crf.alpha_low)
    return _found(Choice(Scores("seeds"), background, True), _sum_over(sample, confusion))


def _confusion(record: dict, label: np.ndarray, num_classes: int) -> np.ndarray:
    return metrics.confusion_matrix(resize_mask(record["mask"], label.shape), label, num_classes)


def _sum_over(sample: Sample, counts_of: Callable[[dict], np.ndarray], title: str = "") -> np.ndarray:
    """The sum of what a function gives for each record, in threads; its progress is shown under a title."""
    total: Any = 0
    with ThreadPoolExecutor(cores.available()) as pool:
        each = pool.map(counts_of, sample.records)
        for counts in apply.counted(title, each, len(sample.records)) if title else each:
            total = total + counts
    return total


def _found(choice: Choice, confusion: np.ndarray) -> Found:
    return Found(choice, metrics.mean_iou(confusion), metrics.m_fn(confusion), metrics.m_fp(confusion))
