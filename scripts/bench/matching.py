"""Frontiers of several sides at the same L0s."""

from collections.abc import Iterable, Mapping, Sequence
from math import exp, log

from sae_sweep.reporting.pareto import interpolate
from scripts.bench.common_ground import Point
from scripts.bench.sweeps import OURS

MATCHED = 5
"""L0s at which the sides are compared."""


def l0s_in_common(runs: Iterable[Mapping[str, Sequence[Point]]]) -> list[float]:
    """Evenly spaced in log L0, from the lowest to the highest that ours and some peer reach in every run; each run is
    the sides' points."""
    low, high = 0.0, float("inf")
    for points in runs:
        reached = {side: _range(own) for side, own in points.items()}
        ours, peers = reached.get(OURS), [found for side, found in reached.items() if side != OURS and found]
        if not ours or not peers:
            return []
        low, high = max(low, ours[0], min(r[0] for r in peers)), min(high, ours[1], max(r[1] for r in peers))
    if not 0 < low < high < float("inf"):
        return []
    inner = [exp(log(low) + log(high / low) * i / (MATCHED - 1)) for i in range(1, MATCHED - 1)]
    return [low, *inner, high]  # the ends as they are: rounding would put them outside


def matched(points: Mapping[str, Sequence[Point]]) -> list[dict[str, float | None]]:
    """CE recovered of all sides at L0s that ours reaches and some peer does; None for one that does not."""
    return [
        {"l0": l0, **{side: interpolate(own, l0) for side, own in points.items()}} for l0 in l0s_in_common([points])
    ]


def _range(points: Sequence[Point]) -> tuple[float, float] | None:
    l0s = [point["l0"] for point in points if point["l0"] is not None and point["ce_recovered"] is not None]
    return (min(l0s), max(l0s)) if l0s else None
