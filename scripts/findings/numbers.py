"""Numbers over seeds: a row of a finding, and which of two is better, if one is."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import sqrt
from statistics import mean, stdev
from typing import Any, Literal

Better = Literal["higher", "lower"]


@dataclass(frozen=True)
class Row:
    """One number: of which kind of member, at which place of the x axis."""

    series: str
    x: float | str
    value: float
    error: float | None
    """Its standard error; None where there is nothing to take one over."""
    n: int
    """Over so many seeds; 1 is one member, whose error is over held-out rows."""

    @property
    def text(self) -> str:
        """The number with its error, as tables have it."""
        error = "" if self.error is None else f" ± {self.error:.2g}"
        return f"{self.value:.4g}{error}"


def over_seeds(series: str, x: float | str, values: Sequence[float]) -> Row:
    """The mean of what members that differ in their seed alone have."""
    error = stdev(values) / sqrt(len(values)) if len(values) > 1 else None
    return Row(series, x, mean(values), error, len(values))


@dataclass(frozen=True)
class Compared:
    """Two rows of a finding, and what may be said of them."""

    one: Row
    other: Row
    better: Better
    """Which way is better."""

    @property
    def verdict(self) -> str:
        """Which is better, by more than both errors together; or that neither is."""
        gap, room = self.one.value - self.other.value, (self.one.error or 0.0) + (self.other.error or 0.0)
        if abs(gap) <= room:
            return "neither"
        return "first" if (gap > 0) == (self.better == "higher") else "second"


@dataclass(frozen=True)
class Finding:
    """What was measured of one question on one model."""

    y: str
    """What the numbers are, with their unit."""
    x: str
    better: Better
    rows: Sequence[Row]
    pairs: Sequence[tuple[int, int]] = field(default_factory=list)
    """Rows that are compared, by their place."""
    word: str = "better"
    """What one of two is found to be."""

    @property
    def compared(self) -> list[Compared]:
        """Each pair."""
        return [Compared(self.rows[one], self.rows[other], self.better) for one, other in self.pairs]

    def as_json(self) -> dict[str, Any]:
        """It, and the verdicts, in JSON's types."""
        return {**asdict(self), "verdicts": [each.verdict for each in self.compared]}

    @classmethod
    def of_json(cls, entries: Mapping[str, Any]) -> "Finding":
        """It, as it was written."""
        rows = [Row(**row) for row in entries["rows"]]
        pairs = [(one, other) for one, other in entries["pairs"]]
        return cls(entries["y"], entries["x"], entries["better"], rows, pairs, entries["word"])


class Rows:
    """The rows of a finding while it is made."""

    def __init__(self, y: str, x: str, better: Better, word: str = "better") -> None:
        self._y, self._x, self._better, self._word = y, x, better, word
        self._rows: list[Row] = []
        self._pairs: list[tuple[int, int]] = []

    def add(self, row: Row) -> Row:
        """One more."""
        self._rows.append(row)
        return row

    def compare(self, one: Row, other: Row) -> None:
        """Two that were added."""
        self._pairs.append((self._rows.index(one), self._rows.index(other)))

    @property
    def finding(self) -> Finding:
        """All of it."""
        return Finding(self._y, self._x, self._better, self._rows, self._pairs, self._word)
