"""What a tracker is told of a sweep, and the protocol that it follows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from sae_sweep.host.kinds import Kinds

TRACKERS = Kinds("sae_sweep.tracking.trackers", "sae_sweep.trackers")
"""Modules with a function `open_runs(sweep_folder, sweep_name, config)` that gives Runs, or None where `tracking` does
not ask for them: each a file of `trackers/`, or an entry point in the group `sae_sweep.trackers`."""
SWEEP = "(sweep)"
"""The label of the run that is of the whole sweep; no member has such a name."""


@dataclass(frozen=True)
class TrackedRun:
    """A run: of a member, or of the whole sweep."""

    label: str
    """The member's, or SWEEP."""
    identity: str
    """From which its id follows, with the sweep's."""
    name: str
    job: str
    """`train` or `sweep`."""
    config: Mapping[str, Any]
    """What runs are filtered by, flat, and the resolved config in groups; nothing is null."""
    tags: Sequence[str]
    notes: str


@dataclass(frozen=True)
class FrontierTable:
    """The members of one cell, as far as they are judged."""

    title: str
    y: str
    """The column that is weighed against `l0`."""
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


@dataclass(frozen=True)
class Histogram:
    """How often values of a latent are where."""

    counts: Sequence[int]
    edges: Sequence[float]
    """One more than counts."""


class Runs(Protocol):
    """One tracker's runs of one sweep. It may raise: it is then not asked again."""

    def begin(self, run: TrackedRun, step: float) -> int:
        """Open a run, or go on in it: what it has of this step and later ones is taken back, where that can be. The
        last step that it has then, -1 for none. Infinite is after all that it has."""

    def log(self, label: str, step: int, moment: float, values: Mapping[str, float]) -> None:
        """Numbers of one step at a moment, in seconds since the epoch; steps do not fall. A step may be told of in
        parts."""

    def finish(
        self, label: str, summary: Mapping[str, Any], histograms: Mapping[str, Histogram], files: Sequence[Path]
    ) -> None:
        """Close a run with final values and histograms; files and folders are kept with it where the tracker can."""

    def fail(self, label: str, reason: str) -> None:
        """Close the run of a member that will not be finished, and call whoever watches."""

    def frontier(self, tables: Sequence[FrontierTable]) -> None:
        """The frontier as it stands, a table for each cell, in the step that the run of the sweep is at."""

    def close(self) -> None:
        """End the runs that are still open, as interrupted."""
