"""The pictures of the report: for each example what every stage made of it, as data URIs."""

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ssenet_jax.report.pictures import overlay_labels, to_long_edge

THUMBNAIL = 256  # long edge of a gallery picture, in pixels
GIVEN = ("Image", "Ground truth")  # the columns of the gallery that come from the data


class Shown(NamedTuple):
    """How a stage is shown.

    Attributes:
        name: in metrics and logs.
        title: as people read it.
        picture: from an image, its id, its split and the stage's alpha to a picture, or None where there is none;
            None for a stage without pictures.
    """

    name: str
    title: str
    picture: Callable[[np.ndarray, str, str, float | None], np.ndarray | None] | None


def gallery(
    stages: Sequence[Shown],
    sources: Mapping[str, Any],
    ids: Sequence[str],
    metrics: Sequence[dict[str, Any]],
    doubts: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """One group a split: the columns that any of its examples fills, and the examples."""
    places = {split: {name: i for i, name in enumerate(source.ids)} for split, source in sources.items()}
    groups: dict[str, list[dict[str, Any]]] = {split: [] for split in sources}
    for example_id in ids:
        split = next((split for split, place in places.items() if example_id in place), None)
        if split is None:
            raise ValueError(f"no example {example_id!r} in {', '.join(sources)}: take the ids from a source's .ids")
        source = sources[split]
        record = source[places[split][example_id]]
        alphas = {m["stage"]: m["alpha"] for m in metrics if m["split"] == split}
        present = [name for name, label in zip(source.class_names, record["labels"], strict=True) if label > 0]
        groups[split].append(
            {
                "id": example_id,
                "classes": present,
                "doubt": doubts.get(example_id),
                "missing": [source.class_names[index] for index in _missing(doubts.get(example_id))],
                "pictures": _pictures(stages, split, record, alphas),
            }
        )
    titles = (*GIVEN, *(stage.title for stage in stages))
    return [
        {"split": split, "examples": group, "columns": [title for title in titles if _shows(group, title)]}
        for split, group in groups.items()
        if group
    ]


def _missing(doubt: Any) -> list[int]:
    """The classes that a photo has and its mask has not."""
    return [index for index, share in doubt.coverage if share == 0] if doubt else []


def _shows(examples: Sequence[dict[str, Any]], title: str) -> bool:
    return any(title in example["pictures"] for example in examples)


def _pictures(
    stages: Sequence[Shown], split: str, record: Mapping[str, Any], alphas: Mapping[str, float | None]
) -> dict[str, str]:
    """Title -> data URI of each picture that the run has of one example."""
    image = to_long_edge(record["image"], THUMBNAIL)
    pictures = {GIVEN[0]: image}
    if "mask" in record:
        pictures[GIVEN[1]] = overlay_labels(image, record["mask"])
    for name, title, picture_of in stages:
        picture = None if picture_of is None else picture_of(image, record["id"], split, alphas.get(name))
        if picture is not None:
            pictures[title] = picture
    return {title: jpeg_uri(picture) for title, picture in pictures.items()}


def jpeg_uri(picture: np.ndarray) -> str:
    """A picture as a data URI."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=85, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
