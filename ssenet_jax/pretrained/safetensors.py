"""Reads `.safetensors` files, the format that holds arrays and no code."""

import json
from pathlib import Path

import ml_dtypes
import numpy as np
import safetensors

from ssenet_jax.messages import one_line, quoted
from ssenet_jax.pretrained.checks import check_names

_DTYPES = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}


def read_safetensors(path: str | Path) -> dict[str, np.ndarray]:
    """Reads the arrays of a `.safetensors` file; they are views of its bytes and cannot be written to.

    Returns:
        The arrays by name, in the file's dtypes, kernels as they were saved.

    Raises:
        ValueError: the file is damaged, its sizes do not agree, or it holds another dtype than floats and integers.
    """
    data = Path(path).read_bytes()
    try:
        entries = safetensors.deserialize(data)
        # the library takes the last of two entries of one name
        json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")], object_pairs_hook=_unique)
        return {name: _array(name, entry) for name, entry in entries}
    except (safetensors.SafetensorError, ValueError) as error:
        raise ValueError(one_line(f"{path}: not a readable .safetensors file ({error})")) from error


def _unique(pairs: list) -> dict:
    check_names(name for name, _ in pairs)
    return dict(pairs)


def _array(name: str, entry: dict) -> np.ndarray:
    if entry["dtype"] not in _DTYPES:
        raise ValueError(f"{quoted(name)} has dtype {entry['dtype']}; expected one of {', '.join(_DTYPES)}")
    return np.frombuffer(entry["data"], _DTYPES[entry["dtype"]]).reshape(entry["shape"])
