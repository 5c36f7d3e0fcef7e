"""What stages hand to each other, as files under one workdir.

Every file is written under a temporary name and renamed, so a file that exists is whole.
"""

import contextlib
import fcntl
import io
import json
import os
import re
import uuid
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ssenet_jax.arrays import read_npz
from ssenet_jax.palette import indexed

_LARGEST = 2 << 30  # bytes of arrays that may be packed at any ratio: maps of large photos are mostly zeros
_IGNORE = 255  # pixels of a label map that are left out

_PARTIAL = re.compile(r"\.[0-9a-f]{32}\.ssenet-part")
_AGAIN = "delete it and run the stage that writes it again"
_SCORED = ("num_images", "alpha", "miou", "m_fn", "m_fp")  # what a metrics file holds of a stage's masks
_MEASURED = ("mean_ap", "equivariance")  # and of what was measured without masks


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a temporary path beside ``path`` and renames it to ``path`` when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # a short name of its own: that of the file may be as long as the file system allows, and the processes that share
    # the folder may have one number, on hosts or in containers of their own
    temporary = path.with_name(f".{uuid.uuid4().hex}.ssenet-part")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        if error.filename is None:  # a full disk does not say what it had no room for
            error.filename = str(path)
        raise
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def remove_partial(workdir: Path, folders: Iterable[Path]) -> None:
    """Removes the temporary files of runs that were killed; to be called while no other run writes there.

    Args:
        workdir: looked at without what lies below it, which may be the user's.
        folders: those of the stages, looked at with all below them.
    """
    found = [path for folder in folders for path in folder.rglob("*.ssenet-part")]
    for path in (*workdir.glob("*.ssenet-part"), *found):
        if _PARTIAL.fullmatch(path.name) and path.is_file() and not path.is_symlink():
            path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        # paths that are not UTF-8, or read under a locale that is not, come as surrogates and go as the bytes they were
        temporary.write_text(text, encoding="utf-8", errors="surrogateescape")


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=1) + "\n")


def read_json(path: Path) -> Any:
    """Raises ``ValueError`` that names the file when it is not JSON."""
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not readable JSON ({error}); delete it and run the stage again") from error


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """What the stages of a workdir have scored or measured, in the order of the files' names.

    Raises:
        ValueError: a file is none that a stage has written.
    """
    return [_metrics(path) for path in sorted(folder.glob("*.json"))]


def _metrics(path: Path) -> dict[str, Any]:
    table = read_json(path)
    kind = _MEASURED if isinstance(table, dict) and _MEASURED[0] in table else _SCORED
    lacking = [key for key in ("stage", "split", *kind) if not isinstance(table, dict) or key not in table]
    if lacking:
        raise ValueError(f"{path} has no entry {lacking[0]!r}, so no stage has written it; delete it")
    return table


def write_arrays(path: Path, *, packed: bool = True, **arrays: np.ndarray) -> None:
    """Writes a .npz, which numpy alone reads back.

    Args:
        path: of the file.
        packed: compressed, at the level that takes a quarter of the time of numpy's for a tenth more bytes.
        arrays: by name.
    """
    method, level = (zipfile.ZIP_DEFLATED, 1) if packed else (zipfile.ZIP_STORED, None)
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w", method, compresslevel=level) as file:
        for name, array in arrays.items():
            with file.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def read_arrays(path: Path, *names: str) -> tuple[np.ndarray, ...]:
    """Reads the named arrays of a .npz.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: it cannot be read just now.
        ValueError: the file is damaged or lacks one of the arrays.
    """
    try:
        return tuple(read_npz(path, *names, free_bytes=_LARGEST).values())
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is missing; run the stage that writes it first") from None
    except ValueError as error:
        raise ValueError(f"{error}; {_AGAIN}") from error


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is missing; run the stage that writes it first") from None


def _cause(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


class Cam(NamedTuple):
    """Scores of the classes that an image has: CAMs, seeds, walks.

    Attributes:
        maps: (h, w, m) scores in [0, 1] of the classes, or (h, w, m + 1) where the background comes first.
        classes: (m,) int32 class indices, the first class of the data set being 0.
    """

    maps: np.ndarray
    classes: np.ndarray

    def labels_of(self, slots: np.ndarray) -> np.ndarray:
        """The label, 0 for the background, of slots: 0 stands for the background, j + 1 for the j-th of the classes."""
        return np.concatenate([[0], self.classes + 1]).astype(np.uint8)[slots]


def write_cam(path: Path, cam: Cam) -> None:
    """Writes a CAM or walk with its scores as float16; packing would save a quarter and take most of the time."""
    write_arrays(path, packed=False, cam=cam.maps.astype(np.float16), classes=cam.classes.astype(np.int32))


def read_cam(path: Path) -> Cam:
    """Reads what `write_cam` wrote; raises as `read_arrays`."""
    return Cam(*read_arrays(path, "cam", "classes"))


def read_seeds(path: Path) -> tuple[Cam, Cam]:
    """Reads an image's marginals at the low and the high alpha, background first; raises as `read_arrays`."""
    low, high, classes = read_arrays(path, "low", "high", "classes")
    return Cam(low, classes), Cam(high, classes)


def write_mask(path: Path, mask: np.ndarray, *, origin: str = "") -> None:
    """Writes (h, w) class indices as a PNG with the palette of VOC, and a word for `mask_origin` on its origin."""
    info = PngInfo()
    if origin:
        info.add_text("Source", origin)
    with replacing(path) as temporary:
        indexed(mask.astype(np.uint8)).save(temporary, format="png", pnginfo=info)


def read_mask(path: Path, num_classes: int | None = None, size: tuple[int, int] | None = None) -> np.ndarray:
    """Reads a PNG of class indices, grey or with a palette: (h, w) uint8.

    Args:
        path: of the PNG.
        num_classes: foreground classes; larger indices than this, but for 255, are refused.
        size: height and width that it must have.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: it cannot be read just now.
        ValueError: the file is damaged, or no label map of this data set.
    """
    data = _bytes_of(path)
    try:
        with Image.open(io.BytesIO(data)) as image:
            if len(image.getbands()) > 1 or image.mode == "F":
                raise ValueError(f"its mode is {image.mode}, a label map has one channel of whole numbers")
            if size is not None and image.size != (size[1], size[0]):
                raise ValueError(f"it is {image.width} x {image.height} pixels, expected {size[1]} x {size[0]}")
            mask = np.array(image)  # of 1 to 16 bits, as a person's own tools may have saved it
            if (strange := mask[(mask < 0) | (mask > _IGNORE)]).size:
                raise ValueError(f"it holds the class {strange[0]}, the largest is {_IGNORE}")
            mask = mask.astype(np.uint8)
    except MemoryError:
        raise
    except Exception as error:  # the bytes are read, so whatever comes of them is theirs
        raise ValueError(f"{path} is damaged ({_cause(error)}); {_AGAIN}") from error
    if num_classes is not None and (strange := mask[(mask > num_classes) & (mask != _IGNORE)]).size:
        raise ValueError(f"{path} holds the class {strange[0]}, the largest is {num_classes}; {_AGAIN}")
    return mask


def mask_origin(path: Path) -> str:
    """What `write_mask` was told of the origin of a mask; empty where it was told nothing, or is no PNG."""
    try:
        with Image.open(path) as image:
            return image.info.get("Source", "")
    except OSError:
        return ""


def flatten(config: Mapping, prefix: str = "") -> dict[str, Any]:
    """Nested settings as one level of dotted keys, values as JSON gives them back."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) or hasattr(value, "items"):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = json.loads(json.dumps(value))
    return flat


@contextlib.contextmanager
def locked(workdir: Path, process_index: int = 0) -> Iterator[None]:
    """Holds the workdir for one run; the lock goes with the process, however it ends.

    Args:
        workdir: made when absent.
        process_index: each process of one run holds a lock of its own.

    Raises:
        BlockingIOError: another run holds it.
        OSError: the workdir cannot be written.
    """
    if workdir.is_symlink() and not workdir.exists():
        raise FileNotFoundError(f"{workdir} is a link to {os.readlink(workdir)}, which is not there; make that folder")
    if workdir.exists() and not workdir.is_dir():
        raise NotADirectoryError(f"{workdir} is a file; use another --workdir")
    workdir.mkdir(parents=True, exist_ok=True)
    with (workdir / f".lock{process_index}").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BlockingIOError(f"another run is using {workdir}; wait for it, or use another --workdir") from None
        except OSError as error:
            raise OSError(
                f"{workdir} cannot be locked ({error.strerror}), so two runs could write there at once; have its file "
                "system mounted with flock, or use a --workdir on another one"
            ) from None
        yield
