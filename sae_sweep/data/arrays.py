"""Token ids from files of numbers: numpy's, and the raw ones of nanoGPT."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sae_sweep.data.companions import encoded, told_companions
from sae_sweep.data.origin import Origin
from sae_sweep.data.packing import RowFormat, TokenRows
from sae_sweep.errors import ConfigError, first_line

_HEADER_MAGIC, _HEADER_BYTES = 20240520, 1024
_LOOKED_AT = 512
"""Ids at the beginning of a .bin file, which show how wide they are."""


def array_rows(origin: Origin, form: RowFormat) -> TokenRows:
    """The rows of a `.npz` (named by data.field), `.npy` or nanoGPT's `.bin` file, with the companion columns of a
    `.npz`; a 1-D stream is cut into rows of `context`. Raises ConfigError."""
    file = Path(origin.single_path()).expanduser()
    try:
        ids, beside = _load_bin(file, origin, form) if file.suffix == ".bin" else _load(file, origin)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        reason = first_line(error)
        raise ConfigError(f"{origin.label} cannot be read as a numpy file of plain numbers: {reason}") from error
    if ids.ndim not in (1, 2):
        raise ConfigError(
            f"{origin.label} holds an array of shape {ids.shape}; [rows, context] or a 1-D stream is needed"
        )
    dropped = ids.size % form.context if ids.ndim == 1 else 0
    if ids.ndim == 1:
        beside = {name: _as_rows(values, form.context) for name, values in beside.items()}
        ids = _as_rows(ids, form.context)
    sheet = encoded(ids, beside, form.vocab_size, origin.label)
    rows = TokenRows(lambda: iter([sheet]), form, origin.label, kept=True)
    rows.dropped = dropped
    return rows


def _as_rows(stream: npt.NDArray[Any], context: int) -> npt.NDArray[Any]:
    return stream[: len(stream) // context * context].reshape(-1, context)


def _load(file: Path, origin: Origin) -> tuple[npt.NDArray[Any], dict[str, npt.NDArray[Any]]]:
    """The ids, and the arrays beside them that say what they mean."""
    loaded = np.load(file, allow_pickle=False)
    if isinstance(loaded, np.ndarray):
        return loaded, {}
    with loaded:
        if origin.field not in loaded.files:
            raise ConfigError(
                f"data.field={origin.field} is no array of {origin.label}; it has {', '.join(loaded.files)}"
            )
        companions = told_companions(loaded.files, origin.field, origin.label)
        return loaded[origin.field], {name: loaded[name] for name in companions}


def _load_bin(file: Path, origin: Origin, form: RowFormat) -> tuple[npt.NDArray[Any], dict[str, npt.NDArray[Any]]]:
    """Ids of 16 bits, as nanoGPT writes them, or with the header of 1024 bytes that later trainers give them."""
    if form.vocab_size > 2**16:
        raise ConfigError(
            f"{origin.label}: a .bin file has ids of 16 bits, and the model's vocabulary of {form.vocab_size} needs"
            " more; save the ids as .npy"
        )
    begins = np.fromfile(file, dtype="<i4", count=1)
    offset = _HEADER_BYTES if begins.size and begins[0] == _HEADER_MAGIC else 0
    ids = np.memmap(file, dtype="<u2", mode="r", offset=offset)
    begin = ids[:_LOOKED_AT]
    if len(begin) == _LOOKED_AT and begin.any() and not begin[1::2].any():
        raise ConfigError(f"{origin.label}: every other id is 0, as in a file of 32-bit ids; save the ids as .npy")
    return ids, {}
