"""What follows the members of one group: metrics.jsonl and times.jsonl always, and the trackers that are asked for.

A line is told at once. What a kill leaves beyond the checkpoint that a run goes on from is taken back when it goes on:
from metrics.jsonl and times.jsonl before this is made, from a tracker as it begins, which is then told of the lines
that it lacks. So nothing is lost, and nothing is there twice.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from time import monotonic, time
from typing import Any

from sae_sweep.config.schema import TrackingConfig
from sae_sweep.config.values import finite
from sae_sweep.folder.files import sync
from sae_sweep.folder.names import CURVES, TIMES
from sae_sweep.tracking import jsonl, times
from sae_sweep.tracking.follower import followers
from sae_sweep.tracking.histograms import histograms
from sae_sweep.tracking.runs import TrackedRun

LIVE_SECONDS = 2.0
"""After which new lines are due."""


class Tracker:
    """Follows the members of one group."""

    def __init__(
        self,
        sweep_folder: Path,
        sweep_name: str,
        config: TrackingConfig,
        members: Sequence[TrackedRun],
        steps: Mapping[str, int] | None = None,
    ) -> None:
        """`steps` are those that members go on at, by label; at the first where it does not say."""
        self._folder, self._artifacts = sweep_folder, config.artifacts
        self._labels = [member.label for member in members]
        for member in members:
            (sweep_folder / member.label).mkdir(parents=True, exist_ok=True)
        self._next = 0.0
        self._followers = followers(sweep_folder, sweep_name, config)
        for member in members if self._followers else ():
            lines = timed_lines(sweep_folder / member.label)
            for follower in self._followers:
                follower.begin(member, (steps or {}).get(member.label, 0), lines)

    def log(
        self,
        label: str,
        step: int,
        tokens: int,
        values: Mapping[str, float | None],
        moment: float | None = None,
    ) -> None:
        """Append one line to the member's metrics.jsonl, values that are not finite as null, and when it was, now if
        nothing is said. Raises OSError where the disk takes no more; metrics.jsonl is then as it was."""
        self._next = monotonic() + LIVE_SECONDS
        line = {"step": step, "tokens": tokens} | {key: finite(value) for key, value in values.items()}
        moment = time() if moment is None else moment
        jsonl.append(self._folder / label / CURVES, line)
        times.append(self._folder / label / TIMES, step, moment)
        for follower in self._followers:
            follower.log(label, line, moment)

    @property
    def due(self) -> bool:
        """Whether it is time to tell of new lines."""
        return monotonic() >= self._next

    def sync(self) -> dict[str, int]:
        """See that all lines are on disk; the bytes of each member's metrics.jsonl, by label."""
        return {label: self.sync_member(label) for label in self._labels}

    def sync_member(self, label: str) -> int:
        """The same of one member."""
        file = self._folder / label / CURVES
        size = file.stat().st_size if file.exists() else 0
        if size:
            sync(file)
        return size

    def finish(self, label: str, step: int, metrics: Mapping[str, Any]) -> None:
        """The member is done after so many steps, with these final metrics; its files are in its folder."""
        if not self._followers:
            return
        line, folder, now = final_line(step, metrics), self._folder / label, time()
        found, kept = histograms(folder), [folder] if self._artifacts else []
        for follower in self._followers:
            follower.log(label, line, now)
            follower.ask(lambda runs: runs.finish(label, summary(metrics), found, kept))

    def fail(self, label: str, reason: str) -> None:
        """The member will not be finished."""
        for follower in self._followers:
            follower.ask(lambda runs: runs.fail(label, reason))

    def close(self) -> None:
        """End what is still open (a run that was interrupted)."""
        for follower in self._followers:
            follower.ask(lambda runs: runs.close())


def timed_lines(folder: Path) -> list[tuple[dict[str, Any], float]]:
    """The lines of a member's metrics.jsonl, each with the time of its step; where nobody noted that, with the one of
    the line before, or the file's own."""
    lines, noted = jsonl.read(folder / CURVES), times.read(folder / TIMES)
    moment = (folder / CURVES).stat().st_mtime if lines else 0.0
    moment = min([moment, *noted.values()])
    timed = []
    for line in lines:
        moment = noted.get(line["step"], moment)
        timed.append((line, moment))
    return timed


def final_line(step: int, metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The final metrics as a line after the last step."""
    numbers = {f"heldout/{key}": value for key, value in metrics.items() if isinstance(value, int | float)}
    return {"step": step, "tokens": metrics.get("tokens_trained"), **numbers}


def summary(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The final metrics under the names of the history; flat, which is what scatter plots over runs read."""
    return {f"eval/{key}": value for key, value in metrics.items() if value is not None}
