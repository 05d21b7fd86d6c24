"""The files of `configs/`, where each default is written once; and a config from what differs from them alone."""

from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from sae_sweep.config.command_line import read_value
from sae_sweep.config.reading import config_entries, member_config, unknown_key
from sae_sweep.config.schema import MemberConfig
from sae_sweep.errors import ConfigError, reading_yaml

SOURCE_KEYS = ("kind", "toy", "path", "weights", "name", "split", "field", "heldout_path", "heldout_split")
"""Of data: where tokens are from, not how rows are made of them."""
RUNTIME_GROUPS = ("tracking", "launcher")


def config_folder() -> Path:
    """`configs/` of the checkout where there is one, else the copy inside the installed package."""
    package = Path(__file__).resolve().parents[1]
    checkout = package.parent
    return checkout / "configs" if (checkout / "pyproject.toml").is_file() else package / "configs"


def config_of(asked: Mapping[str, Any] | Iterable[str]) -> MemberConfig:
    """The config of one member from what differs from the files, in the command line's words but without Hydra.

    A group's name chooses one of its files, a dotted key sets a value: `{"sae": "topk", "sae.k": 8}`, or the same as
    `["sae=topk", "sae.k=8"]`. Raises ConfigError for an option or key that does not exist, and as `member_config` does.
    """
    if not isinstance(asked, Mapping):
        asked = _by_key(asked)
    primary = _read(config_folder() / "config.yaml")
    options = {group: name for entry in primary["defaults"] if entry != "_self_" for group, name in entry.items()}
    groups = {group: asked.get(group, name) for group, name in options.items() if not group.startswith("override ")}
    own = {key: value for key, value in primary.items() if key not in ("defaults", "hydra")}
    entries = OmegaConf.create({**own, **{group: _option(group, str(name)) for group, name in groups.items()}})
    return _with_keys(entries, {key: value for key, value in asked.items() if key not in groups})


def saved_config(file: Path) -> MemberConfig:
    """The config of a member's config.yaml, which an earlier version may have written: of the groups that say nothing
    of what a member is, keys that it lacks are as `configs/` has them, and keys that are no more are left out. Raises
    ConfigError as `member_config` does."""
    with reading_yaml(lambda why: f"{file} cannot be read ({why}); train the member again"):
        entries: Any = OmegaConf.load(file)
    if not isinstance(entries, DictConfig):
        raise ConfigError(f"{file} holds no config; train the member again")
    for group, now in _runtime().items():
        saved = entries.get(group) or {}
        entries[group] = {key: saved.get(key, value) for key, value in now.items()}
    try:
        return member_config(entries)
    except ConfigError as error:
        raise ConfigError(f"{file} is cut short, or of another version ({error}); train the member again") from error


@cache
def _runtime() -> dict[str, dict[str, Any]]:
    """The groups that say nothing of what a member is, as they are where nothing is asked for."""
    entries = config_entries(config_of([]))
    return {group: entries[group] for group in RUNTIME_GROUPS}


def other_data(config: MemberConfig, asked: Iterable[str]) -> MemberConfig:
    """The config with another source of data, or other keys of it, in the command line's words: `data=text`,
    `data.path=FILE`. How rows are made of it (`data.context` ...) stays as it is where that is not said. Raises
    ConfigError as `config_of` does."""
    given = _by_key(asked)
    entries = OmegaConf.create(config_entries(config))
    if "data" in given:
        source = _option("data", str(given.pop("data")))
        entries.data = {**entries.data, **{key: source[key] for key in SOURCE_KEYS}}
    return _with_keys(entries, given)


def other_site(config: MemberConfig, asked: Iterable[str]) -> MemberConfig:
    """The config at another site, in the command line's words: `site.layer=3`, `site=mlp_out`, `site.hook=HOOK`. The
    layer stays where it is not said, but with a hook, which names its own. Raises ConfigError as `config_of` does."""
    given = _by_key(asked)
    entries = OmegaConf.create(config_entries(config))
    if "site" in given:
        kept = {"layer": entries.site.layer}
        entries.site = {**_option("site", str(given.pop("site"))), **kept}
    if given.get("site.hook") is not None:
        entries.site = {**entries.site, "kind": None, "layer": None}
    elif given.get("site.kind") is not None:
        entries.site.hook = None
    return _with_keys(entries, given)


def _with_keys(entries: DictConfig, asked: Mapping[str, Any]) -> MemberConfig:
    for key, value in asked.items():
        parent = OmegaConf.select(entries, key.rpartition(".")[0]) if "." in key else entries
        if not isinstance(parent, DictConfig):
            raise unknown_key(key, entries.sae.architecture)
        parent[key.rpartition(".")[2]] = value
    return member_config(entries)


def _by_key(asked: Iterable[str]) -> dict[str, Any]:
    lines = [line.partition("=") for line in asked]
    return {key: read_value(key, value) for key, _, value in lines}


@cache
def _option(group: str, name: str) -> DictConfig:
    """A file of a group, with those that it begins as."""
    file = config_folder() / group / f"{name}.yaml"
    if not file.is_file():
        known = sorted(path.stem for path in file.parent.glob("*.yaml"))
        raise ConfigError(f"{group}={name} is not one of {', '.join(known)}")
    own = _read(file)
    begins = [base for base in own.get("defaults", []) if base != "_self_"]
    # One outside of the group is named from the root: `/every_sae@_here_`.
    bases = [_option("", base[1:].partition("@")[0]) if base[0] == "/" else _option(group, base) for base in begins]
    made = OmegaConf.merge(*bases, {key: value for key, value in own.items() if key != "defaults"})
    assert isinstance(made, DictConfig)
    return made


@cache
def _read(file: Path) -> dict[str, Any]:
    entries = OmegaConf.to_container(OmegaConf.load(file))
    assert isinstance(entries, dict)
    return {str(key): value for key, value in entries.items()}
