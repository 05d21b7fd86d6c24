"""SAEs on disk, in each format that a module of this folder, or one of another package, reads.

Such a module has `recognise(place) -> bool` and `read(place) -> InferenceSae`; beside them, where it has them,

    ASKS     the fields of `Given` that its files may leave unsaid; then it is `read(place, given)`
    told     (place) -> what files say of model and hooks, by SAELens's names: model_name, hook_name, hook_name_out ...
    members  (place) -> the files of a set that has several SAEs
    write    the same format written
"""

from pathlib import Path
from types import ModuleType
from typing import Any

from sae_sweep.host.kinds import Kinds
from sae_sweep.interop._given import NOTHING, Given
from sae_sweep.saes.inference import InferenceSae

__all__ = ["FORMATS", "NOTHING", "Given", "format_of", "load_sae", "told"]
FORMATS = Kinds("sae_sweep.interop", "sae_sweep.interop")


def load_sae(place: Path, named: str | None = None, given: Given = NOTHING) -> InferenceSae:
    """The SAE in a folder, or of a format that is one file in that, whose format is found out where it is not named.

    Raises ValueError where no format has it, it does not say what is not given either, or a file is damaged.
    """
    kind = format_of(place, named)
    asks: tuple[str, ...] = getattr(kind, "ASKS", ())
    for name in given.said:
        if name not in asks:
            raise ValueError(f"{place} is of {_name(kind)}, whose files say {name} themselves; leave it out")
    sae: InferenceSae = kind.read(place, given) if asks else kind.read(place)
    return sae


def told(place: Path, named: str | None = None) -> dict[str, Any]:
    """What the files of an SAE say of its model and its hooks, by SAELens's names. Raises ValueError as `load_sae`."""
    kind = format_of(place, named)
    found: dict[str, Any] = kind.told(place) if hasattr(kind, "told") else {}
    return found


def format_of(place: Path, named: str | None = None) -> ModuleType:
    """The format of this name, `_` or `-` between its words, or the one that recognises a folder or file. Raises
    ValueError where there is none."""
    if not place.exists():
        raise ValueError(f"{place} does not exist")
    read = {name: kind for name, kind in FORMATS.items() if hasattr(kind, "read")}
    if named is not None:
        if named.replace("-", "_") not in read:
            raise ValueError(f"format {named} is not one of {', '.join(read)}")
        return read[named.replace("-", "_")]
    for kind in FORMATS.values():
        if kind.recognise(place):
            return kind
    what = "is a file of no known format, give a folder" if place.is_file() else "holds no SAE in a known format"
    raise ValueError(f"{place} {what}: {', '.join(read)}")


def _name(kind: ModuleType) -> str:
    return kind.__name__.rpartition(".")[2]
