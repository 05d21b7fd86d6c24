"""Trackers beside the files of a sweep: what is told to each, and that its troubles never reach training."""

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from sae_sweep.config.schema import TrackingConfig
from sae_sweep.folder.names import CURVES
from sae_sweep.tracking.runs import TRACKERS, Runs, TrackedRun

T = TypeVar("T")

PREFIXES = {"heldout/": "eval/"}
"""How trackers call what metrics.jsonl does; anything else is of training."""


class Follower:
    """One tracker. After its first trouble, told in one line on stderr, it is given up."""

    def __init__(self, name: str, opened: Callable[[], Runs | None]) -> None:
        self._name = name
        self._last: dict[str, int] = {}
        """The last step that it had of each run when that was begun."""
        self._runs: Runs | None = self._guarded(opened)

    def __bool__(self) -> bool:
        return self._runs is not None

    def begin(self, run: TrackedRun, step: float, lines: Sequence[tuple[Mapping[str, Any], float]] = ()) -> int:
        """Open a run that goes on at `step`, and tell of those `lines`, each with its time, that it lacks. The last
        step that it had."""
        last = self.ask(lambda runs: runs.begin(run, step))
        self._last[run.label] = -1 if last is None else last
        for line, moment in lines:
            self.log(run.label, line, moment)
        return self._last[run.label]

    def log(self, label: str, line: Mapping[str, Any], moment: float) -> None:
        """A line, at a moment, unless its step was there before: it is then the same, for a resumed run is."""
        step = line["step"]
        if step > self._last.get(label, -1):
            self.ask(lambda runs: runs.log(label, step, moment, named(line)))

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


def named(line: Mapping[str, Any]) -> dict[str, float]:
    """A line of metrics.jsonl as trackers have it: `train/loss`, `eval/kl`, and `tokens` as they are; nothing that is
    undefined."""
    return {
        key if key == "tokens" else renamed(key): value
        for key, value in line.items()
        if key != "step" and isinstance(value, int | float)
    }


def renamed(key: str) -> str:
    """One key."""
    old = next((prefix for prefix in PREFIXES if key.startswith(prefix)), None)
    return f"train/{key}" if old is None else PREFIXES[old] + key.removeprefix(old)


def _opened(name: str, sweep_folder: Path, sweep_name: str, config: TrackingConfig) -> Runs | None:
    runs: Runs | None = TRACKERS[name].open_runs(sweep_folder, sweep_name, config)
    return runs
