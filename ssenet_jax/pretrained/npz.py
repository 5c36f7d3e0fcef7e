"""Reads weights from NumPy's `.npz` archives."""

from pathlib import Path

import numpy as np

from ssenet_jax import arrays
from ssenet_jax.messages import one_line
from ssenet_jax.pretrained.checks import check_names


def read_npz(path: str | Path) -> dict[str, np.ndarray]:
    """Reads the arrays of an `.npz` file; arrays of objects are refused, and no array is larger than its entry.

    Raises:
        ValueError: the file is damaged, holds a name twice, or an entry is no array of numbers or not as long as its
            header says.

    Examples:
        >>> import tempfile
        >>> import numpy as np
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.savez(f"{folder}/weights.npz", a=np.ones((2, 3)))
        ...     print({name: array.shape for name, array in read_npz(f"{folder}/weights.npz").items()})
        {'a': (2, 3)}
    """
    weights = arrays.read_npz(path)
    try:
        check_names(weights)
    except ValueError as error:
        raise ValueError(one_line(f"{path}: {error}")) from error
    return weights
