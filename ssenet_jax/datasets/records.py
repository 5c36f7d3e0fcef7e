"""The record that every data set yields, and how a photo or a mask becomes an array."""

import errno
import os
import stat
from pathlib import Path
from typing import Any, NotRequired, Protocol, TypedDict

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image, ImageFile, ImageOps

from ssenet_jax.datasets.formats import open_photo
from ssenet_jax.messages import shown

IGNORE = 255
SKIP_REMEDY = "put it there, or set config.data.on_error=skip to leave it out"

_DECODE_REMEDY = "replace the file, or set config.data.on_error=skip to leave it out"
_LARGEST_FILE = 1 << 30
_STRIP_PIXELS = 1 << 22  # what is converted at once, so that a large photo is not held in several modes
_PHOTOMETRIC = 262  # the tag of a TIFF that says whether zero is black or white
_DARKEST = 16  # a photo of 16 bits whose upper bytes all lie below this was meant as 8 or 12 bits
# of the machine, or of a disk in the network, which may well read the file another time
PASSING = (
    errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO, errno.EAGAIN, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN,
    errno.ECONNRESET, errno.ECONNABORTED, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH,
)  # fmt: skip


class Record(TypedDict):
    """One example; `mask` is absent where there is none.

    `size` is the photo's own height and width, and a mask has that size also where `max_side` has shrunk the image.
    Labels of zeros: the photo shows none of the classes.
    """

    id: str
    image: UInt8[np.ndarray, "h w 3"]
    size: tuple[int, int]
    labels: Float32[np.ndarray, " c"]
    mask: NotRequired[UInt8[np.ndarray, "h2 w2"]]


class Source(Protocol):
    """A split of a data set: records by position, read and decoded when asked for.

    Attributes:
        class_names: of the foreground classes, in the order of their numbers.
        ids: of the records, in order; each is fit to name a file, also where letter case makes no difference.
        photos: their files, in the same order; none where the data set draws them.
        has_masks: whether any record has a mask; some of them may still have none.
        identity: what the records are drawn from, as JSON holds it: "name" of the data set, "classes", and "lists" with
            a hash of each list's content, or the settings that drawn data depend on. No path is in it, so a copy
            elsewhere has the same.
    """

    class_names: tuple[str, ...]
    ids: list[str]
    photos: list[str]
    has_masks: bool

    @property
    def identity(self) -> dict[str, Any]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Record: ...

    def fingerprints(self) -> dict[str, str]:
        """For each id a text that changes when its labels do, or what its photo holds.

        Each file is read once; later it costs a look at the file's entry in its folder. Max_side has no part in it.
        """
        ...

    def mask_fingerprints(self) -> dict[str, str]:
        """For each id with a mask a text that changes when that does; as `fingerprints`."""
        ...


def shrink(image: UInt8[np.ndarray, "h w *c"], max_side: int) -> UInt8[np.ndarray, "h2 w2 *c"]:
    """An image whose longer side is at most `max_side` pixels; 0 leaves it as it is."""
    height, width = image.shape[:2]
    scale = max_side / max(height, width)
    if not 0 < scale < 1:
        return image
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))


class Shrunk:
    """A source whose large images are shrunk when they are read; their masks keep the photo's own size."""

    def __init__(self, source: Source, max_side: int):
        self.ids, self.class_names, self.has_masks = source.ids, source.class_names, source.has_masks
        self.photos = source.photos
        self._source, self._max_side = source, max_side

    @property
    def identity(self) -> dict[str, Any]:
        return self._source.identity

    def fingerprints(self) -> dict[str, str]:
        return self._source.fingerprints()

    def mask_fingerprints(self) -> dict[str, str]:
        return self._source.mask_fingerprints()

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Record:
        record = self._source[index]
        return {**record, "image": shrink(record["image"], self._max_side)}


def multi_hot(classes, num_classes: int) -> Float32[np.ndarray, " c"]:
    """Image-level labels: 1 for each class number in `classes`, 0 for the others."""
    labels = np.zeros(num_classes, np.float32)
    labels[np.asarray(classes, np.int64)] = 1
    return labels


def decode_image(data: bytes, name: str) -> UInt8[np.ndarray, "h w 3"]:
    """Decodes an image file to RGB, upright.

    The orientation stored in EXIF is applied, so the size can differ from the one in the file's header. Grey, palette
    and CMYK are converted, 16 bits keep the upper byte, transparency is laid over white.

    Args:
        data: the bytes of the file, in a format that `formats` names.
        name: the file's path, for the error.

    Returns:
        The image, (h,w,3) uint8.

    Raises:
        ValueError: the bytes are not a whole image of at most 128 megapixels and 16 bits a channel; says which file.
    """
    try:
        with open_photo(data) as opened:
            return _upright_rgb(opened)
    except MemoryError:
        raise
    except Exception as error:  # Pillow's readers raise whatever a damaged header leads them to
        what = f"does not decode ({error})" if data else "is missing or empty"
        raise ValueError(f"image {shown(name)} {what}; {_DECODE_REMEDY}".replace("\n", " ")) from error


def _upright_rgb(image: ImageFile.ImageFile) -> UInt8[np.ndarray, "h w 3"]:
    if image.mode in ("I", "F"):
        raise ValueError("it has 32 bits a channel; save it with 8 bits a channel")
    is_deep = ";16" in f"{image.mode} {image.tile}"
    # Pillow turns a TIFF whose white is zero at 8 bits alone
    is_negative = image.mode.startswith("I;16") and getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == 0
    ImageOps.exif_transpose(image, in_place=True)
    rgb = np.empty((image.height, image.width, 3), np.uint8)
    rows = max(1, _STRIP_PIXELS // image.width)
    for top in range(0, image.height, rows):
        bottom = min(top + rows, image.height)
        rgb[top:bottom] = np.asarray(_to_rgb(image.crop((0, top, image.width, bottom))))
    if is_deep and rgb.max() < _DARKEST:
        raise ValueError("its 16 bits a channel hold values of fewer bits, so it is all dark; save it with 8")
    return 255 - rgb if is_negative else rgb


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
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
        with open_photo(data) as opened:
            mode, shape = opened.mode, (opened.height, opened.width)
            is_one_channel = len(opened.getbands()) == 1 and mode != "F"
            mask = np.array(opened) if is_one_channel and shape == size else None
    except MemoryError:
        raise
    except Exception as error:
        what = f"does not decode ({error})" if data else "is empty"
        raise ValueError(f"mask {shown(name)} {what}; {_DECODE_REMEDY}".replace("\n", " ")) from error
    name = shown(name)
    if not is_one_channel:
        raise ValueError(f"mask {name} has mode {mode}; save one channel of class numbers (mode L or P)")
    if mask is None:
        raise ValueError(f"mask {name} is {_size(shape)} but its image is {_size(size)}; both must be equal")
    wrong = mask[(mask > num_classes) & (mask != IGNORE) | (mask < 0)]
    if wrong.size:
        raise ValueError(
            f"mask {name} holds the value {int(wrong[0])};"
            f" expected 0 (background), 1..{num_classes} or {IGNORE} (ignored)"
        )
    return mask.astype(np.uint8)


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]} x {shape[0]} pixels"


def read_bytes(path: str | Path, remedy: str = SKIP_REMEDY) -> bytes:
    """The bytes of a file; a pipe or a device is not waited for.

    Raises:
        ValueError: it is missing, no file, above 1 GiB, or cannot be read; says which, and what to do.
        OSError: the machine is short of memory or open files, or a disk fails, which says nothing of this file.
    """
    try:
        with open(path, "rb", opener=_open_at_once) as file:
            state = os.fstat(file.fileno())
            reason = "not a file" if not stat.S_ISREG(state.st_mode) else "more than 1 GiB"
            if stat.S_ISREG(state.st_mode) and state.st_size <= _LARGEST_FILE:
                return file.read()
    except OSError as error:
        if error.errno in PASSING:
            error.filename = str(path)  # a read that fails does not say of what
            raise
        reason = error.strerror or str(error)
    raise ValueError(f"cannot read {shown(path)} ({reason}); {remedy}")


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
