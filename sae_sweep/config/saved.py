"""Configs read back from saved entries, which another version of this program may have written."""

from collections.abc import Mapping
from dataclasses import MISSING, fields
from functools import cache
from typing import Any

from sae_sweep.architectures.base import ARCHITECTURES, SaeConfig
from sae_sweep.config.reading import type_hints, typed_value
from sae_sweep.config.schema import LATER, MemberConfig
from sae_sweep.errors import ConfigError

_NEEDED: dict[str, Any] = {
    "sae.architecture": str,
    "training.batch_size": int,
    "training.tokens": int | float,
}
_GROUPS = {group: type_hints(MemberConfig)[group] for group in ("model", "site", "data", "training", "evaluation")}


def architecture_label(config: Mapping[str, Any]) -> str:
    """How reports and trackers name an architecture: as the members' folders do, with its variant, whether it is
    tokenized, and the objective where that is not the local one, and whether it began from a finished member."""
    sae = saved_sae(config["sae"])
    name = str(config["sae"]["architecture"]) if sae is None else sae.method()
    objective = config.get("training", {}).get("objective", "local")
    origin = "finetuned" if config.get("init_from") else ""
    return " ".join(word for word in (name, objective if objective != "local" else "", origin) if word)


def wrong_value(config: Mapping[str, Any]) -> str | None:
    """What is wrong with the first value of saved entries that is of another type than its key, in words; keys that
    this version has not are passed over, and so are those that it lacks, but for the few without which no member is."""
    for key, kind in _NEEDED.items():
        group, _, name = key.partition(".")
        if not isinstance(config[group].get(name), kind) or config[group][name] in (0, ""):
            return f"{key} is not what it must be"
    known = ARCHITECTURES.get(config["sae"]["architecture"])
    for group, cls in [*_GROUPS.items(), *([("sae", known.Config)] if known else [])]:
        types = type_hints(cls)
        for key, value in config[group].items():
            try:
                if key in types:
                    typed_value(types[key], value, f"{group}.{key}")
            except ConfigError as error:
                return str(error)
    return None


def saved_knob(sae: Mapping[str, Any]) -> tuple[str, float | None]:
    """The key that set a member's sparsity, and its value."""
    if sae.get("l0") is not None:
        return "l0", sae["l0"]
    known = ARCHITECTURES.get(str(sae["architecture"]))
    names = ("l1", "k", "l0_coefficient") if known is None else (known.Config.knob(),)
    return next(((name, sae[name]) for name in names if sae.get(name) is not None), (names[0], None))


@cache
def later_keys(architecture: str) -> dict[str, Any]:
    """The keys that came later to members of an architecture, and what they are for one that was written before."""
    known = ARCHITECTURES.get(architecture)
    own = fields(known.Config) if known else ()
    return {**LATER, **{f"sae.{key.name}": key.default for key in own if key.default is not MISSING}}


def saved_sae(sae: Mapping[str, Any]) -> SaeConfig | None:
    """The typed config of saved entries; None for those of another version, of which less is shown."""
    known = ARCHITECTURES.get(str(sae["architecture"]))
    try:
        return None if known is None else known.Config(**sae)
    except TypeError:
        return None
