"""What members that were trained to another sparsity reach: what an altered member has to be compared with."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import exp, log

from sae_sweep.analyses.session.finished import FinishedSae

Point = tuple[float, float]


def peers(one: FinishedSae, saes: Sequence[FinishedSae]) -> list[FinishedSae]:
    """The members that differ from one in their sparsity alone, itself among them."""
    return [other for other in saes if one.alike(other, *one.knobs)]


def between(points: Sequence[Point], x: float) -> float | None:
    """What a line through points has at x, on logarithmic axes; None outside of them, and where numbers are not above
    0. A single point is one only at its own x, within a percent."""
    known = sorted(point for point in points if point[0] > 0 and point[1] > 0)
    for (x0, y0), (x1, y1) in pairwise(known):
        if x0 <= x <= x1 and x1 > x0:
            share = (log(x) - log(x0)) / (log(x1) - log(x0))
            return exp(log(y0) + share * (log(y1) - log(y0)))
    return next((y for x0, y in known if abs(x0 - x) <= 0.01 * x0), None)


def trained_at(one: FinishedSae, saes: Sequence[FinishedSae], points: Mapping[str, Point], x: float) -> float | None:
    """What members like one reach, trained at this L0: between the points (L0, number) of them by label."""
    return between([points[other.label] for other in peers(one, saes) if other.label in points], x)
