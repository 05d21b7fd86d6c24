"""`sae-sweep upload DIR` and `sae-sweep dashboard DIR`: what is asked of them, and what goes with the runs."""

import os
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_type_hints

import yaml  # type: ignore[import-untyped]

from sae_sweep.config.command_line import read_value
from sae_sweep.config.reading import typed_value
from sae_sweep.config.schema import TrackingConfig
from sae_sweep.errors import ConfigError
from sae_sweep.folder import names
from sae_sweep.folder.record import read_record
from sae_sweep.tracking.environment import VARIABLES, resolved

KEYS = ("mode", "project", "entity", "group", "tags", "notes", "artifacts")
"""Of `tracking`, that the commands take."""


def upload_sweep(folder: Path, words: Sequence[str]) -> None:
    """Send a sweep with `tracking.KEY=VALUE` words. Raises ConfigError for others, and where nothing can be sent."""
    asked = asked_of(folder, words)
    if asked.mode != "online" and any(word.partition("=")[0].endswith("mode") for word in words):
        raise ConfigError(f"tracking.mode={asked.mode}: upload sends what is on disk to a server; leave it out")
    from sae_sweep.reporting.pareto import cells
    from sae_sweep.reporting.points import read_sweep
    from sae_sweep.reporting.summary import frontier_tables
    from sae_sweep.tracking.upload import upload  # brings in wandb

    found = cells(read_sweep(folder).points)
    upload(folder, replace(asked, mode="online"), frontier_tables(found))


def dashboard_sweep(folder: Path, words: Sequence[str]) -> None:
    """Make the workspace of a sweep, with `tracking.KEY=VALUE` words. Raises ConfigError as `upload_sweep`."""
    asked = asked_of(folder, words)
    from sae_sweep.reporting.pareto import cells
    from sae_sweep.reporting.points import read_sweep
    from sae_sweep.tracking.dashboard import make_dashboard

    found = cells(read_sweep(folder).points)
    make_dashboard(folder, asked, str(found[0]["fidelity"]) if found else "ce_recovered")


def asked_of(folder: Path, words: Sequence[str]) -> TrackingConfig:
    """What the words say, else the environment, else what the members were trained with."""
    kinds, told = get_type_hints(TrackingConfig), dict[str, Any]()
    for word in words:
        key, equals, text = word.partition("=")
        name = key.removeprefix("tracking.")
        if not equals or name not in KEYS:
            known = ", ".join(f"tracking.{known}=" for known in KEYS)
            raise ConfigError(f"{word}: takes a sweep's folder, and of keys {known}")
        told[name] = typed_value(kinds[name], read_value(key, text), f"tracking.{name}")
    nothing = dict.fromkeys(field.name for field in fields(TrackingConfig))
    given = TrackingConfig(**{**nothing, "artifacts": False, "workspace": False, **told})
    said = {name: value for name, value in os.environ.items() if value}
    return resolved(given, folder.name, {"WANDB_MODE": "online", **_trained_with(folder), **said})


def _trained_with(folder: Path) -> dict[str, str]:
    """What `tracking` of the first member that says it was, as variables of an environment."""
    for label in read_record(folder)["members"]:
        try:
            found = yaml.safe_load((folder / label / names.CONFIG).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError, yaml.YAMLError):
            continue
        if isinstance(found, dict) and isinstance(found.get("tracking"), dict):
            stated = {name: found["tracking"].get(key) for key, name in VARIABLES.items()}
            texts = {name: ",".join(value) if isinstance(value, list) else value for name, value in stated.items()}
            return {name: str(text) for name, text in texts.items() if text}
    return {}
