"""SAEs from folders and from the Hugging Face hub, in any format that is known."""

import json
from pathlib import Path
from typing import Any

from sae_sweep.api.home import Home
from sae_sweep.api.sae import Sae
from sae_sweep.errors import ConfigError
from sae_sweep.folder import names
from sae_sweep.interop import load_sae
from sae_sweep.interop.command.hub import located


def load(source: str | Path, hook: str | None = None, model: str | None = None) -> Sae:
    """The SAE in a folder, or of `hub:USER/REPO/MEMBER@REVISION` (the member and the revision may be left out).

    Any format of `sae_sweep/interop/` is read. `hook`, where it reads, and `model`, a folder or hub id, are for those
    that do not say them. Raises ConfigError, in one line, where there is no SAE, or its files are damaged.

    >>> sae = ss.load("outputs/mine/topk-l0_8-w256")
    >>> sae.W_dec.shape, sae.cfg.hook_name
    (torch.Size([256, 128]), 'blocks.2.hook_resid_post')
    """
    folder = located(source)
    if not folder.exists():
        raise ConfigError(f"{source} does not exist; give the folder of one SAE, or hub:USER/REPO/MEMBER@REVISION")
    try:
        told = {"hook_name": hook, "model_name": model}
        given = {key: value for key, value in told.items() if value is not None}
        return Sae(load_sae(folder), Home(folder, {**_metadata(folder), **given}))
    except (ValueError, OSError) as error:
        raise ConfigError(f"{source}: {' '.join(str(error).split())}") from error


def _metadata(folder: Path) -> dict[str, Any]:
    """What cfg.json says beside the SAE; newer ones keep it apart."""
    file = folder / names.CARD
    if not file.is_file():
        return {}
    found = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(found, dict):
        return {}
    apart = found.get("metadata")
    return {**found, **apart} if isinstance(apart, dict) else found
