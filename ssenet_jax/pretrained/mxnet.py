"""Reads MXNet `.params` files without MXNet: every layout from before 0.12 to 2.0, dense arrays only."""

import math
import struct
from pathlib import Path

import numpy as np

from ssenet_jax.messages import one_line
from ssenet_jax.pretrained.checks import check_names

_MAGIC = 0x112
_V1, _V2, _V3 = 0xF993FAC8, 0xF993FAC9, 0xF993FACA
_DTYPES = ("<f4", "<f8", "<f2", "u1", "<i4", "i1", "<i8")
_MOST_AXES, _LARGEST_SIZE = 32, 1 << 48


class _Reader:
    """A cursor over the file's bytes that never reads, or allocates, beyond their end."""

    def __init__(self, data: bytes):
        self.data = data
        self.position = 0

    def bytes(self, count: int, what: str) -> memoryview:
        left = len(self.data) - self.position
        if count > left:
            raise ValueError(f"{what} needs {count} bytes at byte {self.position}, but only {left} are left")
        self.position += count
        return memoryview(self.data)[self.position - count : self.position]

    def numbers(self, layout: str, what: str) -> tuple[int, ...]:
        layout = f"<{layout}"
        return struct.unpack(layout, self.bytes(struct.calcsize(layout), what))

    def number(self, layout: str, what: str) -> int:
        return self.numbers(layout, what)[0]


def read_mxnet_params(path: str | Path) -> dict[str, np.ndarray]:
    """Reads the arrays of a `.params` file.

    Args:
        path: file written by `mx.nd.save` or `Module.save_checkpoint`.

    Returns:
        The arrays by name; names keep their "arg:" or "aux:".

    Raises:
        ValueError: the file is cut short, holds sparse arrays, or its counts and sizes do not agree with its length.

    Examples:
        >>> import struct, tempfile
        >>> with tempfile.NamedTemporaryFile() as file:
        ...     _ = file.write(struct.pack("<QQQQ", 0x112, 0, 0, 0))  # no array, no name
        ...     file.flush()
        ...     print(read_mxnet_params(file.name))
        {}
    """
    reader = _Reader(Path(path).read_bytes())
    try:
        return _read_file(reader)
    except ValueError as error:
        raise ValueError(one_line(f"{path}: {error}")) from error


def _read_file(reader: _Reader) -> dict[str, np.ndarray]:
    magic, reserved, count = reader.numbers("QQQ", "the header")
    if magic != _MAGIC or reserved != 0:
        raise ValueError(f"starts with {magic:#x}, {reserved:#x}; an MXNet parameter file starts with 0x112, 0x0")
    # the shortest array is one word
    if count * 4 > len(reader.data):
        raise ValueError(f"claims {count} arrays in {len(reader.data)} bytes")
    arrays = [_read_array(reader, f"array {index}") for index in range(count)]
    names = _read_names(reader, count)
    if reader.position != len(reader.data):
        raise ValueError(f"{len(reader.data) - reader.position} bytes follow the last name")
    return dict(zip(names, arrays, strict=True))


def _read_array(reader: _Reader, what: str) -> np.ndarray:
    word = reader.number("I", what)
    if word in (_V2, _V3):
        storage = reader.number("i", what)
        if storage != 0:
            raise ValueError(f"{what} has storage type {storage}; only dense arrays (0) are read")
    if word in (_V1, _V2, _V3):
        axes, letter = reader.number("i", what), "q"
    else:
        axes, letter = word, "I"
    if not 0 <= axes <= _MOST_AXES:
        raise ValueError(f"{what} has {axes} axes at byte {reader.position}; expected 0 to {_MOST_AXES}")
    shape = reader.numbers(f"{axes}{letter}", what)
    # without NumPy semantics (V3) no axes means no array, and nothing follows
    if axes == 0 and word != _V3:
        return np.zeros((0,), np.float32)
    if any(not 0 <= size <= _LARGEST_SIZE for size in shape):
        raise ValueError(f"{what} has shape {shape}; sizes are 0 to 2^48")
    _, _, code = reader.numbers("iii", what)
    if not 0 <= code < len(_DTYPES):
        raise ValueError(f"{what} has dtype code {code}; expected 0 to {len(_DTYPES) - 1}")
    dtype = np.dtype(_DTYPES[code])
    content = reader.bytes(math.prod(shape) * dtype.itemsize, f"{what} of shape {shape}")
    return np.frombuffer(content, dtype).reshape(shape).copy()


def _read_names(reader: _Reader, count: int) -> list[str]:
    named = reader.number("Q", "the number of names")
    if named != count:
        raise ValueError(f"{count} arrays but {named} names")
    names = []
    for index in range(count):
        length = reader.number("Q", f"name {index}")
        try:
            names.append(str(reader.bytes(length, f"name {index}"), "utf-8"))
        except UnicodeDecodeError as error:
            raise ValueError(f"name {index} is not UTF-8") from error
    check_names(names)
    return names
