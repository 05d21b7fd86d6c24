"""The runs of a sweep that is on disk: what live ones would have been told, from the members' folders."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from safetensors import SafetensorError

from sae_sweep.config.schema import TrackingConfig
from sae_sweep.errors import ConfigError, one_line
from sae_sweep.folder import names
from sae_sweep.folder.record import read_record
from sae_sweep.host.json_files import read_object
from sae_sweep.host.terminal import tell
from sae_sweep.tracking import jsonl
from sae_sweep.tracking.described import entries_run, is_config, past_sweep_run
from sae_sweep.tracking.follower import named
from sae_sweep.tracking.histograms import histograms
from sae_sweep.tracking.runs import Histogram, TrackedRun
from sae_sweep.tracking.sweep_run import sweep_line
from sae_sweep.tracking.tracker import final_line, summary, timed_lines


@dataclass(frozen=True)
class PastRun:
    """A run with all that is known of it."""

    run: TrackedRun
    rows: Sequence[tuple[int, float, Mapping[str, float]]]
    """Step, moment and values."""
    summary: Mapping[str, Any]
    histograms: Mapping[str, Histogram]
    exit_code: int


def past_runs(folder: Path, asked: TrackingConfig) -> Iterator[PastRun]:
    """The runs of a sweep's folder: of members that have a line, then of the sweep. It is told of members that are
    left out, as their files are damaged."""
    members = read_record(folder)["members"]
    for label, entry in members.items():
        try:
            lines = timed_lines(folder / label)
            run = _member(folder, label, entry, lines, asked) if lines else None
        except (ConfigError, OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            tell(f"sae-sweep: {label}: left out, {one_line(error)}", sys.stderr)
            continue
        if run is not None:
            yield run
    pace = jsonl.read_whole(folder / names.PACE)
    rows = [(index, float(line["time"]), sweep_line(line)) for index, line in enumerate(pace)]
    yield PastRun(past_sweep_run(folder, members, asked), rows, {"sweep/members": len(members)}, {}, 0)


def _member(
    folder: Path, label: str, entry: Mapping[str, Any], lines: Sequence[tuple[Mapping[str, Any], float]], asked: Any
) -> PastRun:
    run = entries_run(label, entry["identity"], _entries(folder / label, entry), asked, f"{label} of {folder.name}")
    rows = dict[int, tuple[float, dict[str, float]]]()
    for line, moment in lines:  # two lines of one step are one row
        before = rows.get(line["step"], (moment, {}))
        rows[line["step"]] = (moment, before[1] | named(line))
    found, reason = {}, str(entry.get("reason") or "") if entry["state"] == "failed" else ""
    if entry["state"] == "finished":
        metrics = read_object(folder / label / names.METRICS)
        step, ended = max(rows) + 1, (folder / label / names.METRICS).stat().st_mtime
        rows[step] = (max(ended, rows[step - 1][0] + 1e-6), named(final_line(step, metrics)))
        found = summary(metrics)
    if reason:
        found["failed"] = reason
    last = [(step, *row) for step, row in sorted(rows.items())]
    return PastRun(run, last, found, histograms(folder / label), int(entry["state"] != "finished"))


def _entries(folder: Path, entry: Mapping[str, Any]) -> dict[str, Any]:
    """The member's config, as far as it was resolved."""
    try:
        found = read_object(folder / names.PROVENANCE).get("config")
        if is_config(found):
            return dict(found)
    except (OSError, ValueError):
        pass
    try:
        found = yaml.safe_load((folder / names.CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        found = None
    return dict(found if is_config(found) else entry["config"])
