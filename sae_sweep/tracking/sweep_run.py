"""The run of a whole sweep: how fast it goes, what its machine does, and its frontier as it comes to be.

What it says of its pace is kept in pace.jsonl too, by the clock: it goes on from one command to the next, and nothing
of it is ever taken back.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from math import inf
from pathlib import Path
from time import monotonic, time
from typing import Any, TypeAlias

from sae_sweep.config.schema import TrackingConfig
from sae_sweep.config.values import finite
from sae_sweep.folder.names import PACE
from sae_sweep.host.resident import gpu_bytes, resident_bytes
from sae_sweep.tracking import jsonl
from sae_sweep.tracking.follower import Follower, followers
from sae_sweep.tracking.runs import SWEEP, FrontierTable, TrackedRun
from sae_sweep.tracking.workload import Kind

LEAST_SECONDS, SHARE = 2.0, 500
"""Between two lines of pace.jsonl: so many seconds, or this share of the time since the command began."""
RENEW_SECONDS = 5.0
"""Between two tables of the frontier; the last one is never left out."""
RATES = {Kind.MODEL: "model_tokens_per_second", Kind.STEPS: "tokens_per_second"}
GB = 10**9

Tables: TypeAlias = Callable[[Mapping[str, Mapping[str, Any]]], Sequence[FrontierTable]]
"""The frontier with what members that are not finished were last judged to be, by label."""


class SweepRun:
    """The sweep's own run, in each tracker that is asked for."""

    def __init__(self, root: Path, run: TrackedRun, config: TrackingConfig, tables: Tables) -> None:
        """Nothing is written before `begin`."""
        self._root, self._run, self._config, self._tables = root, run, config, tables
        self._followers: list[Follower] = []
        self._step = 0
        self._latest: dict[str, Mapping[str, Any]] = {}
        self._began, self._told, self._renewed = monotonic(), -inf, -inf

    def begin(self) -> None:
        """Open the run."""
        lines = jsonl.read_whole(self._root / PACE)
        self._followers = followers(self._root, str(self._run.config["sweep"]), self._config)
        last = [follower.begin(self._run, inf) for follower in self._followers]
        self._step = 1 + max([*last, *(int(line["step"]) for line in lines)], default=-1)

    def pace(self, tokens: int, rates: Mapping[Kind, float], eta: float | None) -> None:
        """Tokens that members have consumed on average, tokens a second of each kind of work, and seconds that are
        left. It may be told at every step."""
        now = monotonic()
        if now - self._told < max(LEAST_SECONDS, (now - self._began) / SHARE):
            return
        self._told = now
        gpu = gpu_bytes()
        found = {
            "tokens": tokens,
            **{RATES[kind]: rate for kind, rate in rates.items()},
            "eta_seconds": eta,
            "memory_gb": resident_bytes() / GB,
            "gpu_memory_gb": None if gpu is None else gpu / GB,
        }
        self._log({key: value for key, value in found.items() if finite(value) is not None})

    def judged(self, label: str, metrics: Mapping[str, Any]) -> None:
        """What a member was judged to be, on the way or at its end."""
        self._latest[label] = metrics
        if self._followers and monotonic() - self._renewed >= RENEW_SECONDS:
            self._renew(self._tables(self._latest))

    def end(self, tables: Sequence[FrontierTable], report: Path) -> None:
        """The command has done what there was to do."""
        self._renew(tables)
        summary = {"sweep/members": sum(len(table.rows) for table in tables)}
        for follower in self._followers:
            follower.ask(lambda runs: runs.finish(SWEEP, summary, {}, [report] if report.is_file() else []))

    def close(self) -> None:
        """End what is still open, as interrupted."""
        for follower in self._followers:
            follower.ask(lambda runs: runs.close())

    def _renew(self, tables: Sequence[FrontierTable]) -> None:
        self._renewed = monotonic()
        self._log({"members_judged": sum(len(table.rows) for table in tables)})
        for follower in self._followers:  # in the step of that line
            follower.ask(lambda runs: runs.frontier(tables))

    def _log(self, values: Mapping[str, float | None]) -> None:
        line, moment = {key: value for key, value in values.items() if value is not None}, time()
        with suppress(OSError):  # it is no result
            jsonl.append(self._root / PACE, {"step": self._step, "time": round(moment, 6), **line})
        for follower in self._followers:
            follower.ask(lambda runs: runs.log(SWEEP, self._step, moment, sweep_line(line)))
        self._step += 1


def sweep_line(line: Mapping[str, float]) -> dict[str, float]:
    """A line of pace.jsonl as trackers have it."""
    return {f"sweep/{key}": value for key, value in line.items() if key not in ("step", "time")}
