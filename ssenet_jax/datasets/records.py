"""The record that every data set yields, and how a photo or a mask becomes an array."""

import io
from typing import NotRequired, Protocol, TypedDict

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image, ImageOps

IGNORE = 255


class Record(TypedDict):
    """One example; `mask` is absent where there is none."""

    id: str
    image: UInt8[np.ndarray, "h w 3"]
    labels: Float32[np.ndarray, " c"]
    mask: NotRequired[UInt8[np.ndarray, "h w"]]


class Source(Protocol):
    """A split of a data set: records by position, read and decoded when asked for.

    `has_masks` says whether any record has a mask; some of them may still have none.
    """

    class_names: tuple[str, ...]
    ids: list[str]
    has_masks: bool

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Record: ...


def shrink(
    image: UInt8[np.ndarray, "h w *c"], max_side: int, *, nearest: bool = False
) -> UInt8[np.ndarray, "h2 w2 *c"]:
    """An image, or with `nearest` a mask, whose longer side is at most `max_side` pixels; 0 leaves it as it is."""
    height, width = image.shape[:2]
    scale = max_side / max(height, width)
    if not 0 < scale < 1:
        return image
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(
        Image.fromarray(image).resize(size, Image.Resampling.NEAREST if nearest else Image.Resampling.BICUBIC)
    )


class Shrunk:
    """A source whose large images, and their masks, are shrunk when they are read."""

    def __init__(self, source: Source, max_side: int):
        self.ids, self.class_names, self.has_masks = source.ids, source.class_names, source.has_masks
        self._source, self._max_side = source, max_side

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Record:
        record = {**self._source[index]}
        record["image"] = shrink(record["image"], self._max_side)
        if "mask" in record:
            record["mask"] = shrink(record["mask"], self._max_side, nearest=True)
        return record


def multi_hot(classes, num_classes: int) -> Float32[np.ndarray, " c"]:
    """Image-level labels: 1 for each class number in `classes`, 0 for the others."""
    labels = np.zeros(num_classes, np.float32)
    labels[np.asarray(classes, np.int64)] = 1
    return labels


def decode_image(data: bytes, name: str) -> UInt8[np.ndarray, "h w 3"]:
    """Decodes an image file to RGB, upright.

    The orientation stored in EXIF is applied, so the size can differ from the one in the file's header. Grey, palette
    and CMYK are converted, 16-bit grey keeps its upper byte, transparency is laid over white.

    Args:
        data: the bytes of the file, in any format that Pillow reads.
        name: the file's path, for the error.

    Returns:
        The image, (h,w,3) uint8.

    Raises:
        ValueError: the bytes are not a whole image; says which file.
    """
    try:
        with Image.open(io.BytesIO(data)) as opened:
            return np.array(_to_rgb(ImageOps.exif_transpose(opened)))
    except Exception as error:  # Pillow's readers raise whatever a damaged header leads them to
        what = f"does not decode ({error})" if data else "is missing or empty"
        remedy = "replace the file, or set config.data.on_error=skip to leave it out"
        raise ValueError(f"image {name} {what}; {remedy}".replace("\n", " ")) from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("its pixels are floating point; save it with 8 bits a channel")
    if image.has_transparency_data:
        ground = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(ground, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def decode_mask(data: bytes, name: str, *, size: tuple[int, int], num_classes: int) -> UInt8[np.ndarray, "h w"]:
    """Decodes a mask of class numbers and checks it against its image.

    Args:
        data: the bytes of a grey or palette image; a palette's indices are the class numbers.
        name: the file's path, for the error.
        size: height and width of the upright image that the mask belongs to.
        num_classes: c, the number of foreground classes.

    Returns:
        The mask, (h,w) uint8: 0 background, 1..c, 255 ignored.

    Raises:
        ValueError: the bytes are not an image, have colours, another size, or a value that is no class.
    """
    try:
        with Image.open(io.BytesIO(data)) as opened:
            mode, mask = opened.mode, np.array(opened)
    except Exception as error:
        what = f"does not decode ({error})" if data else "is empty"
        remedy = "replace the file, or set config.data.on_error=skip to leave it out"
        raise ValueError(f"mask {name} {what}; {remedy}".replace("\n", " ")) from error
    if mask.ndim != 2 or mode == "F":
        raise ValueError(f"mask {name} has mode {mode}; save one channel of class numbers (mode L or P)")
    if mask.shape != size:
        raise ValueError(f"mask {name} is {_size(mask.shape)} but its image is {_size(size)}; both must be equal")
    wrong = mask[(mask > num_classes) & (mask != IGNORE) | (mask < 0)]
    if wrong.size:
        raise ValueError(
            f"mask {name} holds the value {int(wrong[0])};"
            f" expected 0 (background), 1..{num_classes} or {IGNORE} (ignored)"
        )
    return mask.astype(np.uint8)


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]} x {shape[0]} pixels"


def read_bytes(path: str) -> bytes:
    """The bytes of a file.

    Raises:
        ValueError: it is missing or cannot be read; says which.
    """
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        reason = error.strerror or error
        remedy = "put it there, or set config.data.on_error=skip to leave it out"
        raise ValueError(f"cannot read {path} ({reason}); {remedy}") from error
