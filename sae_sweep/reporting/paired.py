"""Differences between members, with standard errors over the held-out rows that both were judged on."""

import json
from collections.abc import Iterator, Sequence
from math import hypot

from sae_sweep.config.values import finite
from sae_sweep.evaluation.metrics import METRICS
from sae_sweep.evaluation.rows import Rows, paired_error, read_rows
from sae_sweep.folder.names import ROWS
from sae_sweep.reporting.cell import cell_title, fidelity
from sae_sweep.reporting.pareto import bracket, by_architecture
from sae_sweep.reporting.points import Point, SweepRecord
from sae_sweep.reporting.seeds import averaged, seed_error

Difference = tuple[float, float | None]
"""B less A, and its standard error, None where nothing says it."""


class Differences:
    """Of one member and another, metric by metric."""

    def __init__(self, one: SweepRecord, other: SweepRecord, mine: Point, theirs: Point) -> None:
        self._mine, self._theirs = mine, theirs
        self._rows = _rows(one, mine), _rows(other, theirs)
        self.said = _said(mine, theirs, *self._rows)
        """Over what the errors are, in a line."""
        self._paired = self.said.startswith("±: paired")

    def has(self, key: str) -> bool:
        """Whether both have the metric."""
        return finite(self._mine[key]) is not None and finite(self._theirs[key]) is not None

    def of(self, key: str) -> Difference:
        """The difference in a metric that both have."""
        difference = self._theirs[key] - self._mine[key]
        mine, theirs = self._rows
        if self._paired and mine is not None and theirs is not None:
            return difference, _error(key, self._mine, [(-1.0, mine), (1.0, theirs)])
        error = METRICS[key].error
        alone = [finite(point[error]) for point in (self._mine, self._theirs)] if error else [None]
        known = [value for value in alone if value is not None]
        return difference, hypot(*known) if len(known) == len(alone) else None


def matched_frontiers(
    one: SweepRecord, mine: Sequence[Point], other: SweepRecord, theirs: Sequence[Point]
) -> Iterator[tuple[str, str, list[tuple[str, int, float, float, Difference]]]]:
    """For each cell that both have: its title, its measure of fidelity, and by architecture and L0 both frontiers'
    values and their difference. Members that differ in their seed alone are one. The last architecture is `all`."""
    for key in dict.fromkeys(json.dumps(point["cell"], sort_keys=True) for point in mine):
        sides = [[p for p in points if json.dumps(p["cell"], sort_keys=True) == key] for points in (mine, theirs)]
        if not sides[1]:
            continue
        y, groups = fidelity(sides[0][0]["cell"]), [by_architecture(points) for points in sides]
        both = {name: (groups[0][name], groups[1][name]) for name in groups[0] if name in groups[1]}
        if len(both) > 1 or any(len(group) > 1 for group in groups):
            both["all"] = (sides[0], sides[1])
        rows = [row for name, pair in both.items() for row in _levels(name, y, one, other, *pair)]
        if rows:
            yield cell_title(sides[0][0]["cell"]), y, rows


def _levels(
    name: str, y: str, one: SweepRecord, other: SweepRecord, mine: Sequence[Point], theirs: Sequence[Point]
) -> Iterator[tuple[str, int, float, float, Difference]]:
    curves = averaged(mine, y), averaged(theirs, y)
    for level in (2**power for power in range(20)):
        left, right = (bracket(curve, level, y) for curve in curves)
        if left and right:
            values = [sum(weight * point[y] for weight, point in some) for some in (left, right)]
            error = _frontier_error(y, one, left, other, right)
            yield name, level, values[0], values[1], (values[1] - values[0], error)


def _frontier_error(
    y: str,
    one: SweepRecord,
    left: Sequence[tuple[float, Point]],
    other: SweepRecord,
    right: Sequence[tuple[float, Point]],
) -> float | None:
    """Over held-out rows, and over seeds where both sides' means are of several."""
    sides = (-1.0, one, left), (1.0, other, right)
    points = [
        (sign * weight / len(mean["of"]), record, point)
        for sign, record, some in sides
        for weight, mean in some
        for point in mean["of"]
    ]
    over_rows = _over_rows(y, points)
    over_seeds = hypot(*(weight * seed_error(mean["of"], y) for _, _, some in sides for weight, mean in some))
    return None if over_rows is None else hypot(over_rows, over_seeds)


def _over_rows(y: str, points: Sequence[tuple[float, SweepRecord, Point]]) -> float | None:
    """Paired where all of them have the same rows; else of every one's own error."""
    rows = [(weight, _rows(record, point)) for weight, record, point in points]
    known = [(weight, own) for weight, own in rows if own is not None]
    if len(known) == len(rows) and all(known[0][1].same(own) for _, own in known):
        return _error(y, points[0][2], known)
    name = METRICS[y].error
    own = [(weight, finite(point[name]) if name else None) for weight, _, point in points]
    told = [weight * error for weight, error in own if error is not None]
    return hypot(*told) if len(told) == len(own) else None


def _error(key: str, point: Point, weighted: Sequence[tuple[float, Rows]]) -> float | None:
    if key in ("fvu", "explained_variance"):  # the variance, the same for both, is not taken to vary
        error, mse, fvu = paired_error("mse", weighted), finite(point["mse"]), finite(point["fvu"])
        return error * fvu / mse if error is not None and mse and fvu is not None else None
    return paired_error(key, weighted)


def _rows(record: SweepRecord, point: Point) -> Rows | None:
    return read_rows(record.folders[point["member"]])


def _said(mine: Point, theirs: Point, one: Rows | None, other: Rows | None) -> str:
    if mine["cell"] != theirs["cell"]:
        apart = [key for key in mine["cell"] if mine["cell"][key] != theirs["cell"].get(key)]
        return f"±: unpaired, of both members' own errors; their cells differ in {', '.join(apart)}"
    if one is None or other is None:
        which = " and ".join(name for name, rows in (("A", one), ("B", other)) if rows is None)
        return f"±: unpaired, of both members' own errors, which is too wide; {which} has no {ROWS}"
    if not one.same(other):
        return "±: unpaired, of both members' own errors; they were judged on different held-out rows"
    return f"±: paired, a jackknife over the same {len(one.sums['tokens'])} held-out rows"
