"""Curves of a group's members: metrics.jsonl always, wandb beside it when asked."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sae_sweep.config import TrackingConfig
from sae_sweep.reporting.points import finite
from sae_sweep.reporting.wandb_runs import WandbRuns


@dataclass(frozen=True)
class TrackedMember:
    """What tracking needs to know of a member."""

    label: str
    identity: str
    config: Mapping[str, Any]
    """The resolved config, nested."""


class Tracker:
    """Follows the members of one group. wandb's troubles never reach training: told once, and it is dropped."""

    def __init__(
        self, sweep_folder: Path, sweep_name: str, config: TrackingConfig, members: Sequence[TrackedMember]
    ) -> None:
        self._folder = sweep_folder
        for member in members:
            (sweep_folder / member.label).mkdir(parents=True, exist_ok=True)
        self._wandb: WandbRuns | None = None
        if config.mode != "none":
            self._wandb = WandbRuns(sweep_folder, sweep_name, config)
            for member in members:
                self._wandb.begin(member.label, member.identity, member.config)

    def log(self, label: str, step: int, tokens: int, values: Mapping[str, float | None]) -> None:
        """Append one line to the member's metrics.jsonl; values that are not finite are null."""
        line = {"step": step, "tokens": tokens} | {key: finite(value) for key, value in values.items()}
        # Opened for each line, not kept: a resumed run may have put a shortened file in its place.
        descriptor = os.open(self._folder / label / "metrics.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(descriptor, (json.dumps(line, allow_nan=False) + "\n").encode())
        finally:
            os.close(descriptor)
        if self._wandb is not None:
            self._wandb.log(label, step, {key: value for key, value in line.items() if key != "step"})

    def finish(self, label: str, metrics: Mapping[str, Any]) -> None:
        """The member is done: its final metrics become its wandb run's summary."""
        if self._wandb is not None:
            self._wandb.end(label, metrics, exit_code=0)

    def fail(self, label: str, reason: str) -> None:
        """The member will not be finished."""
        if self._wandb is not None:
            self._wandb.end(label, {"failed": reason}, exit_code=1)

    def close(self) -> None:
        """End what is still open (a run that was interrupted), and say how offline runs are uploaded."""
        if self._wandb is not None:
            self._wandb.close()
