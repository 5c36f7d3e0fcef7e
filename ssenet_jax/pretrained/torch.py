"""Reads PyTorch checkpoints without PyTorch and without running what the file holds.

A checkpoint is a pickle whose tensors point at raw arrays kept beside it: in a zip (PyTorch 1.6 and later) or behind
the pickle in one stream (before).
"""

import io
import math
import zipfile
from pathlib import Path

import numpy as np

from ssenet_jax.arrays import DAMAGE, checked_entries
from ssenet_jax.messages import one_line, quoted, shown
from ssenet_jax.pretrained.checks import check_names
from ssenet_jax.pretrained.pickles import Tensor, read_pickle

_STREAM_MAGIC = 0x1950A86A20F9469CFC6C
_STREAM_PROTOCOL = 1001


def read_torch_checkpoint(path: str | Path) -> dict[str, np.ndarray]:
    """Reads a state dict saved by `torch.save`.

    The arrays are views of the file's bytes and cannot be written to, so tensors that share a storage take no more
    memory than the file.

    Args:
        path: a `.pth` file holding a state dict: names to tensors, nothing else.

    Returns:
        The arrays by name, in the file's dtypes, kernels OIHW.

    Raises:
        ValueError: the file is damaged, asks for more than it holds, or its pickle names anything but tensors, ordered
            dicts and numbers.

    Examples:
        >>> from ssenet_jax.pretrained.load import packaged_weights
        >>> read_torch_checkpoint(packaged_weights("efficientnet_lite0"))["_conv_stem.weight"].shape
        (32, 3, 3, 3)
    """
    data = Path(path).read_bytes()
    try:
        content, storages = _read_zip(data) if data[:4] == b"PK\x03\x04" else _read_stream(data)
        return {name: _view(name, tensor, storages) for name, tensor in _tensors(content).items()}
    except DAMAGE as error:
        raise ValueError(one_line(f"{path}: {error}")) from error


def _read_zip(data: bytes):
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for info in archive.infolist():
            if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
                raise ValueError(f"entry {quoted(info.filename)} is compressed; torch.save stores entries as they are")
        entries = checked_entries(archive)
        pickles = [name for name in entries if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise ValueError(f"the zip holds {len(pickles)} data.pkl entries; expected one")
        root = pickles[0].removesuffix("data.pkl")
        if f"{root}byteorder" in entries and archive.read(f"{root}byteorder") != b"little":
            raise ValueError("the tensors are big-endian; save them on a little-endian machine")
        content = read_pickle(io.BytesIO(archive.read(pickles[0])))
        prefix = f"{root}data/"
        storages = {name.removeprefix(prefix): archive.read(name) for name in entries if name.startswith(prefix)}
    return content, storages


def _read_stream(data: bytes):
    stream = io.BytesIO(data)
    if not _holds(stream, _STREAM_MAGIC) or not _holds(stream, _STREAM_PROTOCOL):
        raise ValueError("neither a zip nor a stream written by torch.save")
    machine = read_pickle(stream)
    if not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise ValueError("the tensors are big-endian; save them on a little-endian machine")
    content = read_pickle(stream)
    declared = {tensor.storage.key: tensor.storage for tensor in _tensors(content).values()}
    keys, storages = read_pickle(stream), {}
    for key in keys if isinstance(keys, list) else ():
        if not isinstance(key, str) or key not in declared or key in storages:
            raise ValueError(f"storage {quoted(key) if isinstance(key, str) else ''} belongs to no tensor, or is twice")
        count = int.from_bytes(stream.read(8), "little", signed=True)
        size = count * declared[key].dtype.itemsize
        if not 0 <= size <= len(data) - stream.tell():
            raise ValueError(f"storage {quoted(key)} says {count} elements, which the file does not hold")
        storages[key] = stream.read(size)
    if stream.tell() != len(data):
        raise ValueError(f"{len(data) - stream.tell()} bytes follow the last storage")
    return content, storages


def _holds(stream: io.BytesIO, number: int) -> bool:
    value = read_pickle(stream)
    return type(value) is int and value == number


def _tensors(content) -> dict[str, Tensor]:
    if not isinstance(content, dict):
        raise ValueError(f"the file holds a {type(content).__name__}; expected a state dict (names to tensors)")
    for name, value in content.items():
        if not isinstance(value, Tensor):
            raise ValueError(f"entry {quoted(name)} is a {type(value).__name__}; save `model.state_dict()` alone")
    check_names(content)
    return content


def _view(name: str, tensor: Tensor, storages: dict[str, bytes]) -> np.ndarray:
    storage = tensor.storage
    if storage.key not in storages:
        raise ValueError(f"{quoted(name)}: its storage {quoted(storage.key)} is not in the file")
    raw = storages[storage.key]
    if len(raw) != storage.elements * storage.dtype.itemsize:
        raise ValueError(f"{quoted(name)}: its storage has {len(raw)} bytes, expected {storage.elements} elements")
    if 0 in tensor.shape:
        return np.zeros(tensor.shape, storage.dtype)
    last = tensor.offset + sum((size - 1) * step for size, step in zip(tensor.shape, tensor.strides, strict=True))
    if last >= storage.elements or math.prod(tensor.shape) > storage.elements:
        raise ValueError(
            f"{quoted(name)}: shape {shown(tensor.shape)} reaches beyond the {storage.elements} elements of its storage"
        )
    flat = np.frombuffer(raw, storage.dtype)[tensor.offset :]
    steps = [step * storage.dtype.itemsize for step in tensor.strides]
    return np.lib.stride_tricks.as_strided(flat, tensor.shape, steps, writeable=False)
