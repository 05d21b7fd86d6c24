"""What shipped.py and steered.py print of the points they keep."""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from math import log
from statistics import mean, stdev
from typing import Any

from sae_sweep.reporting.pareto import frontier
from scripts.bench.common_ground import Point
from scripts.bench.measure import show, shown

BEYOND = 0.1
"""So far beyond its ends, as a share of L0, a frontier is read off: a member that aims at what another has as k ends a
little above or below that."""
LEAST_LOST = 1e-6
"""Of the CE that ablation costs: a logarithm has to have something to be of."""

Found = Mapping[str, Mapping[str, Any]]
"""Of each part, by its key, what --out holds: `seeds`, points by the seed's number."""


def read_off(points: Sequence[Point], l0: float) -> float | None:
    """CE recovered of a side at an L0; None further than BEYOND from what its frontier reaches.

    Between neighbours the logarithm of what is not recovered is linear in log L0, which is nearly what frontiers are: a
    chord of CE recovered itself is below them where members are few, and would flatter what is compared with it.
    """
    on = set(frontier(points))
    curve = sorted({(point["l0"], point["ce_recovered"]) for point in points if point["member"] in on})
    if len(curve) < 2 or not curve[0][0] / (1 + BEYOND) <= l0 <= curve[-1][0] * (1 + BEYOND):
        return None
    right = min(max(1, bisect_left(curve, (l0, 0.0))), len(curve) - 1)
    (l0_a, ce_a), (l0_b, ce_b) = curve[right - 1], curve[right]
    share = log(l0 / l0_a) / log(l0_b / l0_a)
    lost_a, lost_b = max(1 - ce_a, LEAST_LOST), max(1 - ce_b, LEAST_LOST)
    return float(1 - lost_a ** (1 - share) * lost_b**share)


def aimed(points: Sequence[Point], l0: float) -> Point | None:
    """Our member that aims at an L0."""
    return next((point for point in points if f"-l0_{l0:g}-" in point["member"]), None)


def pairs(found: Found, own: str, other: str, l0: float) -> list[tuple[float, float]]:
    """CE recovered of our member that aims at `l0` and of the other side at that member's L0, of each seed that both
    have and where the other side reaches it."""
    ours, theirs = (found.get(key, {}).get("seeds", {}) for key in (own, other))
    told = []
    for seed in sorted(ours.keys() & theirs.keys()):
        mine = aimed(ours[seed], l0)
        read = read_off(theirs[seed], mine["l0"]) if mine is not None else None
        if mine is not None and read is not None:
            told.append((mine["ce_recovered"], read))
    return told


def with_error(values: Sequence[float]) -> str:
    """The mean difference, and its standard error where there are several."""
    if not values:
        return "-"
    error = f" ±{stdev(values) / len(values) ** 0.5:.4f}" if len(values) > 1 else ""
    return f"{mean(values):+.4f}{error}"


def print_differences(title: str, found: Found, beside: Mapping[str, tuple[str, str]], l0s: Sequence[float]) -> None:
    """A row for each of our parts and each L0: ours, the other side, the difference, over how many seeds. `beside` has
    the two keys of each, by what it is called."""
    rows = []
    for name, (own, other) in beside.items():
        for l0 in l0s:
            both = pairs(found, own, other, l0)
            means = [shown(mean(side) if side else None, 4) for side in ([a for a, _ in both], [b for _, b in both])]
            rows.append([name, other, f"{l0:g}", *means, with_error([a - b for a, b in both]), str(len(both))])
    show(title, ["ours", "beside", "L0", "ours", "theirs", "difference", "seeds"], rows)


def print_missed(found: Found, own: Mapping[str, str], l0s: Sequence[float]) -> None:
    """How far L0 was from what was asked for before the last correction: at each L0 the mean of L0 / asked - 1 over
    seeds, and the largest over all of them; nothing of what takes the L0 as k of every token. `own` has the parts'
    keys, by name."""
    rows = []
    for name, key in own.items():
        seeds = found.get(key, {}).get("seeds", {})
        missed = {l0: _missed(seeds, l0) for l0 in l0s}
        cells = [f"{mean(values):+.3f}" if values else "-" for values in missed.values()]
        every = [abs(value) for values in missed.values() for value in values]
        rows.append([name, *cells, f"{max(every):.3f}" if every else "-"])
    heads = ["ours", *(f"at {l0:g}" for l0 in l0s), "largest"]
    show("L0 before the last correction / asked - 1", heads, rows)


def _missed(seeds: Mapping[str, Sequence[Point]], l0: float) -> list[float]:
    members = [aimed(points, l0) for points in seeds.values()]
    before = [member.get("l0_untrimmed") for member in members if member is not None]
    return [value / l0 - 1 for value in before if value is not None]
