"""From one job's Hydra overrides to its config, without composing each job from the files.

Composing takes Hydra 50 ms. Jobs that choose the same groups differ in values only, so the choice is composed
once and the values are merged into a copy, which is what Hydra itself does last. Copying its config takes 3 ms, and a
copy of the same plain entries a fiftieth of it, which serves most jobs.
"""

import copy
from collections.abc import Sequence
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from sae_sweep.config.reading import unknown_key
from sae_sweep.errors import ConfigError, first_line


def compose_jobs(
    loader: ConfigLoader, master: DictConfig, jobs: Sequence[Sequence[str]]
) -> list[DictConfig | dict[str, Any]]:
    """The config of each job, without its `hydra` node; as plain entries where that is the same.

    Raises ConfigError for a key that the job's config does not have, and Hydra's errors for the rest.
    """
    parser = OverridesParser.create(config_loader=loader)
    groups = GroupKeys(loader)
    parsed = {text: parser.parse_overrides([text])[0] for text in dict.fromkeys(text for job in jobs for text in job)}
    values = {text: override for text, override in parsed.items() if _sets_a_value(override, groups)}
    composed: dict[tuple[str, ...], Composed] = {}
    configs = []
    for job in jobs:
        choice = tuple(text for text in job if text not in values)
        if choice not in composed:
            composed[choice] = Composed(_compose(loader, master, choice))
        configs.append(composed[choice].with_values([values[text] for text in job if text in values]))
    return configs


class GroupKeys:
    """Tells the keys that choose a file of a config group. It remembers, for Hydra reads the folders each time."""

    def __init__(self, loader: ConfigLoader) -> None:
        self._loader = loader
        self._known: dict[str, bool] = {}

    def __contains__(self, key: object) -> bool:
        name = str(key)
        if name not in self._known:
            self._known[name] = bool(self._loader.get_group_options(name))
        return self._known[name]


class Composed:
    """The config of a choice of groups, and copies of it with other values."""

    def __init__(self, config: DictConfig) -> None:
        entries = OmegaConf.to_container(config)
        self._config = config
        self._entries = entries if isinstance(entries, dict) and "${" not in str(entries) else None

    def with_values(self, overrides: Sequence[Override]) -> DictConfig | dict[str, Any]:
        """A copy with these values. Raises ConfigError for a key that is not there."""
        values = [(override.key_or_group.split("."), override.value()) for override in overrides]
        if self._entries is None or not all(self._is_plain(keys, value) for keys, value in values):
            return _merged(self._config, overrides)
        entries = copy.deepcopy(self._entries)
        for keys, value in values:
            self._parent(entries, keys)[keys[-1]] = value
        return {str(key): value for key, value in entries.items()}

    def _is_plain(self, keys: Sequence[str], value: object) -> bool:
        """Whether a value takes the place of one, as it is."""
        parent = self._parent(self._entries, keys)
        group = isinstance(value, dict) or (isinstance(parent, dict) and isinstance(parent.get(keys[-1]), dict))
        return isinstance(parent, dict) and keys[-1] in parent and not group and "${" not in str(value)

    @staticmethod
    def _parent(entries: Any, keys: Sequence[str]) -> Any:
        """The entries that hold the last key; None where there are none."""
        for key in keys[:-1]:
            entries = entries.get(key) if isinstance(entries, dict) else None
        return entries


def _sets_a_value(override: Override, groups: GroupKeys) -> bool:
    plain = override.type == OverrideType.CHANGE and override.package is None
    return plain and not override.is_hydra_override() and override.key_or_group not in groups


def _compose(loader: ConfigLoader, master: DictConfig, choice: Sequence[str]) -> DictConfig:
    try:
        config = loader.load_sweep_config(master, list(choice))
    except ValueError as error:  # what Hydra raises for a group choice that is a number
        raise ConfigError(f"{' '.join(choice)}: {error}") from error
    with open_dict(config):
        del config["hydra"]
    return config


def _merged(composed: DictConfig, values: Sequence[Override]) -> DictConfig:
    config = copy.deepcopy(composed)
    for override in values:
        try:
            OmegaConf.update(config, override.key_or_group, override.value(), merge=True)
        except (ConfigAttributeError, ConfigKeyError) as error:
            raise unknown_key(
                max(error.full_key or "", override.key_or_group, key=len), config.sae.architecture
            ) from error
        except OmegaConfBaseException as error:
            raise ConfigError(f"{override.input_line}: {first_line(error)}") from error
    return config
