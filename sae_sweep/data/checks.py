"""What can be told of the data from the config and the presence of files alone. No torch, no numpy."""

import math
from dataclasses import is_dataclass
from pathlib import Path

from sae_sweep.config.schema import LATER, DataConfig
from sae_sweep.config.values import shown
from sae_sweep.data.kinds import KINDS, DataKind, data_kind
from sae_sweep.data.origin import origins, sources_of
from sae_sweep.errors import ConfigError

BOS_POLICIES = ("auto", "always", "never")
PACKINGS = ("concat", "document")
ATTENTIONS = ("row", "document")
COUNTED = ("all", "assistant", "user")


def check_data(config: DataConfig) -> None:
    """Raises ConfigError for what can be told from the config and the presence of files alone."""
    kind = data_kind(config.kind)
    one_of = {"bos": BOS_POLICIES, "packing": PACKINGS, "attention": ATTENTIONS, "positions_of": COUNTED}
    for name, known in one_of.items():
        if getattr(config, name) not in known:
            raise ConfigError(f"data.{name}={getattr(config, name)} is not one of {', '.join(known)}")
    if config.positions_of != "all" and not config.chat:
        raise ConfigError(f"data.positions_of={config.positions_of} is of conversations; give data.chat=true, or all")
    if config.attention == "document" and (config.packing == "document" or config.chat):
        other = "data.chat=true: its EOS may end messages" if config.chat else "data.packing=document"
        raise ConfigError(
            f"data.attention=document with {other}; take data.packing=document alone, or data.attention=row"
        )
    least = {"context": 2, "seed": 0, "window_rows": 1, "block_rows": 1, "rows_per_forward": 1}
    for name, bound in least.items():
        if getattr(config, name) < bound:
            raise ConfigError(f"data.{name}={getattr(config, name)} must be at least {bound}")
    ratio = config.max_norm_ratio
    if ratio is not None and not isinstance(ratio, str) and not ratio > 1:
        raise ConfigError(f"data.max_norm_ratio={ratio:g} must be above 1, auto, or null for no guard")
    if not 0 <= config.max_bad_records < 1:
        raise ConfigError(f"data.max_bad_records={config.max_bad_records:g} must be from 0 to below 1")
    if config.filter == {}:
        raise ConfigError("data.filter={} names no field; give {field:value}, or null")
    _check_unread(config, kind)
    _check_cache(config.cache)
    _check_weights(config)
    for source, _ in sources_of(config):
        kind.check(source)
    if config.weights is not None:
        _check_apart(config, kind)


def _check_unread(config: DataConfig, kind: DataKind) -> None:
    of_models = () if kind.MODEL else ("cache",)
    for key in (
        "toy",
        "path",
        "name",
        "heldout_path",
        "heldout_split",
        *of_models,
        "filter",
        "packing",
        "attention",
        "chat",
        "weights",
    ):
        value = getattr(config, key)
        if key not in kind.READS and value != LATER.get(f"data.{key}"):
            named = f"data.{key}" if is_dataclass(value) else f"data.{key}={shown(value)}"
            others = ", ".join(name for name in KINDS if key in data_kind(name).READS)
            there = f" (it is with {others})" if others else ""
            raise ConfigError(f"{named} is not read with data.kind={config.kind}{there}; leave it null")


def _check_weights(config: DataConfig) -> None:
    """Raises ConfigError for weights that are not one for each of several paths."""
    weights = config.weights
    if weights is None:
        return
    key = f"data.weights={shown(weights)}"
    if not isinstance(config.path, list) or len(config.path) != len(weights) or len(weights) < 2:
        raise ConfigError(f"{key}: give a weight for each of several sources, data.path=[A,B] data.weights=[0.7,0.3]")
    if not all(0 < weight < math.inf for weight in weights):
        raise ConfigError(f"{key}: weights are numbers above 0, in whatever unit")
    held = config.heldout_path
    if held is not None and (not isinstance(held, list) or len(held) != len(weights)):
        raise ConfigError(f"data.heldout_path={shown(held)}: with data.weights it is null, or a list of as many")


def _check_apart(config: DataConfig, kind: DataKind) -> None:
    """Raises ConfigError where two sources have a file in common, so that one would train on what another holds out."""
    seen: set[object] = set()
    for source, _ in sources_of(config):
        for origin in filter(None, origins(source)):
            files = kind.files(origin)
            found: set[object] = {f"{origin.path} {origin.split}"} if files is None else {f.resolve() for f in files}
            if both := seen & found:
                raise ConfigError(f"{origin.label}: {min(map(str, both))} is in two of the sources of data.weights")
            seen |= found


def _check_cache(cache: str | None) -> None:
    if cache is None:
        return
    folder = Path(cache).expanduser().absolute()
    place = next(each for each in (folder, *folder.parents) if each.exists())
    if not cache or not place.is_dir():
        why = f"{place} is a file" if cache else "it is empty"
        raise ConfigError(f"data.cache={cache} is no folder ({why}); give a folder, or null to keep nothing")
