"""What a member's latents fire on, as the analysis `latents` leaves it, in the form of the report's pages."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sae_sweep.folder import names
from sae_sweep.host.json_files import read_object

FILE = "latents.json"


def read_latents(folder: Path) -> dict[str, Any] | None:
    """`told`, how they were chosen, and `latents`; None where nobody has looked."""
    try:
        found = read_object(folder / names.ANALYSES / FILE)
    except (OSError, ValueError):
        return None
    latents = found.get("details")
    return dict(latents) if isinstance(latents, Mapping) and isinstance(latents.get("latents"), list) else None
