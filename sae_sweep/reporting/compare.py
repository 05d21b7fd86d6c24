"""`sae-sweep compare A B`: two sweeps, or two members: what was asked differently, how far their metrics differ with
standard errors over the same held-out rows, and one's frontier against the other's at matched L0.

Differences are B less A. A number is called better only where it is by more than twice its standard error.
"""

import sys
from collections.abc import KeysView, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from sae_sweep.config.command_line import split_options
from sae_sweep.config.reading import flat_entries
from sae_sweep.config.values import shown
from sae_sweep.errors import ConfigError
from sae_sweep.evaluation.metrics import METRICS, Metric
from sae_sweep.folder import names
from sae_sweep.reporting.paired import Differences, matched_frontiers
from sae_sweep.reporting.points import Point, SweepRecord, read_sweep
from sae_sweep.reporting.table import aligned

SURE = 2.0
"""Standard errors."""
IN_PAIRS = ("l0", "ce_recovered", "kl", "mse")
"""What the table of two sweeps' members has of each pair."""


@dataclass(frozen=True)
class Side:
    """One of the two: a sweep, or of one the member that is asked for."""

    place: Path
    record: SweepRecord
    member: str | None

    @property
    def points(self) -> list[Point]:
        """All of a sweep's, or the member's own."""
        return [point for point in self.record.points if self.member in (None, point["member"])]

    def config(self, label: str) -> dict[str, Any]:
        """A member's, by dotted key."""
        return flat_entries(self.record.configs.get(label, {}))


def compare(arguments: Sequence[str], file: TextIO | None = None) -> None:
    """Do what the command line says. Raises ConfigError for folders that are neither sweeps nor finished members."""
    words, _ = split_options("compare", arguments, ())
    if len(words) != 2:
        raise ConfigError("compare: takes two folders, of sweeps or of members, as in `sae-sweep compare A B`")
    one, other = (_side(Path(word).expanduser()) for word in words)
    lines = [f"A  {one.place}", f"B  {other.place}", "", *_configs(one, other), ""]
    if one.member and other.member:
        lines += _two_members(one, other)
    else:
        lines += [*_pairs(one, other), "", *_frontiers(one, other)]
    print("\n".join(line.rstrip() for line in lines), file=file or sys.stdout)


def _side(folder: Path) -> Side:
    root, member = folder, None
    if not (folder / names.SWEEP).is_file():
        root = next((parent for parent in folder.absolute().parents if (parent / names.SWEEP).is_file()), folder)
        if root == folder:
            raise ConfigError(f"compare: {folder} is neither a sweep (no {names.SWEEP}) nor a member of one")
        member = str(folder.absolute().relative_to(root))
    record = read_sweep(root)
    found = Side(folder, record, member)
    if not found.points:
        state = next((one["state"] for one in record.unfinished if one["member"] == member), None)
        raise ConfigError(f"compare: {folder} {'is ' + state if state else 'has no finished member'}; train it first")
    return found


def _configs(one: Side, other: Side) -> list[str]:
    """The keys whose values differ: a member's value, or all that a sweep's members have."""
    keys = dict.fromkeys(key for side in (one, other) for p in side.points for key in side.config(p["member"]))
    apart = [key for key in keys if _every(one, key) != _every(other, key)]
    rows = [(key, _values(one, key), _values(other, key), "") for key in apart]
    return aligned(("config", "A", "B", ""), rows) if rows else ["config: nothing differs"]


def _values(side: Side, key: str) -> str:
    return ",".join(_every(side, key)) or "(no such key)"


def _every(side: Side, key: str) -> KeysView[str]:
    """The values of a key that members have, in their order."""
    configs = (side.config(point["member"]) for point in side.points)
    return dict.fromkeys(shown(config[key]) for config in configs if key in config).keys()


def _two_members(one: Side, other: Side) -> list[str]:
    (mine,), (theirs,) = one.points, other.points
    differences = Differences(one.record, other.record, mine, theirs)
    rows = []
    for metric in METRICS.values():
        if (
            not metric.is_number
            or metric.value(mine) is None
            or metric.value(theirs) is None
            or metric.key.endswith("_se")
        ):
            continue
        found = differences.of(metric.key)
        values = (f"{metric.value(point):.{metric.digits}f}" for point in (mine, theirs))
        rows.append((metric.title, *values, *_told(metric, found), _better(metric, found)))
    return [*aligned(("metric", "A", "B", "B - A", "±", ""), rows), "", differences.said]


def _told(metric: Metric, found: tuple[float, float | None]) -> tuple[str, str]:
    difference, error = found
    digits = metric.digits + 1
    return f"{difference * metric.scale:+.{digits}f}", "" if error is None else f"{error * metric.scale:.{digits}f}"


def _better(metric: Metric, found: tuple[float, float | None]) -> str:
    """Who is, where it is by more than its error."""
    difference, error = found
    if metric.better not in ("higher", "lower") or error is None or abs(difference) <= SURE * error:
        return ""
    return "B is better" if (difference > 0) == (metric.better == "higher") else "A is better"


def _pairs(one: Side, other: Side) -> list[str]:
    """Members that were asked the same but for the keys of which the sweeps share no value, each with one partner."""
    apart = {key for key in _keys(one) | _keys(other) if _every(one, key).isdisjoint(_every(other, key))}
    of: dict[tuple[Any, ...], list[Point]] = {}
    for point in other.points:
        of.setdefault(_asked(other, point, apart), []).append(point)
    pairs = [(point, of[asked].pop(0)) for point in one.points if of.get(asked := _asked(one, point, apart))]
    if not pairs:
        return ["no members to pair: none were asked the same but for the keys above"]
    metrics = [
        METRICS[key] for key in IN_PAIRS if any(METRICS[key].value(p) is not None for pair in pairs for p in pair)
    ]
    rows, said = [], dict[str, None]()
    for mine, theirs in pairs:
        differences = Differences(one.record, other.record, mine, theirs)
        said[differences.said] = None
        name = mine["member"] if mine["member"] == theirs["member"] else f"{mine['member']} : {theirs['member']}"
        entries = []
        for metric in metrics:
            told = _told(metric, differences.of(metric.key)) if differences.has(metric.key) else ("-", "")
            entries.append(told[0] + (f" ±{told[1]}" if told[1] else ""))
        rows.append((name, *entries, ""))
    heads = ("B - A of", *(metric.title for metric in metrics), "")
    alone = len(one.points) - len(pairs), len(other.points) - len({theirs["member"] for _, theirs in pairs})
    rest = [f"without a partner: {alone[0]} of A, {alone[1]} of B"] if any(alone) else []
    return [*aligned(heads, rows), "", *said, *rest]


def _keys(side: Side) -> set[str]:
    return {key for point in side.points for key in side.config(point["member"])}


def _asked(side: Side, point: Point, apart: set[str]) -> tuple[Any, ...]:
    config = side.config(point["member"])
    rest = tuple((key, shown(config[key])) for key in sorted(config) if key not in apart)
    return rest or (point["member"],)


def _frontiers(one: Side, other: Side) -> list[str]:
    """Each architecture's frontier, and the whole cell's, at powers of two of L0."""
    lines = []
    for title, y, rows in matched_frontiers(one.record, one.points, other.record, other.points):
        metric = METRICS[y]
        table = [
            (
                f"{architecture}, L0 {level}",
                f"{mine:.4f}",
                f"{theirs:.4f}",
                *_told(metric, found),
                _better(metric, found),
            )
            for architecture, level, mine, theirs, found in rows
        ]
        lines += [f"{title}: {metric.name} on the frontiers", *aligned(("", "A", "B", "B - A", "±", ""), table), ""]
    return lines or ["no frontiers to compare: no cell (model, site, held-out tokens) is in both, or no L0"]
