"""Reads PyTorch checkpoints without PyTorch and without running what the file holds.

A checkpoint is a pickle whose tensors point at raw arrays kept beside it: in a zip (PyTorch 1.6 and later) or behind
the pickle in one stream (before). The pickle is first checked opcode by opcode, then loaded by an unpickler that knows
tensors and ordered dicts; any other global is refused by name.
"""

import io
import math
import pickle
import pickletools
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import ml_dtypes
import numpy as np

_STREAM_MAGIC = 0x1950A86A20F9469CFC6C
_STREAM_PROTOCOL = 1001
_LARGEST_MEMO = 1 << 20
_DTYPES = {
    "FloatStorage": np.dtype("<f4"),
    "DoubleStorage": np.dtype("<f8"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}


class _StorageType(NamedTuple):
    dtype: np.dtype


class _Storage(NamedTuple):
    key: str
    dtype: np.dtype
    count: int


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _RebuildTensor:
    """Stands in for torch._utils._rebuild_tensor_v2; without attributes, so a pickle cannot change it."""

    __slots__ = ()

    def __call__(self, storage, offset, shape, strides, *_):
        numbers = (offset, *shape, *strides)
        if not isinstance(storage, _Storage) or not all(type(number) is int and number >= 0 for number in numbers):
            raise ValueError(f"a tensor has offset {offset}, shape {shape}, strides {strides}; expected whole numbers")
        if len(shape) != len(strides):
            raise ValueError(f"a tensor has {len(shape)} sizes and {len(strides)} strides")
        return _Tensor(storage, offset, tuple(shape), tuple(strides))


class _RebuildParameter:
    __slots__ = ()

    def __call__(self, tensor, *_):
        return tensor


class _Unpickler(pickle.Unpickler):
    def find_class(self, module, name):
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch._utils" and name in ("_rebuild_tensor", "_rebuild_tensor_v2"):
            return _RebuildTensor()
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return _RebuildParameter()
        if module == "torch" and name in _DTYPES:
            return _StorageType(_DTYPES[name])
        raise ValueError(f"the pickle asks for {module}.{name}; only tensors, ordered dicts and numbers are read")

    def persistent_load(self, pid):
        kind, storage_type, key, _, count, *view = pid
        if kind != "storage" or not isinstance(storage_type, _StorageType) or any(part is not None for part in view):
            raise ValueError(f"an entry of kind {kind!r} is not a plain tensor storage")
        if type(count) is not int or count < 0:
            raise ValueError(f"storage {key!r} has {count!r} elements")
        return _Storage(str(key), storage_type.dtype, count)


def read_torch_checkpoint(path: str | Path) -> dict[str, np.ndarray]:
    """Reads a state dict saved by `torch.save`.

    Args:
        path: a `.pth` file holding a state dict: names to tensors, nothing else.

    Returns:
        The arrays by name, in the file's dtypes, kernels OIHW.

    Raises:
        ValueError: the file is damaged, asks for more than it holds, or its pickle names anything but tensors, ordered
            dicts and numbers.
    """
    data = Path(path).read_bytes()
    try:
        content, storages = _read_zip(data) if data[:4] == b"PK\x03\x04" else _read_stream(data)
        return _tensors(content, storages)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise ValueError(f"{path}: not a readable PyTorch checkpoint ({type(error).__name__}: {error})") from error


def _load_pickle(stream: io.BytesIO):
    start = stream.tell()
    for opcode, argument, position in pickletools.genops(stream):
        if opcode.name in ("EXT1", "EXT2", "EXT4", "INST", "BYTEARRAY8", "NEXT_BUFFER"):
            raise ValueError(f"the pickle uses {opcode.name} at byte {position}, which no state dict needs")
        # CPython's unpickler takes memory in proportion to this number
        if "PUT" in opcode.name and argument > _LARGEST_MEMO:
            raise ValueError(f"the pickle numbers an object {argument} at byte {position}; it cannot hold that many")
    stream.seek(start)
    return _Unpickler(stream).load()


def _read_zip(data: bytes):
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = {info.filename: info for info in archive.infolist()}
        pickles = [name for name in entries if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise ValueError(f"the zip holds {len(pickles)} data.pkl entries; expected one")
        root = pickles[0].removesuffix("data.pkl")
        if f"{root}byteorder" in entries and archive.read(f"{root}byteorder") != b"little":
            raise ValueError("the tensors are big-endian; save them on a little-endian machine")
        for info in entries.values():
            if info.compress_type != zipfile.ZIP_STORED:
                raise ValueError(f"entry {info.filename} is compressed; torch.save stores entries as they are")
        content = _load_pickle(io.BytesIO(archive.read(pickles[0])))
        prefix = f"{root}data/"
        storages = {name.removeprefix(prefix): archive.read(name) for name in entries if name.startswith(prefix)}
    return content, storages


def _read_stream(data: bytes):
    stream = io.BytesIO(data)
    if _load_pickle(stream) != _STREAM_MAGIC or _load_pickle(stream) != _STREAM_PROTOCOL:
        raise ValueError("neither a zip nor a stream written by torch.save")
    if _load_pickle(stream).get("little_endian") is not True:
        raise ValueError("the tensors are big-endian; save them on a little-endian machine")
    content = _load_pickle(stream)
    declared = {tensor.storage.key: tensor.storage for tensor in _values(content).values()}
    storages = {}
    for key in _load_pickle(stream):
        if key not in declared:
            raise ValueError(f"storage {key!r} belongs to no tensor")
        count = int.from_bytes(stream.read(8), "little", signed=True)
        size = count * declared[key].dtype.itemsize
        if not 0 <= size <= len(data) - stream.tell():
            raise ValueError(f"storage {key!r} says {count} elements; the file ends {size} bytes too early or before")
        storages[key] = stream.read(size)
    if stream.tell() != len(data):
        raise ValueError(f"{len(data) - stream.tell()} bytes follow the last storage")
    return content, storages


def _values(content) -> dict[str, _Tensor]:
    if not isinstance(content, Mapping):
        raise ValueError(f"the file holds a {type(content).__name__}; expected a state dict (names to tensors)")
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, _Tensor):
            raise ValueError(f"entry {name!r} is a {type(value).__name__}; save `model.state_dict()` alone")
    return dict(content)


def _tensors(content, storages: dict[str, bytes]) -> dict[str, np.ndarray]:
    return {name: _materialise(name, tensor, storages) for name, tensor in _values(content).items()}


def _materialise(name: str, tensor: _Tensor, storages: dict[str, bytes]) -> np.ndarray:
    storage = tensor.storage
    if storage.key not in storages:
        raise ValueError(f"{name}: its storage {storage.key!r} is not in the file")
    raw = storages[storage.key]
    if len(raw) != storage.count * storage.dtype.itemsize:
        raise ValueError(f"{name}: storage {storage.key!r} has {len(raw)} bytes, expected {storage.count} elements")
    if 0 in tensor.shape:
        return np.zeros(tensor.shape, storage.dtype)
    last = tensor.offset + sum((size - 1) * step for size, step in zip(tensor.shape, tensor.strides, strict=True))
    if last >= storage.count or math.prod(tensor.shape) > storage.count:
        raise ValueError(f"{name}: shape {tensor.shape} reaches beyond the {storage.count} elements of its storage")
    flat = np.frombuffer(raw, storage.dtype)[tensor.offset :]
    steps = [step * storage.dtype.itemsize for step in tensor.strides]
    return np.lib.stride_tricks.as_strided(flat, tensor.shape, steps).copy()
