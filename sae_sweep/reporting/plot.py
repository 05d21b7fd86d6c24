"""A cell's frontier drawn in characters: what a terminal, a log and a mail can show. ASCII alone, no colour."""

from collections.abc import Iterator, Mapping, Sequence
from math import floor, log10
from string import ascii_lowercase
from textwrap import wrap
from typing import Any

from sae_sweep.config.values import finite
from sae_sweep.evaluation.metrics import METRICS

WIDTH, HEIGHT = 78, 14
"""Of the plot: columns with its axis, and rows of points."""
AXIS = 8
"""Columns of the numbers at the left, and of the axis."""
SPANS = 3.0
"""The plot goes down to so many times the height of the frontier below its top: a control far below would press
everything else into one row."""


def frontier_plot(cell: Mapping[str, Any], width: int = WIDTH, height: int = HEIGHT) -> list[str]:
    """Lines with the members of one cell of pareto.json: fidelity over log L0, a letter for each architecture, which is
    a capital where the member is on the frontier of all. No lines where there is nothing to draw."""
    points = [point for point in cell["points"] if _drawable(point, cell["fidelity"])]
    if not points:
        return []
    best = set(cell["frontiers"]["overall"])
    plot = _Plot(points, cell["fidelity"], best, width - AXIS, height)
    letters = _letters(dict.fromkeys(point["architecture"] for point in points))
    for point in sorted(points, key=lambda point: point["member"] in best):  # capitals above the others
        letter = letters[point["architecture"]]
        plot.draw(point, letter.upper() if point["member"] in best else letter)
    legend = ", ".join(f"{letter} {name}" for name, letter in letters.items())
    below = f"; {plot.below} further down" if plot.below else ""
    return [
        f"{METRICS[cell['fidelity']].title} over L0 (log)",
        *plot.lines(),
        *_wrapped(f"{legend}; capitals are on the frontier{below}", width),
    ]


class _Plot:
    """A grid of characters with its axes."""

    def __init__(self, points: Sequence[Mapping[str, Any]], y: str, best: set[str], columns: int, rows: int) -> None:
        self._y, self._columns, self._rows = y, columns, rows
        self._grid = [[" "] * columns for _ in range(rows)]
        heights, places = [point[y] for point in points], [log10(point["l0"]) for point in points]
        top = max(heights)
        span = top - min((point[y] for point in points if point["member"] in best), default=top)
        bottom = max(min(heights), top - SPANS * span) if span > 0 else min(heights)
        self._low, self._high = _apart(bottom, top)
        self._left, self._right = _apart(min(places), max(places))
        self.below = 0
        """Members that are under the lowest row."""

    def draw(self, point: Mapping[str, Any], letter: str) -> None:
        """Put a member's letter where it is."""
        share = (point[self._y] - self._low) / (self._high - self._low)
        if share < -1e-9:
            self.below += 1
            return
        row = self._rows - 1 - round(share * (self._rows - 1))
        self._grid[row][self._column(log10(point["l0"]))] = letter

    def lines(self) -> Iterator[str]:
        """The rows from the top, and the axis of L0 with its numbers."""
        for row, cells in enumerate(self._grid):
            marked = row in (0, self._rows // 2, self._rows - 1)
            value = self._high - (self._high - self._low) * row / (self._rows - 1)
            label = _fitting(value) if marked else ""
            yield f"{label:>{AXIS - 1}}{'+' if marked else '|'}{''.join(cells)}".rstrip()
        axis, numbers = ["-"] * self._columns, [" "] * self._columns
        for value in _ticks(self._left, self._right):
            column, text = self._column(log10(value)), f"{value:g}"
            start = min(max(0, column - len(text) // 2), self._columns - len(text))
            if set(numbers[max(0, start - 1) : start + len(text) + 1]) <= {" "}:
                axis[column], numbers[start : start + len(text)] = "+", text
        yield " " * (AXIS - 1) + "+" + "".join(axis)
        yield (" " * AXIS + "".join(numbers)).rstrip()

    def _column(self, place: float) -> int:
        return round((place - self._left) / (self._right - self._left) * (self._columns - 1))


def _fitting(value: float) -> str:
    """A number in as many digits as there is room for: one that is cut would be another."""
    texts = [f"{value:.{digits}g}" for digits in (4, 3, 2, 1)]
    return next((text for text in texts if len(text) <= AXIS - 2), texts[-1])


def _drawable(point: Mapping[str, Any], y: str) -> bool:
    l0 = finite(point.get("l0"))
    return l0 is not None and l0 > 0 and finite(point.get(y)) is not None


def _apart(low: float, high: float) -> tuple[float, float]:
    """The ends of an axis; of a single value, with some room around it."""
    if high > low:
        return low, high
    room = abs(low) * 0.1 or 1.0
    return low - room, high + room


def _ticks(left: float, right: float) -> list[float]:
    """Powers of ten between two logarithms, then twice and five times such: which matter less where room is short."""
    powers = range(floor(left), floor(right) + 1)
    values = [digit * 10.0**power for digit in (1, 2, 5) for power in powers]
    return [value for value in values if left - 1e-9 <= log10(value) <= right + 1e-9]


def _letters(architectures: Mapping[str, Any]) -> dict[str, str]:
    """A small letter for each: its first where no name before it has that, else another that is free."""
    taken: dict[str, str] = {}
    for name in sorted(architectures):
        if name[0].lower() not in taken.values() and name[0].isascii() and name[0].isalpha():
            taken[name] = name[0].lower()
    for name in sorted(architectures.keys() - taken.keys()):
        free = (letter for letter in (*name.lower(), *ascii_lowercase) if letter not in taken.values())
        taken[name] = next((letter for letter in free if letter in ascii_lowercase), "x")
    return dict(sorted(taken.items()))


def _wrapped(text: str, width: int) -> list[str]:
    return wrap(text, width, initial_indent=" " * AXIS, subsequent_indent=" " * AXIS, break_long_words=True)
