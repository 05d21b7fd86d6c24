"""The environment variables that wandb's users know. What the command line or a config says goes before them."""

import os
from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec

from sae_sweep.config.schema import MemberConfig, TrackingConfig
from sae_sweep.errors import ConfigError
from sae_sweep.tracking.runs import TRACKERS

WANDB_MODES = ("online", "offline")
MODES = {"dryrun": "offline", "disabled": "none", "run": "online", "shared": "online"}
"""wandb's words for ours, where they differ."""
VARIABLES = {
    "project": "WANDB_PROJECT",
    "entity": "WANDB_ENTITY",
    "group": "WANDB_RUN_GROUP",
    "tags": "WANDB_TAGS",
    "notes": "WANDB_NOTES",
}
"""Keys of `tracking`, and the variables that say them where they are null."""
DEFAULT_MODE, DEFAULT_PROJECT = "offline", "sae-sweep"


def with_environment(config: MemberConfig) -> MemberConfig:
    """The config with what it leaves to the environment. Raises ConfigError for a mode that there is none of."""
    return replace(config, tracking=resolved(config.tracking, config.name, os.environ))


def resolved(config: TrackingConfig, sweep: str, environment: Mapping[str, str]) -> TrackingConfig:
    """What is null in `tracking`, as the variables of an environment say, or else wandb's or our defaults."""

    told = {key: environment.get(name) or None for key, name in VARIABLES.items()}
    mode, tags = environment.get("WANDB_MODE") or None, told["tags"]
    made = replace(
        config,
        mode=config.mode or MODES.get(mode or "", mode) or DEFAULT_MODE,
        project=config.project or told["project"] or DEFAULT_PROJECT,
        entity=config.entity or told["entity"],
        group=config.group or told["group"] or sweep,
        tags=[tag.strip() for tag in tags.split(",")] if config.tags is None and tags else config.tags,
        notes=config.notes or told["notes"],
    )
    known = (*WANDB_MODES, "none", *(name for name in TRACKERS if name != "wandb"))
    if made.mode not in known:
        where = "tracking.mode" if config.mode else "WANDB_MODE"
        raise ConfigError(f"{where}={config.mode or mode} is not one of {', '.join(known)}")
    _check_installed(made)
    return made


def _check_installed(config: TrackingConfig) -> None:
    """Raises ConfigError where a package is missing that trackers need."""
    needed = []
    if config.mode not in (*WANDB_MODES, "none"):
        needed.append((f"tracking.mode={config.mode}", getattr(TRACKERS[str(config.mode)], "NEEDS", None), config.mode))
    if config.workspace:
        needed.append(("tracking.workspace=true", "wandb_workspaces", "workspaces"))
    for asked, package, extra in needed:
        if package is not None and find_spec(package) is None:
            raise ConfigError(f"{asked}: {package} is not installed; pip install 'sae-sweep[{extra}]'")
