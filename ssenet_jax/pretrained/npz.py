"""Reads NumPy `.npz` archives; arrays of objects are refused, and no array is larger than its entry."""

import io
import math
import zipfile
from pathlib import Path

import numpy as np


def read_npz(path: str | Path) -> dict[str, np.ndarray]:
    """Reads the arrays of an `.npz` file.

    Raises:
        ValueError: the file is damaged, or an entry is no array of numbers or shorter than its header says.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return {info.filename.removesuffix(".npy"): _read_entry(archive, info) for info in archive.infolist()}
    except FileNotFoundError:
        raise
    except Exception as error:  # a damaged archive can raise nearly anything
        raise ValueError(f"{path}: not a readable .npz file ({error})") from error


def _read_entry(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    content = io.BytesIO(archive.read(info))
    version = np.lib.format.read_magic(content)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read_header(content)
    held = len(content.getbuffer()) - content.tell()
    if dtype.hasobject:
        raise ValueError(f"{info.filename} holds Python objects; only numbers are read")
    if math.prod(shape) * dtype.itemsize != held:
        raise ValueError(f"{info.filename} has {held} bytes of data, expected shape {shape} of {dtype}")
    content.seek(0)
    return np.lib.format.read_array(content, allow_pickle=False)
