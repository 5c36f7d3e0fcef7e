"""How doubtful the mask of a photo is, from what the stages stored: no mask to compare with is needed."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ssenet_jax import artifacts
from ssenet_jax.artifacts import Cam
from ssenet_jax.datasets.augment import resize_mask
from ssenet_jax.stages.context import Place
from ssenet_jax.stages.labels import seed_labels
from ssenet_jax.stages.seeds import Background
from ssenet_jax.stages.table import TABLE

NEAR = 0.1  # a pixel whose two best scores are closer than this could have become either
FILE = "doubt.json"


class Doubt(NamedTuple):
    """What makes the mask of one photo doubtful; shares are of the pixels that any of the two calls an object.

    Attributes:
        doubt: 0 where nothing does, to 1; photos are sorted by it.
        undecided: share of pixels whose two best scores, the background's among them, are close.
        disagreement: share of pixels where the CRF's seed and the label map differ; None without seeds.
        coverage: (class index, share of the photo) of each of its classes; a share is 0 where none was found.
    """

    doubt: float
    undecided: float
    disagreement: float | None
    coverage: Sequence[tuple[int, float]]


def scores_place(workdir: Path) -> Place | None:
    """Where the scores of a run lie that decide its masks: the walk's, or else the CAMs; None before there are any."""
    places = (Place(name, workdir, TABLE[name].writes) for name in ("propagate", "infer_cams"))
    return next((place for place in places if any(place.folder.glob("*.npz"))), None)


def measure(scores: Cam, background: Background, seeds: np.ndarray | None, labels: np.ndarray | None) -> Doubt:
    """The doubt about one photo's mask.

    Args:
        scores: (h, w, m) of the classes that the photo has.
        background: that the classes stand against.
        seeds: label map of the CRF, of any size; None when there is none.
        labels: label map of the run, of any size; None stands for the best score of each pixel.
    """
    against = background.before(scores.maps)
    cut = scores.labels_of(against.argmax(-1))
    labels = cut if labels is None else labels
    coverage = [(int(c), float(np.mean(labels == c + 1))) for c in scores.classes]
    if not coverage:
        return Doubt(0.0, 0.0, None, coverage)
    best = np.partition(against, -2, axis=-1)[..., -2:]
    near = best[..., 1] - best[..., 0] < NEAR
    undecided = _share(near, near | (cut > 0))
    disagreement = None
    if seeds is not None:
        other = resize_mask(seeds, labels.shape)
        disagreement = _share(other != labels, (other > 0) | (labels > 0))
    missing = sum(share == 0 for _, share in coverage) / len(coverage)
    parts = [undecided, *([] if disagreement is None else [disagreement])]
    mean = sum(parts) / len(parts)
    return Doubt(max(mean, missing), undecided, disagreement, coverage)


def _share(part: np.ndarray, whole: np.ndarray) -> float:
    return float(part.sum() / max(1, whole.sum()))


def measure_all(
    workdir: Path, settings: Any, ids_by_split: Mapping[str, list[str]], advance: Callable[[int], None] = lambda n: None
) -> dict[str, Doubt]:
    """The doubt of every photo that has scores, in the order given; measured once for each state of its files.

    Args:
        workdir: of the run; keeps what was measured in `doubt.json`.
        settings: the config's section `labels`.
        ids_by_split: the photos.
        advance: told of each photo that was measured.

    Raises:
        ValueError: a damaged file; names it.
    """
    scores = scores_place(workdir)
    if scores is None:
        return {}
    background = Background(settings.background, settings.alpha)
    places = (scores, *(Place(name, workdir, TABLE[name].writes) for name in ("refine_seeds", "label")))
    path = workdir / FILE
    known = artifacts.read_json(path) if path.exists() else {}

    def entry_of(image: tuple[str, str]) -> dict:
        files = [place.file(*image) for place in places]
        state, before = [*background, *map(_state, files)], known.get(image[0])
        advance(1)
        if before and before["state"] == state:
            return before
        return {"state": state, "doubt": _measure_files(background, *files)}

    images = [(image_id, split) for split, ids in ids_by_split.items() for image_id in ids]
    images = [image for image in images if scores.file(*image).exists()]
    with ThreadPoolExecutor(2) as pool:
        found = {image[0]: entry for image, entry in zip(images, pool.map(entry_of, images), strict=True)}
    if found != known:
        artifacts.write_json(path, found)
    return {image_id: Doubt(*entry["doubt"]) for image_id, entry in found.items()}


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
        seed_labels(artifacts.read_seeds(seeds)[0]) if seeds.exists() else None,
        artifacts.read_mask(labels) if labels.exists() else None,
    )
