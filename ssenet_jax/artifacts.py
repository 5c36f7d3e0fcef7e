"""What stages hand to each other, as files under one workdir.

Every file is written under a temporary name and renamed, so a file that exists is whole. A manifest per stage records
the settings that its files were made with.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ssenet_jax.config import RUNTIME_KEYS


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a temporary path beside ``path`` and renames it to ``path`` when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_partial(workdir: Path) -> None:
    """Removes the temporary files of runs that were killed; to be called while no other run writes there."""
    for path in workdir.rglob(".*.part"):
        path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=1) + "\n")


def read_json(path: Path) -> Any:
    """Raises ``ValueError`` that names the file when it is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not readable JSON ({error}); delete it and run the stage again") from error


def write_arrays(path: Path, *, packed: bool = True, **arrays: np.ndarray) -> None:
    """Writes a .npz, which numpy alone reads back.

    Args:
        path: of the file.
        packed: compressed, at the level that takes a quarter of the time of numpy's for a tenth more bytes.
        arrays: by name.
    """
    how = {"compression": zipfile.ZIP_DEFLATED, "compresslevel": 1} if packed else {}
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w", **how) as file:
        for name, array in arrays.items():
            with file.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def read_arrays(path: Path, *names: str) -> tuple[np.ndarray, ...]:
    """Reads the named arrays of a .npz.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged or lacks one of the arrays.
    """
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            return tuple(file[name] for name in names)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is missing; run the stage that writes it first") from None
    except (zipfile.BadZipFile, KeyError, EOFError, ValueError, OSError) as error:
        raise ValueError(f"{path} is damaged ({error}); delete it and run the stage that writes it again") from error


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


def write_mask(path: Path, mask: np.ndarray) -> None:
    """Writes (h, w) class indices as a grey PNG."""
    with replacing(path) as temporary:
        Image.fromarray(mask.astype(np.uint8)).save(temporary, format="png")


def read_mask(path: Path) -> np.ndarray:
    """Reads a grey PNG of class indices: (h, w) uint8."""
    try:
        with Image.open(path) as image:
            return np.asarray(image, np.uint8)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is missing; run the stage that writes it first") from None
    except OSError as error:
        raise ValueError(f"{path} is damaged ({error}); delete it and run the stage that writes it again") from error


def flatten(config: Mapping, prefix: str = "") -> dict[str, Any]:
    """Nested settings as one level of dotted keys, values as JSON gives them back."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) or hasattr(value, "items"):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = json.loads(json.dumps(value))
    return flat


def result_settings(config: Mapping, sections: tuple[str, ...]) -> dict[str, Any]:
    """The settings in ``sections`` that decide a result, without those that only decide how it is computed."""
    runtime = [re.compile(pattern) for pattern in RUNTIME_KEYS]
    chosen = flatten({key: config[key] for key in sections})
    return {key: value for key, value in chosen.items() if not any(pattern.fullmatch(key) for pattern in runtime)}


def settings_hash(settings: Mapping[str, Any]) -> str:
    """A short name of a group of settings."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]


def check_manifest(path: Path, settings: Mapping[str, Any], *, stage: str) -> bool:
    """Compares the manifest of a stage with the settings asked for.

    Returns:
        Whether the stage has been completed under these settings; False when it was not begun or not finished.

    Raises:
        ValueError: the files of this stage were made under other settings; the first differing key is named.
    """
    if not path.exists():
        return False
    manifest = read_json(path)
    made = manifest["settings"]
    for key in sorted(made.keys() | settings.keys()):
        if made.get(key) != settings.get(key):
            raise ValueError(
                f"{path.parent.parent} holds results of {stage} with {key}={made.get(key)!r}, but the config says "
                f"{settings.get(key)!r}; use another --workdir, or set the key back"
            )
    return manifest["complete"]


def write_manifest(path: Path, settings: Mapping[str, Any], *, complete: bool) -> None:
    write_json(path, {"complete": complete, "config_hash": settings_hash(settings), "settings": settings})


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
    workdir.mkdir(parents=True, exist_ok=True)
    with (workdir / f".lock{process_index}").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BlockingIOError(f"another run is using {workdir}; wait for it, or use another --workdir") from None
        yield
