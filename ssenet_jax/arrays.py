"""Reads NumPy's `.npy` and `.npz` with bounds: what a file claims is checked before memory is taken for it.

The header is matched, not evaluated: `numpy.load` gives it to Python's parser, which has failed in threads
(CPython 3.11), and which a header can be written to exhaust.
"""

import errno
import math
import re
import struct
import zipfile
import zlib
from pathlib import Path
from typing import IO

import numpy as np

from ssenet_jax.messages import one_line, quoted

DAMAGE = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, RuntimeError, ValueError)

_MAGIC = b"\x93NUMPY"
_LONGEST_HEADER = 10_000
_MOST_AXES, _LARGEST_SIZE = 64, 1 << 48
_KINDS = "biufc"  # no objects, texts or structures
_ITEM = re.compile(
    r"\s*(['\"])(descr|fortran_order|shape)\1\s*:\s*"
    r"(?:(['\"])(?P<descr>[<>|=]?[a-zA-Z]\d{0,9})\3|(?P<fortran_order>True|False)|\((?P<shape>[\dL, ]*)\))\s*(?:,|$)\s*"
)
_CHUNK = 1 << 20
_LARGEST_RATIO = 100
FREE_BYTES = 64 << 20  # an archive of this size may have been compressed at any ratio


def read_npy(file: IO[bytes], size: int) -> np.ndarray:
    """Reads one array in NumPy's format.

    Args:
        file: stands at the array's first byte; may be a stream that decompresses.
        size: bytes of the array with its header.

    Returns:
        An array of its own, in the file's dtype and order.

    Raises:
        ValueError: not the format, an array of objects or structures, or a shape that does not agree with `size`.
    """
    header, shape, dtype, fortran = _read_header(file)
    held = size - header
    if math.prod(shape) * dtype.itemsize != held:
        raise ValueError(f"has {held} bytes of data, expected shape {shape} of {dtype}")
    flat = np.empty(math.prod(shape), dtype)
    _fill(file, flat)
    return flat.reshape(shape, order="F" if fortran else "C")


def read_npz(path: str | Path, *names: str, free_bytes: int = FREE_BYTES) -> dict[str, np.ndarray]:
    """Reads arrays of an `.npz`, in the order asked for; all of them when none is named.

    Args:
        path: of the file.
        names: of the arrays.
        free_bytes: up to this size what it holds may have been compressed at any ratio, above it at most 100 : 1.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: it cannot be read just now.
        ValueError: the file is damaged, lacks a name, holds one twice, or is far larger than its compressed bytes.
    """
    with open(path, "rb") as file:
        try:
            with zipfile.ZipFile(file) as archive:
                held = checked_entries(archive, free_bytes)
                entries = {name.removesuffix(".npy"): info for name, info in held.items()}
                if len(entries) < len(held):
                    raise ValueError("holds two arrays of one name")
                return {name: _read_entry(archive, entries, name) for name in names or entries}
        except (*DAMAGE, OSError) as error:
            if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
                raise  # a disk that fails just now; EINVAL is an offset before the file's start
            raise ValueError(one_line(f"{path}: not a readable .npz file ({error})")) from error


def checked_entries(archive: zipfile.ZipFile, free_bytes: int = FREE_BYTES) -> dict[str, zipfile.ZipInfo]:
    """The entries of a zip by name, after a look at what they claim; nothing is decompressed.

    Raises:
        ValueError: a name occurs twice, a compression other than deflate, or sizes that the file cannot hold.
    """
    entries: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        if entries.setdefault(info.filename, info) is not info:
            raise ValueError(f"holds two entries named {quoted(info.filename)}")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"entry {quoted(info.filename)} is compressed by another method than deflate")
    stored = sum(info.compress_size for info in entries.values())
    size = sum(info.file_size for info in entries.values())
    if stored > archive.start_dir:
        raise ValueError(f"claims {stored} bytes of entries in {archive.start_dir} bytes")
    if size > max(free_bytes, _LARGEST_RATIO * stored):
        raise ValueError(f"claims to hold {size} bytes in {stored} compressed ones; save it without compression")
    return entries


def _read_entry(archive: zipfile.ZipFile, entries: dict[str, zipfile.ZipInfo], name: str) -> np.ndarray:
    if name not in entries:
        raise ValueError(f"has no array {quoted(name)}")
    try:
        with archive.open(entries[name]) as file:
            array = read_npy(file, entries[name].file_size)
            if file.read(1):  # also has the check sum compared
                raise ValueError("is longer than it claims")
            return array
    except DAMAGE as error:
        raise ValueError(f"{quoted(entries[name].filename)} {error}") from error


def _read_header(file: IO[bytes]) -> tuple[int, tuple[int, ...], np.dtype, bool]:
    start = file.read(8)
    if start[:6] != _MAGIC or start[6:] not in (b"\x01\x00", b"\x02\x00", b"\x03\x00"):
        raise ValueError("is not an array in NumPy's format")
    layout = "<H" if start[6] == 1 else "<I"
    (length,) = struct.unpack(layout, file.read(struct.calcsize(layout)))
    if length > _LONGEST_HEADER:
        raise ValueError(f"has a header of {length} bytes; at most {_LONGEST_HEADER} are read")
    text = file.read(length)
    if len(text) != length:
        raise ValueError("ends in its header")
    return 8 + struct.calcsize(layout) + length, *_parse(text.decode("latin-1"))


def _parse(header: str) -> tuple[tuple[int, ...], np.dtype, bool]:
    body = header.strip()
    found, end = {}, 1
    while match := _ITEM.match(body[:-1], end):
        found[match[2]], end = match[match[2]], match.end()
    plain = body.startswith("{") and body.endswith("}") and end == len(body) - 1
    if not plain or len(found) != 3 or None in found.values():
        raise ValueError(f"has the header {quoted(body)}; only plain arrays of numbers are read")
    descr, order, shape = found["descr"], found["fortran_order"], found["shape"]
    return _sizes(shape), _dtype(descr), order == "True"


def _dtype(descr: str) -> np.dtype:
    try:
        dtype = np.dtype(descr)
    except TypeError as error:
        raise ValueError(f"holds {quoted(descr)}, which is no dtype") from error
    if dtype.kind not in _KINDS:
        raise ValueError(f"holds {'Python objects' if dtype.hasobject else dtype}; only numbers are read")
    return dtype


def _sizes(shape: str) -> tuple[int, ...]:
    sizes = tuple(int(size.strip().removesuffix("L")) for size in shape.split(",") if size.strip())
    if len(sizes) > _MOST_AXES or any(size > _LARGEST_SIZE for size in sizes):
        raise ValueError(f"has the shape {quoted(shape)}; at most {_MOST_AXES} axes of 2^48 are read")
    return sizes


def _fill(file: IO[bytes], flat: np.ndarray) -> None:
    left = flat.view(np.uint8).data if flat.nbytes else memoryview(b"")
    while left:
        part = file.read(min(len(left), _CHUNK))
        if not part:
            raise ValueError(f"ends {len(left)} bytes early")
        left[: len(part)] = part
        left = left[len(part) :]
