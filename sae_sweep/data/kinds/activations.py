"""Activations that are stored already, of any model: `data=activations data.path=FILES`."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sae_sweep.config.schema import DataConfig
from sae_sweep.data.origin import Origin, opened, origins
from sae_sweep.errors import ConfigError

if TYPE_CHECKING:
    from sae_sweep.data.stored.feed import Feed

MODEL = TOKENIZES = False
STORED = True
READS = ("path", "heldout_path", "max_norm_ratio")
HELDOUT = ("kind", "path", "field", "heldout_path", "context")
NOUN = "stored activations"
MEANING = "They were read from files as some model left them; no model has been loaded."


def check(config: DataConfig) -> None:
    from sae_sweep.data.stored.formats import stored_files

    train, heldout = opened(config, lambda origin: {file.resolve() for file in stored_files(origin)})
    if heldout and train & heldout:
        label = f"data.heldout_path={config.heldout_path}"
        raise ConfigError(f"{label} names files of data.path too, such as {min(train & heldout)}")


def note(config: DataConfig) -> None:
    """It goes without saying."""


def dimensions(config: DataConfig) -> int:
    from sae_sweep.data.stored.formats import shards

    return shards(origins(config)[0])[0].shape[-1]


def files(origin: Origin) -> list[Path]:
    from sae_sweep.data.stored.formats import stored_files

    return stored_files(origin)


def title(data: Mapping[str, Any]) -> str:
    return str(data["path"])


def facts(data: Mapping[str, Any]) -> list[tuple[str, str]]:
    held = data["heldout_path"] or "the first rows"
    return [("Activations", str(data["path"])), ("Array", str(data["field"])), ("Held out", str(held))]


def open_stored(config: DataConfig, evaluation_tokens: float) -> "Feed":
    """The rows that are held out, and those to train on. Raises ConfigError."""
    from sae_sweep.data.stored.rows import open_stored

    return open_stored(config, evaluation_tokens)
