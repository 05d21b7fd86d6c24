"""The environment variables that wandb's users know. What the command line or a config says goes before them."""

import os
from collections.abc import Mapping
from dataclasses import replace

from sae_sweep.config.schema import MemberConfig, TrackingConfig
from sae_sweep.errors import ConfigError
from sae_sweep.tracking.runs import TRACKERS

WANDB_MODES = ("online", "offline")
MODES = {"dryrun": "offline", "disabled": "none", "run": "online", "shared": "online"}
"""wandb's words for ours, where they differ."""
DEFAULT_MODE, DEFAULT_PROJECT = "offline", "sae-sweep"


def with_environment(config: MemberConfig) -> MemberConfig:
    """The config with what it leaves to the environment. Raises ConfigError for a mode that there is none of."""
    return replace(config, tracking=resolved(config.tracking, config.name, os.environ))


def resolved(config: TrackingConfig, sweep: str, environment: Mapping[str, str]) -> TrackingConfig:
    """What is null in `tracking`, as the variables of an environment say, or else wandb's or our defaults."""

    def told(name: str) -> str | None:
        return environment.get(f"WANDB_{name}") or None

    mode, tags = told("MODE"), told("TAGS")
    made = replace(
        config,
        mode=config.mode or MODES.get(mode or "", mode) or DEFAULT_MODE,
        project=config.project or told("PROJECT") or DEFAULT_PROJECT,
        entity=config.entity or told("ENTITY"),
        group=config.group or told("RUN_GROUP") or sweep,
        tags=[tag.strip() for tag in tags.split(",")] if config.tags is None and tags else config.tags,
        notes=config.notes or told("NOTES"),
    )
    known = (*WANDB_MODES, "none", *(name for name in TRACKERS if name != "wandb"))
    if made.mode not in known:
        where = "tracking.mode" if config.mode else "WANDB_MODE"
        raise ConfigError(f"{where}={config.mode or mode} is not one of {', '.join(known)}")
    return made
