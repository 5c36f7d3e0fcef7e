"""Label Studio: tasks whose predictions are brush masks, and the labelling interface that they belong to."""

from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

import numpy as np
from jaxtyping import Bool

from ssenet_jax.artifacts import write_json, write_text
from ssenet_jax.datasets.records import IGNORE
from ssenet_jax.export.labelled import Labelled
from ssenet_jax.palette import palette

LOCAL_FILES = "/data/local-files/?d="  # how Label Studio calls the photos of its local storage

_SIZES = (3, 4, 8, 16)  # bits that the length of a run may have
_WORD = 8  # bits of a value


def write(labelled: Labelled, folder: Path) -> None:
    """Writes tasks.json, to be imported, and interface.xml, the project's labelling interface."""
    tasks = []
    for item, mask in labelled.masks():
        results = [
            _result(f"{item.id}-{label}", labelled.class_names[label - 1], mask == label)
            for label in np.setdiff1d(mask, (0, IGNORE))
        ]
        predictions = [{"model_version": "ssenet_jax", "result": results}]
        tasks.append({"data": {"image": LOCAL_FILES + quote(item.photo)}, "predictions": predictions})
    write_json(folder / "tasks.json", tasks)
    write_text(folder / "interface.xml", _interface(labelled.class_names))


def _result(name: str, class_name: str, mask: np.ndarray) -> dict[str, Any]:
    height, width = mask.shape
    return {
        "id": name,
        "type": "brushlabels",
        "from_name": "label",
        "to_name": "image",
        "original_height": height,
        "original_width": width,
        "image_rotation": 0,
        "value": {"format": "rle", "rle": list(pack(mask)), "brushlabels": [class_name]},
    }


def _interface(class_names: tuple[str, ...]) -> str:
    colours = palette(len(class_names) + 1)[1:]
    labels = "".join(
        f'    <Label value={quoteattr(name)} background="#{bytes(colour).hex()}"/>\n'
        for name, colour in zip(class_names, colours, strict=True)
    )
    brush = f'  <BrushLabels name="label" toName="image">\n{labels}  </BrushLabels>\n'
    return f'<View>\n  <Image name="image" value="$image" zoom="true"/>\n{brush}</View>\n'


def pack(mask: Bool[np.ndarray, "h w"]) -> bytes:
    """The mask as the RGBA picture that Label Studio keeps, 255 inside and 0 outside, packed as runs.

    A stream of bits: the number of values (32), the width of one less 1 (5), the four sizes of a length less 1 (4
    each); then each run: a 1, which of the sizes its length has (2), the length less 1, the value.
    """
    flat = np.repeat(mask.ravel(), 4)
    starts = np.flatnonzero(np.concatenate([[True], flat[1:] != flat[:-1]]))
    lengths = np.diff(np.concatenate([starts, [flat.size]]))
    head = [f"{flat.size:032b}{_WORD - 1:05b}", *(f"{size - 1:04b}" for size in _SIZES)]
    runs = [_run(int(length), 255 * int(flat[start])) for start, length in zip(starts, lengths, strict=True)]
    return np.packbits(np.frombuffer("".join((*head, *runs)).encode(), np.uint8) - ord("0")).tobytes()


def _run(length: int, value: int) -> str:
    longest = 1 << _SIZES[-1]
    whole, rest = divmod(length, longest)
    lengths = [longest] * whole + ([rest] if rest else [])
    return "".join(_block(length - 1, value) for length in lengths)


def _block(stored: int, value: int) -> str:
    which = next(index for index, size in enumerate(_SIZES) if stored < 1 << size)
    return f"1{which:02b}{stored:0{_SIZES[which]}b}{value:0{_WORD}b}"
