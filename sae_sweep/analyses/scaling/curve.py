"""CE over training compute: read from points, never rising, and the compute that a CE takes."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import exp, inf, log

LARGEST = 700.0
"""The logarithm of the largest compute; what is beyond is infinite."""

Point = tuple[float, float]
"""Compute, in whatever unit, and CE in nats."""


@dataclass(frozen=True)
class Curve:
    """Straight lines between points, CE over log compute."""

    log_compute: tuple[float, ...]
    """Rising."""
    ce: tuple[float, ...]
    """Falling."""

    @classmethod
    def of(cls, points: Sequence[Point]) -> "Curve":
        """The nearest curve that falls (isotonic regression): models of a CE no smaller than that of one with less
        compute stand together, at the means of log compute and of CE."""
        blocks: list[tuple[float, float, int]] = []
        for compute, ce in sorted(points):
            blocks.append((log(compute), ce, 1))
            while len(blocks) > 1 and blocks[-2][1] <= blocks[-1][1]:
                (x, y, n), (x_before, y_before, m) = blocks.pop(), blocks.pop()
                blocks.append(((n * x + m * x_before) / (n + m), (n * y + m * y_before) / (n + m), n + m))
        return cls(tuple(block[0] for block in blocks), tuple(block[1] for block in blocks))

    def holds(self, ce: float) -> bool:
        """Whether a CE lies between those of the points."""
        return self.ce[-1] <= ce <= self.ce[0]

    def compute(self, ce: float) -> float:
        """What a model of this CE takes; beyond the points on the last line. There must be two."""
        lines = list(pairwise(zip(self.log_compute, self.ce, strict=True)))
        (x0, y0), (x1, y1) = next((line for line in lines if ce >= line[1][1]), lines[-1])
        x = x0 + (x1 - x0) * (y0 - ce) / (y0 - y1)
        return exp(x) if x < LARGEST else inf
