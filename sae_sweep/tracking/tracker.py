"""What follows the members of one group: metrics.jsonl always, and beside it the trackers that are asked for.

A tracker cannot take a line back, so it is told of a step only once a checkpoint that covers it is on disk; and it is
brought up to date from metrics.jsonl when a member goes on, by what it says it has. A kill at any point then neither
loses a line nor logs one twice.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sae_sweep.config.schema import TrackingConfig
from sae_sweep.config.values import finite
from sae_sweep.folder.files import sync
from sae_sweep.folder.names import CURVES
from sae_sweep.tracking import jsonl
from sae_sweep.tracking.runs import followers


@dataclass(frozen=True)
class TrackedMember:
    """What tracking needs to know of a member."""

    label: str
    identity: str
    config: Mapping[str, Any]
    """The resolved config, nested."""


class Tracker:
    """Follows the members of one group."""

    def __init__(
        self, sweep_folder: Path, sweep_name: str, config: TrackingConfig, members: Sequence[TrackedMember]
    ) -> None:
        self._folder = sweep_folder
        self._labels = [member.label for member in members]
        for member in members:
            (sweep_folder / member.label).mkdir(parents=True, exist_ok=True)
        self._followers = followers(sweep_folder, sweep_name, config)
        for follower in self._followers:
            for member in members:
                lines = jsonl.read(self._file(member.label))
                follower.begin(member.label, member.identity, member.config, lines)

    def log(self, label: str, step: int, tokens: int, values: Mapping[str, float | None]) -> None:
        """Append one line to the member's metrics.jsonl; values that are not finite are null.

        Raises OSError where the disk takes no more; the file is then as it was.
        """
        line = {"step": step, "tokens": tokens} | {key: finite(value) for key, value in values.items()}
        jsonl.append(self._file(label), line)
        for follower in self._followers:
            follower.log(label, line)

    def sync(self) -> dict[str, int]:
        """See that all lines are on disk; the bytes of each member's file, by label."""
        sizes = {}
        for label in self._labels:
            file = self._file(label)
            sizes[label] = file.stat().st_size if file.exists() else 0
            if sizes[label]:
                sync(file)
        return sizes

    def covered(self, steps: Mapping[str, int]) -> None:
        """A checkpoint with these members at these steps is on disk. What is logged of the step to come may still grow
        (held-out metrics), so it waits."""
        for follower in self._followers:
            for label, step in steps.items():
                follower.tell(label, before=step)

    def finish(self, label: str, metrics: Mapping[str, Any]) -> None:
        """The member is done, with these final metrics."""
        for follower in self._followers:
            follower.tell(label)
            follower.ask(lambda runs: runs.finish(label, metrics))

    def fail(self, label: str, reason: str) -> None:
        """The member will not be finished."""
        for follower in self._followers:
            follower.tell(label)
            follower.ask(lambda runs: runs.fail(label, reason))

    def close(self) -> None:
        """End what is still open (a run that was interrupted)."""
        for follower in self._followers:
            follower.ask(lambda runs: runs.close())

    def _file(self, label: str) -> Path:
        return self._folder / label / CURVES
