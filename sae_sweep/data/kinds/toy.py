"""Synthetic activations whose true latents are known: `data=toy`, made from data.seed as `data/toy.py` says."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sae_sweep.config.schema import DataConfig, ToyConfig
from sae_sweep.errors import ConfigError

if TYPE_CHECKING:
    from sae_sweep.data.toy import ToyData

MODEL = TOKENIZES = STORED = False
NOUN = "synthetic activations"
MEANING = "Each is a sum of a few true latents, which are random directions and known; no model has been read."
READS = ("toy",)
HELDOUT = ("kind", "toy", "seed", "context")


def check(config: DataConfig) -> None:
    toy = _given(config)
    for name in ("dimensions", "latents"):
        if getattr(toy, name) < 1:
            raise ConfigError(f"data.toy.{name}={getattr(toy, name)} must be at least 1")
    if not 0 < toy.active <= toy.latents:
        raise ConfigError(f"data.toy.active={toy.active:g} must be above 0 and at most data.toy.latents={toy.latents}")
    if not 0 < toy.decay <= 1:
        raise ConfigError(f"data.toy.decay={toy.decay:g} must be above 0 and at most 1")
    if toy.noise < 0:
        raise ConfigError(f"data.toy.noise={toy.noise:g} must not be negative")
    if toy.zipf is not None and toy.zipf < 0:
        raise ConfigError(f"data.toy.zipf={toy.zipf:g} must not be negative; null has decay in its place")
    if toy.roots is not None and not 1 <= toy.roots <= toy.latents:
        raise ConfigError(f"data.toy.roots={toy.roots} must be from 1 to data.toy.latents={toy.latents}")
    if toy.children < 1:
        raise ConfigError(f"data.toy.children={toy.children} must be at least 1")
    if toy.exclusive and toy.roots is None:
        raise ConfigError("data.toy.exclusive=true is of children, and data.toy.roots=null gives none; give roots=")
    if toy.rank is not None and (toy.rank < 1 or not toy.correlated):
        raise ConfigError(f"data.toy.rank={toy.rank} must be at least 1, and takes data.toy.correlated=true")


def note(config: DataConfig) -> None:
    """It goes without saying."""


def _given(config: DataConfig) -> ToyConfig:
    if config.toy is None:
        raise ConfigError("data.kind=toy needs data.toy; data=toy sets both")
    return config.toy


def dimensions(config: DataConfig) -> int:
    return _given(config).dimensions


def title(data: Mapping[str, Any]) -> str:
    return f"{data['toy']['latents']} true latents in {data['toy']['dimensions']} dimensions"


def facts(data: Mapping[str, Any]) -> list[tuple[str, str]]:
    toy = data["toy"]
    return [
        ("True latents", str(toy["latents"])),
        ("Dimensions", str(toy["dimensions"])),
        ("Active in a row", f"{toy['active']:g}, {'correlated' if toy['correlated'] else 'each for itself'}"),
        _frequencies(toy),
        ("Noise", f"{toy['noise']:g}"),
        *_hierarchy(toy),
    ]


def _frequencies(toy: Mapping[str, Any]) -> tuple[str, str]:
    """Keys that came later may lack."""
    if toy.get("zipf") is not None:
        return "Zipf exponent of frequencies", f"{toy['zipf']:g}"
    return "Decay of frequencies", f"{toy['decay']:g}"


def _hierarchy(toy: Mapping[str, Any]) -> list[tuple[str, str]]:
    if toy.get("roots") is None:
        return []
    only = ", of which one is active at most" if toy.get("exclusive") else ""
    return [("Hierarchy", f"{toy['roots']} roots, {toy.get('children', 4)} children each{only}")]


def open_synthetic(config: DataConfig) -> "ToyData":
    from sae_sweep.data.toy import ToyData

    return ToyData(_given(config), config.seed)
