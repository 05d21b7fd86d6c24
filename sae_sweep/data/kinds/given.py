"""Activations that a Python program hands over: `ss.train(..., activations=f)` sets `data=given`."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sae_sweep.config.schema import DataConfig
from sae_sweep.data.origin import Origin
from sae_sweep.errors import ConfigError

if TYPE_CHECKING:
    from sae_sweep.data.given import Given
    from sae_sweep.data.stored.feed import Feed

MODEL = TOKENIZES = False
STORED = True
READS = ("path",)
HELDOUT = ("kind", "path", "context")
NOUN = "activations of a Python program"
MEANING = "A program handed them over, block after block; no model of ours has been loaded."


def check(config: DataConfig) -> None:
    _given(config)


def note(config: DataConfig) -> None:
    """It goes without saying."""


def _given(config: DataConfig) -> "Given":
    from sae_sweep.data.given import GIVEN

    if config.path not in GIVEN:
        raise ConfigError(
            "data.kind=given: activations are handed over in Python, by ss.train(..., activations=f); of files take"
            " data=activations"
        )
    return GIVEN[config.path]


def files(origin: Origin) -> list[Path]:
    return []


def dimensions(config: DataConfig) -> int:
    return _given(config).width


def title(data: Mapping[str, Any]) -> str:
    return str(data["path"])


def facts(data: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [("Activations", f"handed over as {data['path']}"), ("Held out", "the first of them")]


def open_stored(config: DataConfig, evaluation_tokens: float) -> "Feed":
    """The blocks that are held out, and those to train on. Raises ConfigError."""
    from sae_sweep.data.given import GivenData

    return GivenData(_given(config), evaluation_tokens)
