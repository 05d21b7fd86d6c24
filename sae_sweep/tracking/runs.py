"""Trackers beside metrics.jsonl, each a file of `trackers/` or an entry point in the group `sae_sweep.trackers`."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import inf
from pathlib import Path
from typing import Any, Protocol, TypeVar

from sae_sweep.config.schema import TrackingConfig
from sae_sweep.folder.names import CURVES
from sae_sweep.host.kinds import Kinds

T = TypeVar("T")

TRACKERS = Kinds("sae_sweep.tracking.trackers", "sae_sweep.trackers")
"""Modules with a function `open_runs(sweep_folder, sweep_name, config)` that gives Runs, or None where `tracking` does
not ask for them."""


@dataclass(frozen=True)
class FrontierTable:
    """The members of one cell."""

    title: str
    y: str
    """The column that is weighed against `l0`."""
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


class Runs(Protocol):
    """One tracker's runs of one sweep, one for each member. It may raise: it is then not asked again."""

    def begin(self, label: str, identity: str, config: Mapping[str, Any]) -> int:
        """Open a member's run, or go on in it; the last step that it has, -1 for none."""

    def log(self, label: str, step: int, values: Mapping[str, float | None]) -> None:
        """One step of a member, which will not change any more; steps rise."""

    def finish(self, label: str, metrics: Mapping[str, Any]) -> None:
        """Close a member's run with its final metrics."""

    def fail(self, label: str, reason: str) -> None:
        """Close the run of a member that will not be finished."""

    def frontier(self, tables: Sequence[FrontierTable]) -> None:
        """The whole sweep, a table for each cell."""

    def close(self) -> None:
        """End the runs that are still open, as interrupted."""


class Follower:
    """One tracker, and the lines that it has not been told.

    Its troubles never reach training: after the first, told in one line on stderr, it is given up.
    """

    def __init__(self, name: str, opened: Callable[[], Runs | None]) -> None:
        self._name = name
        self._waiting: dict[str, list[dict[str, Any]]] = {}
        self._runs: Runs | None = self._guarded(opened)

    def __bool__(self) -> bool:
        return self._runs is not None

    def begin(self, label: str, identity: str, config: Mapping[str, Any], lines: Sequence[dict[str, Any]]) -> None:
        """Open a member's run, which lacks those of its lines that come after the last step it has."""
        last = self.ask(lambda runs: runs.begin(label, identity, config))
        self._waiting[label] = [line for line in lines if last is None or line["step"] > last]

    def log(self, label: str, line: dict[str, Any]) -> None:
        """A line that may still be taken back."""
        self._waiting[label].append(line)

    def tell(self, label: str, before: float = inf) -> None:
        """Hand over the lines of a member's steps before this one."""
        due = [line for line in self._waiting[label] if line["step"] < before]
        self._waiting[label] = self._waiting[label][len(due) :]
        for line in due:
            self.ask(partial(_log, label=label, line=line))

    def ask(self, action: Callable[[Runs], T]) -> T | None:
        """What the tracker answers; None where it is given up."""
        runs = self._runs
        return None if runs is None else self._guarded(lambda: action(runs))

    def _guarded(self, action: Callable[[], T]) -> T | None:
        try:
            return action()
        except Exception as error:  # trackers raise of every kind, and none is worth a training run
            self._runs = None
            reason = (str(error).splitlines() or [""])[0]
            told = f"given up, training goes on with {CURVES} alone ({type(error).__name__}: {reason})"
            print(f"{self._name}: {told}", file=sys.stderr, flush=True)
            return None


def followers(sweep_folder: Path, sweep_name: str, config: TrackingConfig) -> list[Follower]:
    """The trackers that are asked for."""
    made = [Follower(name, partial(_opened, name, sweep_folder, sweep_name, config)) for name in TRACKERS]
    return [follower for follower in made if follower]


def track_frontier(
    sweep_folder: Path, sweep_name: str, config: TrackingConfig, tables: Sequence[FrontierTable]
) -> None:
    """Tell every tracker that is asked for of the whole sweep."""
    for follower in followers(sweep_folder, sweep_name, config):
        follower.ask(lambda runs: runs.frontier(tables))
        follower.ask(lambda runs: runs.close())


def _opened(name: str, sweep_folder: Path, sweep_name: str, config: TrackingConfig) -> Runs | None:
    runs: Runs | None = TRACKERS[name].open_runs(sweep_folder, sweep_name, config)
    return runs


def _log(runs: Runs, label: str, line: Mapping[str, Any]) -> None:
    runs.log(label, line["step"], {key: value for key, value in line.items() if key != "step"})
