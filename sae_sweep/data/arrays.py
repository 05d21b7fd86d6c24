"""Token ids from numpy files, as sheets: arrays [n, length] of rows of one length."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sae_sweep.data.origin import Origin
from sae_sweep.errors import ConfigError


def load_sheet(origin: Origin, context: int) -> npt.NDArray[Any]:
    """The array of a `.npz` (named by data.field) or `.npy` file; a 1-D stream is cut into rows of `context`."""
    file = Path(origin.single_path()).expanduser()
    array = _load(file, origin)
    if array.ndim == 1:
        return array[: len(array) // context * context].reshape(-1, context)
    if array.ndim != 2:
        raise ConfigError(
            f"{origin.label} holds an array of shape {array.shape}; [rows, context] or a 1-D stream is needed"
        )
    return array


def _load(file: Path, origin: Origin) -> npt.NDArray[Any]:
    try:
        loaded = np.load(file, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded:
            if origin.field not in loaded.files:
                raise ConfigError(
                    f"data.field={origin.field} is no array of {origin.label}; it has {', '.join(loaded.files)}"
                )
            array: npt.NDArray[Any] = loaded[origin.field]
            return array
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(f"{origin.label} cannot be read as a numpy file of plain numbers: {reason}") from error
