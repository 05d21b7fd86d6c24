"""SAEs on disk, in each format that a module of this folder, or one of another package, reads.

Such a module has `recognise(folder) -> bool`, `read(folder) -> InferenceSae` and, where it writes too, `write`.
"""

from pathlib import Path

from sae_sweep.host.kinds import Kinds
from sae_sweep.saes.inference import InferenceSae

FORMATS = Kinds("sae_sweep.interop", "sae_sweep.interop")


def load_sae(folder: Path) -> InferenceSae:
    """The SAE in a folder, or of a format that is one file in that, whose format is found out. Raises ValueError where
    none has it, or a file is damaged."""
    if not folder.exists():
        raise ValueError(f"{folder} does not exist")
    for kind in FORMATS.values():
        if kind.recognise(folder):
            sae: InferenceSae = kind.read(folder)
            return sae
    what = "is a file of no known format, give a folder" if folder.is_file() else "holds no SAE in a known format"
    raise ValueError(f"{folder} {what}: {', '.join(FORMATS)}")
