"""Reading composed entries into the typed config, and naming its keys.

A key that is misspelt, left out, of the wrong type or impossible is refused at this edge, before anything is loaded.
"""

from collections.abc import Iterable, Mapping
from dataclasses import MISSING, asdict, fields, is_dataclass, replace
from difflib import SequenceMatcher, get_close_matches
from functools import cache
from operator import attrgetter
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_type_hints

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sae_sweep.architectures.base import ARCHITECTURES, SaeConfig
from sae_sweep.config.schema import LATER, MemberConfig
from sae_sweep.config.values import SCALARS, shown
from sae_sweep.errors import ConfigError, first_line

DEFAULT_L0 = 32.0
PATHS = (
    *("output_dir", "init_from", "model.path", "model.adapter", "site.models"),
    *("data.path", "data.heldout_path", "data.cache"),
)
MAPPINGS = ("data.filter", "model.device_map")
"""Keys whose values may be mappings, and are no groups of keys."""
GROUPS = (*(field.name for field in fields(MemberConfig) if is_dataclass(field.type)), "experiment", "analysis")
"""Of `configs/`, whose options are files."""
UNPLACED = {
    "experiment": "no keys of a config; the first line of an experiment's file is `# @package _global_`",
    "analysis": "is asked of finished members; give `sae-sweep eval DIR --analysis NAME`",
}
"""What is wrong where a group's keys are in a member's config, which has none for them."""
type_hints = cache(get_type_hints)
"""Of a config's class: a sweep of hundreds of members asks for them thousands of times."""


def member_config(entries: Mapping[str, Any] | DictConfig) -> MemberConfig:
    """The typed config of one composed config, or of a saved config.yaml.

    What has two spellings gets one: `sae.width` wins over `sae.expansion`, `site.hook` over `site.kind` (which toy data
    has not either), the first of `site.models` is `model.path`, and a member that states neither its knob nor `sae.l0`
    has `sae.l0` = 32. Ranges are checked by the plan, not here.
    Raises ConfigError for an unknown key, a key left out, a wrong type, and for a knob together with `sae.l0`.
    """
    config: MemberConfig = typed(MemberConfig, _with_first_model(_plain(entries)), "")
    _check_homes(config)
    kindless = config.site.hook is not None or config.data.toy is not None
    site = replace(config.site, kind=None) if kindless else config.site
    return replace(config, site=site, sae=_one_spelling(config.sae))


def config_entries(config: MemberConfig) -> dict[str, Any]:
    """The config as nested plain entries; `member_config` of them is the config again."""
    return asdict(config)


def flat_entries(entries: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested entries by their dotted keys."""
    flat: dict[str, Any] = {}
    for name, value in entries.items():
        key = prefix + name
        flat |= flat_entries(value, f"{key}.") if isinstance(value, Mapping) and key not in MAPPINGS else {key: value}
    return flat


def known_keys() -> list[str]:
    """Every dotted key that some member has."""
    keys = [key for key in _keys_of(MemberConfig, "") if not key.startswith("sae.")]
    return keys + sorted({key for facts in ARCHITECTURES.values() for key in _keys_of(facts.Config, "sae.")})


def unknown_key(key: str, architecture: str | None) -> ConfigError:
    """The error for a key that no config has, or not the one of this architecture where it is known."""
    owners = [name for name, facts in ARCHITECTURES.items() if key in _keys_of(facts.Config, "sae.")]
    if owners and architecture is not None and architecture in ARCHITECTURES:
        own = ", ".join(field.name for field in fields(ARCHITECTURES[architecture].Config))
        return ConfigError(f"{key}: {architecture} has no such key (it is {', '.join(owners)}'s); its keys are {own}")
    if owners:
        return ConfigError(f"{key}: the chosen architecture has no such key; it is {', '.join(owners)}'s")
    known = known_keys()
    if key in known:
        group = key.rpartition(".")[0]
        return ConfigError(f"{key}: {group} is null here; {group.replace('.', '=')} gives it keys")
    if key in UNPLACED:
        return ConfigError(f"{key}: {UNPLACED[key]}")
    near = nearest(key, [*known, *GROUPS])
    return ConfigError(f"{key}: no such key; " + (f"did you mean {near}?" if near else "`sae-sweep --help` lists them"))


def nearest(key: str, known: Iterable[str]) -> str | None:
    """The known key that was meant: one of the same last word (`lr`, `wandb.project`), else one of like letters as a
    whole (`trainin.tokens`), else one of a like last word."""
    known = list(known)
    last = {name: name.rpartition(".")[2] for name in known}
    own = key.rpartition(".")[2]
    same = [name for name in known if last[name] == own]
    if same:
        return max(same, key=lambda name: SequenceMatcher(None, key, name).ratio())
    whole = get_close_matches(key, known, n=1)
    return next(
        iter(
            whole
            or [name for near in get_close_matches(own, last.values(), n=1) for name in known if last[name] == near]
        ),
        None,
    )


def _check_homes(config: MemberConfig) -> None:
    """Raises ConfigError for a path in the home of somebody that this machine does not know."""
    for key in PATHS:
        given = attrgetter(key)(config)
        for path in given if isinstance(given, list) else [given]:
            try:
                Path(path or "").expanduser()
            except RuntimeError as error:
                raise ConfigError(f"{key}={path}: this machine knows no such user; give a path without ~") from error


def _plain(entries: Mapping[str, Any] | DictConfig) -> Mapping[str, Any]:
    if not isinstance(entries, DictConfig):
        return entries
    try:
        plain = OmegaConf.to_container(entries, resolve=True)
    except OmegaConfBaseException as error:
        key = error.full_key or "the config"
        raise ConfigError(f"{key}: cannot be resolved ({first_line(error)})") from error
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def _with_first_model(entries: Mapping[str, Any]) -> Mapping[str, Any]:
    """The entries with `model.path` and `model.name` from `site.models`, where that alone says the models."""
    model, site = entries.get("model"), entries.get("site")
    models = site.get("models") if isinstance(site, Mapping) else None
    if not isinstance(model, Mapping) or model.get("path") not in (None, "???"):
        return entries
    if not isinstance(models, list) or not models or not isinstance(models[0], str):
        return entries
    return {**entries, "model": {**model, "path": models[0], "name": models[0]}}


def typed(cls: Any, entries: Any, prefix: str) -> Any:
    """An instance of dataclass `cls`; `prefix` is the dotted path to it, with its last dot.

    Raises ConfigError for an unknown key, a key left out, and a wrong type.
    """
    if not isinstance(entries, Mapping):
        raise ConfigError(
            f"{prefix[:-1]}={shown(entries)} is a group of keys; give one, like {_keys_of(cls, prefix)[0]}"
        )
    if cls is SaeConfig:
        cls = _architecture(entries.get("architecture"))
    names, types = [field.name for field in fields(cls)], type_hints(cls)
    entries = {field.name: field.default for field in fields(cls) if field.default is not MISSING} | dict(entries)
    if issubclass(cls, SaeConfig) and set(names) - set(entries) and set(entries) - set(names):
        _check_owner(entries)
    for name in entries:
        if name not in names:
            raise unknown_key(f"{prefix}{name}", entries.get("architecture"))
    for name in names:
        if (name not in entries and prefix + name not in LATER) or entries.get(name) == "???":
            raise ConfigError(f"{prefix}{name} is not given; give {prefix}{name}=...")
    given = {name: entries[name] if name in entries else LATER[prefix + name] for name in names}
    return cls(**{name: typed_value(types[name], value, prefix + name) for name, value in given.items()})


def _check_owner(entries: Mapping[str, Any]) -> None:
    """Raises ConfigError where the architecture's name stands among the keys of another one."""
    name = entries["architecture"]
    needed = {known: _needed(facts.Config) for known, facts in ARCHITECTURES.items()}
    owners = [known for known, keys in needed.items() if known != name and keys <= set(entries)]
    owner = max(owners, key=lambda known: len(needed[known]), default=None)
    if owner is not None:
        raise ConfigError(
            f"sae.architecture={name} is among the keys of {owner}; choose an architecture by its file, sae={name}"
        )


def _needed(cls: type[SaeConfig]) -> set[str]:
    """The keys that have no default."""
    return {field.name for field in fields(cls) if field.default is MISSING}


def _architecture(name: Any) -> type[SaeConfig]:
    if name not in ARCHITECTURES:
        raise ConfigError(f"sae.architecture={shown(name)} is not one of {', '.join(ARCHITECTURES)}")
    config: type[SaeConfig] = ARCHITECTURES[name].Config
    return config


def typed_value(kind: Any, value: Any, key: str) -> Any:
    """The value as the type of its key has it. Raises ConfigError for a wrong type."""
    options = get_args(kind) or (kind,)
    if value is None and NoneType in options:
        return None
    wanted = _stated(kind)
    if is_dataclass(wanted):
        return typed(wanted, value, f"{key}.")
    try:
        return SCALARS[wanted](value)
    except ValueError as error:
        or_null = " or null" if NoneType in options else ""
        raise ConfigError(f"{key}={shown(value)} is not {error}{or_null}") from None


def _stated(kind: Any) -> Any:
    """The type a value has when it is not null."""
    if kind in SCALARS:
        return kind
    return next(option for option in get_args(kind) or (kind,) if option is not NoneType)


def _one_spelling(sae: SaeConfig) -> SaeConfig:
    knob = sae.knob()
    value: float | None = getattr(sae, knob)
    if value is not None and sae.l0 is not None:
        raise ConfigError(
            f"sae.{knob}={value:g} and sae.l0={sae.l0:g} both set the sparsity; give one and leave the other null"
        )
    if sae.width is None and sae.expansion is None:
        raise ConfigError("sae.width and sae.expansion are both null; give one")
    return replace(
        sae,
        l0=DEFAULT_L0 if value is None and sae.l0 is None else sae.l0,
        expansion=sae.expansion if sae.width is None else None,
    )


@cache
def _keys_of(cls: Any, prefix: str) -> tuple[str, ...]:
    keys: list[str] = []
    for name, kind in type_hints(cls).items():
        group: type = _stated(kind)
        keys += _keys_of(group, f"{prefix}{name}.") if is_dataclass(group) else [prefix + name]
    return tuple(keys)
