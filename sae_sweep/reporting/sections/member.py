"""A member's own page, which a click on it opens: what it is, where it is, how to load it, what its latents are."""

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from sae_sweep.config.reading import flat_entries
from sae_sweep.config.values import shown
from sae_sweep.folder import names
from sae_sweep.host.json_files import read_object
from sae_sweep.reporting.latents import has_latents, read_latents
from sae_sweep.reporting.page import Cell, Page
from sae_sweep.reporting.sections.header import provenance

PLACE, SPAN = 95, "page"
BINS, LOWEST = 28, -7.0
"""Of a density histogram: so many between 10^LOWEST and 1."""
SILENT = -9.5
"""log10 of a frequency below which a latent never fired: files hold log10(frequency + 1e-10)."""
LAYER: Mapping[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("reads", "writes"), str),
    **dict.fromkeys(("fvu", "l0", "alive"), (int, float)),
}
"""What `layers.json` has of a layer."""
MADE = ("host", "device", "started", "ended", "wall_seconds", "commit")
LATENTS_BYTES = 2_500_000
"""What latents may take of the page, all members together; each shows fewer of them where there are many."""


def html(page: Page, cell: Cell | None) -> str:
    """The dialog's place, which its script fills."""
    title = escape(page.record.name)
    return f"<dialog class=member aria-label='A member of {title}'></dialog>" if page.cells else ""


def data(page: Page) -> dict[str, Any]:
    """`common`, the keys of configs that are alike for all members, and `members` by label."""
    folders = {point["member"]: page.record.folders[point["member"]] for point in page.record.points}
    made = {label: provenance(folder) for label, folder in folders.items()}
    configs = {
        label: {key: shown(value) for key, value in flat_entries(made[label].get("config") or config).items()}
        for label, config in page.record.configs.items()
    }
    common = _alike(configs)
    found = {
        label: {
            "folder": str(folder),
            "config": {key: value for key, value in configs.get(label, {}).items() if key not in common},
            "made": {key: made[label][key] for key in MADE if made[label].get(key) is not None},
            "density": density(folder / names.SPARSITY),
            "layers": layers(folder / names.LAYERS),
        }
        for label, folder in folders.items()
    }
    looked = {label: folder for label, folder in folders.items() if has_latents(folder)}
    latents = {label: read_latents(folder, LATENTS_BYTES // len(looked)) for label, folder in looked.items()}
    return {"common": common, "members": found, "latents": latents, "lowest": LOWEST, "bins": BINS}


def density(file: Path) -> list[int] | None:
    """How many latents never fired, then how many are in each bin of log10 of the share of tokens that they fire on;
    None where the file does not say it."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    if not file.is_file():
        return None
    try:
        log_F = load_file(file)["sparsity"].astype(float)
    except (SafetensorError, KeyError, OSError):
        return None
    places = ((log_F[log_F > SILENT] - LOWEST) / -LOWEST * BINS).astype(int).clip(0, BINS - 1)
    counts = [0] * BINS
    for place in places.tolist():
        counts[place] += 1
    return [int((log_F <= SILENT).sum()), *counts]


def layers(file: Path) -> list[dict[str, Any]]:
    """Of a cross-layer transcoder, what each layer's latents read and write, its FVU, L0 and share of latents alive;
    nothing of other members, or where the file does not say it."""
    try:
        found = read_object(file).get("layers") if file.is_file() else None
    except (OSError, ValueError):
        return []
    some = [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []
    return [one for one in some if all(isinstance(one.get(key), kind) for key, kind in LAYER.items())]


def _alike(configs: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """The keys that all configs have with one value."""
    some = list(configs.values())
    first = some[0] if some else {}
    return {key: value for key, value in first.items() if all(one.get(key) == value for one in some)}
