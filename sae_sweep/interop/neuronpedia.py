"""Folders for Neuronpedia, whose dashboards are made from SAELens folders that say which source they will be.

cfg.json: metadata.neuronpedia_id = <model>/<layer>-sae-sweep-<hook>-<latents>
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sae_sweep.interop import saelens
from sae_sweep.saes.inference import InferenceSae


def recognise(folder: Path) -> bool:
    """Never: what `write` writes is SAELens's."""
    return False


def write(
    folder: Path, sae: InferenceSae, metadata: Mapping[str, Any], frequency_F: Tensor | None, dtype: torch.dtype
) -> None:
    """Write a folder that `SAE.load_from_disk` reads. Raises ValueError for what SAELens has no architecture of, and
    where nothing says the hook or the model."""
    words = str(metadata.get("hook_name", "")).split(".")
    layer = next((word for word in words if word.isdecimal()), None)
    model = str(metadata.get("model_name") or "").rstrip("/").rpartition("/")[2]
    if layer is None or not model:
        raise ValueError("cfg.json says no model_name, or no hook_name with a layer, which make the source's name")
    saelens.check_theirs(sae)
    named = f"{model}/{layer}-sae-sweep-{words[-1].removeprefix('hook_')}-{sae.width}"
    saelens.write(folder, sae, {**metadata, "neuronpedia_id": named}, frequency_F, dtype)
