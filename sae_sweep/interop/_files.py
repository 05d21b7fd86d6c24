"""Files of tensors of formats whose file is all that there is: which one is meant, and what names are in it."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from safetensors import safe_open

from sae_sweep.interop._checked import read_torch


def the_file(place: Path, suffixes: Iterable[str]) -> Path:
    """The file of these kinds that a place is, or has alone. Raises ValueError where there is none, or several."""
    if place.is_file():
        return place
    found = [file for file in sorted(place.iterdir()) if file.suffix in suffixes]
    if len(found) != 1:
        raise ValueError(
            f"{place} has {len(found)} files ending in {' or '.join(suffixes)}; give the file that is meant"
        )
    return found[0]


def one_file(place: Path, suffixes: Iterable[str]) -> list[Path]:
    """The one file of these kinds that a place is, or that a folder has, where no JSON beside it says more; else none.
    Formats whose file is all that there is are looked for so."""
    folder = place.parent if place.is_file() else place
    files = [place] if place.is_file() else [file for file in sorted(folder.iterdir()) if file.is_file()]
    found = [file for file in files if file.suffix in suffixes]
    return found if len(found) == 1 and not any(folder.glob("*.json")) else []


def names_of(file: Path) -> set[str] | None:
    """The names in a file of tensors of any of the three kinds, of which none is read; None where it is no such file,
    or is damaged."""
    try:
        match file.suffix:
            case ".safetensors":
                with safe_open(file, "pt") as tensors:
                    return set(tensors.keys())
            case ".npz":
                with np.load(file, allow_pickle=False) as arrays:
                    return set(arrays.files)
            case _:
                return set(read_torch(file, mapped=True))
    except Exception:  # whoever reads it says what is wrong
        return None
