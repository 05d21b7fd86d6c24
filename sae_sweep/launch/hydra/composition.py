"""From one job's Hydra overrides to its config, without composing each job from the files.

Composing takes Hydra 50 ms. Jobs that choose the same groups differ in values only, so the choice is composed
once and the values are merged into a copy, which is what Hydra itself does last.
"""

import copy
from collections.abc import Sequence

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from sae_sweep.config.reading import unknown_key
from sae_sweep.errors import ConfigError, first_line


def compose_jobs(loader: ConfigLoader, master: DictConfig, jobs: Sequence[Sequence[str]]) -> list[DictConfig]:
    """The config of each job, without its `hydra` node.

    Raises ConfigError for a key that the job's config does not have, and Hydra's errors for the rest.
    """
    parser = OverridesParser.create(config_loader=loader)
    groups = GroupKeys(loader)
    parsed = {text: parser.parse_overrides([text])[0] for text in dict.fromkeys(text for job in jobs for text in job)}
    values = {text: override for text, override in parsed.items() if _sets_a_value(override, groups)}
    composed: dict[tuple[str, ...], DictConfig] = {}
    configs = []
    for job in jobs:
        choice = tuple(text for text in job if text not in values)
        if choice not in composed:
            composed[choice] = _compose(loader, master, choice)
        configs.append(_merged(composed[choice], [values[text] for text in job if text in values]))
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
