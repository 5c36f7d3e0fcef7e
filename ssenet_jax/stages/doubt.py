"""How doubtful the mask of a photo is, from what the stages stored: no mask to compare with is needed."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ssenet_jax import artifacts
from ssenet_jax.artifacts import Cam
from ssenet_jax.datasets import Source
from ssenet_jax.datasets.augment import resize_mask
from ssenet_jax.datasets.records import IGNORE
from ssenet_jax.datasets.transforms import seed_labels
from ssenet_jax.stages.context import Place
from ssenet_jax.stages.manifest import changed_images
from ssenet_jax.stages.seeds import Background
from ssenet_jax.stages.table import LABEL_NEEDS, LABELS, SEEDS, place_of
from ssenet_jax.training.logs import Progress

NEAR = 0.65  # a pixel whose second score is this share of its best or more could have become either
FILE = "doubt.json"


class Doubt(NamedTuple):
    """What makes the mask of one photo doubtful.

    Attributes:
        doubt: 0 where nothing does, to 1; photos are sorted by it. The sum of the next three, and at least the share of
            the photo's classes that were not found.
        undecided: share of the photo whose two best scores, the background's among them, are close.
        contested: share of the objects' pixels that two classes are close at.
        disagreement: share of the photo where the CRF's seeds tell something else than the mask; None without seeds.
        coverage: (class index, share of the photo) of each of its classes; a share is 0 where none was found.
    """

    doubt: float
    undecided: float
    contested: float
    disagreement: float | None
    coverage: Sequence[tuple[int, float]]


def scores_place(workdir: Path) -> Place | None:
    """Where the scores of a run lie that decide its masks: the walk's, or else the CAMs; None before there are any."""
    places = (place_of(name, workdir) for source in ("walk", "cam") for name in LABEL_NEEDS[source])
    return next((place for place in places if any(place.folder.glob("*.npz"))), None)


def changed_since(workdir: Path, split: str, source: Source) -> list[str]:
    """The ids of the photos of which a run has scores that are not of what the photo or its labels are now."""
    place, prefix = scores_place(workdir), f"{split}/"
    if place is None:
        return []
    now = {prefix + image_id: state for image_id, state in source.fingerprints().items()}
    changed = changed_images(workdir / "manifests" / f"{place.stage}.json", now)
    return [image.removeprefix(prefix) for image in changed]


def measure(scores: Cam, background: Background, seeds: np.ndarray | None, labels: np.ndarray | None) -> Doubt:
    """The doubt about one photo's mask.

    Args:
        scores: (h, w, m) of the classes that the photo has.
        background: that the classes stand against.
        seeds: label map of the CRFs, of any size, 255 where they leave it open; None when there is none.
        labels: label map of the run, of any size; None stands for the best score of each pixel.
    """
    against = background.before(scores.maps)
    cut = scores.labels_of(against.argmax(-1))
    labels = cut if labels is None else labels
    rejected = bool((labels == IGNORE).all())  # by a person: there is no mask to doubt
    coverage = [] if rejected else [(int(c), float(np.mean(labels == c + 1))) for c in scores.classes]
    if not coverage:
        return Doubt(0.0, 0.0, 0.0, None, coverage)
    objects = cut > 0
    contested = float(np.sum(objects & _close(scores.maps)) / max(1, objects.sum()))
    undecided = float(np.mean(_close(against)))
    disagreement = None if seeds is None else _disagreement(seeds, labels)
    missing = sum(share == 0 for _, share in coverage) / len(coverage)
    doubt = min(1.0, max(missing, undecided + contested + (disagreement or 0.0)))
    return Doubt(doubt, undecided, contested, disagreement, coverage)


def _close(scores: np.ndarray) -> np.ndarray:
    """Where the second of the scores (h, w, m) nearly reaches the best."""
    if scores.shape[-1] < 2:
        return np.zeros(scores.shape[:2], bool)
    best = np.partition(scores.astype(np.float32), -2, axis=-1)
    return best[..., -2] >= NEAR * best[..., -1]


def _disagreement(seeds: np.ndarray, labels: np.ndarray) -> float:
    seeds = resize_mask(seeds, labels.shape)
    return float(np.mean((seeds != labels) & (seeds != IGNORE) & (labels != IGNORE)))


def measure_all(workdir: Path, settings: Any, sources: Mapping[str, Source]) -> dict[str, Doubt]:
    """The doubt of every photo that has scores, in the order given; measured once for each state of its files.

    Args:
        workdir: of the run; keeps what was measured in `doubt.json`.
        settings: the config's section `labels`.
        sources: the photos, by split.

    Raises:
        ValueError: a damaged file; names it.
    """
    scores = scores_place(workdir)
    if scores is None:
        return {}
    background, path = Background(settings.background, settings.alpha), workdir / FILE
    places = (scores, *(place_of(name, workdir) for name in (SEEDS, LABELS)))
    images = [(image_id, split) for split, source in sources.items() for image_id in source.ids]
    files = {image[0]: [place.file(*image) for place in places] for image in images}
    states = {i: [*background, *map(_state, paths)] for i, paths in files.items() if paths[0].exists()}
    known = _known(path)
    todo = [i for i, state in states.items() if i not in known or known[i]["state"] != state]
    with Progress("how doubtful the masks are", len(todo)) as progress, ThreadPoolExecutor(2) as pool:
        for image_id, found in zip(todo, pool.map(lambda i: _measure_files(background, *files[i]), todo), strict=True):
            known[image_id] = {"state": states[image_id], "doubt": found}
            progress.advance(1)
    if todo:
        artifacts.write_json(path, known)
    return {image_id: _stored(known[image_id]["doubt"]) for image_id in states}


def _known(path: Path) -> dict[str, Any]:
    """What was measured before; what another version measured otherwise is measured anew."""
    stored = artifacts.read_json(path) if path.exists() else {}
    if not isinstance(stored, dict):
        return {}
    return {
        image_id: entry
        for image_id, entry in stored.items()
        if isinstance(entry, dict) and "state" in entry and len(entry.get("doubt", ())) == len(Doubt._fields)
    }


def _stored(values: Sequence) -> Doubt:
    doubt, undecided, contested, disagreement, coverage = values
    return Doubt(doubt, undecided, contested, disagreement, [(index, share) for index, share in coverage])


def _state(file: Path) -> list[int] | None:
    """What changes when a file is written again."""
    if not file.exists():
        return None
    status = file.stat()
    return [status.st_mtime_ns, status.st_size]


def _measure_files(background: Background, scores: Path, seeds: Path, labels: Path) -> Doubt:
    return measure(
        artifacts.read_cam(scores),
        background,
        _seeds_of(seeds) if seeds.exists() else None,
        artifacts.read_mask(labels) if labels.exists() else None,
    )


def _seeds_of(path: Path) -> np.ndarray:
    low, high = artifacts.read_seeds(path)
    return seed_labels(low.maps, high.maps, low.classes)
