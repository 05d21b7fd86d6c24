"""Configs read back from saved entries, which another version of this program may have written."""

from collections.abc import Mapping
from typing import Any

from sae_sweep.architectures.base import ARCHITECTURES, SaeConfig


def architecture_label(config: Mapping[str, Any]) -> str:
    """How reports and trackers name an architecture: as the members' folders do, with its variant, whether it is
    tokenized, and the objective where that is not the local one, and whether it began from a finished member."""
    sae = saved_sae(config["sae"])
    name = str(config["sae"]["architecture"]) if sae is None else sae.method()
    objective = config.get("training", {}).get("objective", "local")
    origin = "finetuned" if config.get("init_from") else ""
    return " ".join(word for word in (name, objective if objective != "local" else "", origin) if word)


def saved_sae(sae: Mapping[str, Any]) -> SaeConfig | None:
    """The typed config of saved entries; None for those of another version, of which less is shown."""
    known = ARCHITECTURES.get(str(sae["architecture"]))
    try:
        return None if known is None else known.Config(**sae)
    except TypeError:
        return None
