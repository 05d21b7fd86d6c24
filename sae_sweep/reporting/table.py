"""The frontier as a table on the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from sae_sweep.evaluation.metrics import METRICS, TERMINAL, Metric, Shown, shown
from sae_sweep.plan.axes import Axis
from sae_sweep.reporting.cell import modelless
from sae_sweep.reporting.points import Point

OVERALL, OWN, TRIMMED = "overall", "own", "trimmed"
"""What the last column says: on the frontier of the cell, or only on that of the member's architecture; or cut to its
L0 at the end, and so on none."""


def print_frontier(cell: Mapping[str, Any], console: Console | None = None, varying: Sequence[Axis] = ()) -> None:
    """Print the members of one cell by architecture, then L0: a drawn table on a terminal, else aligned text.

    Axes of the sweep that vary in the cell have columns, but on a terminal too narrow for them: names say the same.
    """
    console = console or Console()
    own = [axis for axis in varying if len({axis.values.get(point["member"]) for point in cell["points"]}) > 1]
    titles, rows = _table(cell, own)
    if console.is_terminal:
        if own and sum(max(map(len, column)) + 1 for column in zip(titles, *rows, strict=True)) > console.width:
            titles, rows = _table(cell, [])
        console.print(_drawn(titles, rows))
        return
    for line in aligned(titles, rows):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _table(cell: Mapping[str, Any], own: Sequence[Axis]) -> tuple[list[str], list[list[str]]]:
    """Titles and rows."""
    metrics, marks = columns([cell], TERMINAL), frontier_marks(cell)
    titles = ["member", *(axis.title for axis in own), *(metric.title for metric in metrics), "frontier"]
    rows = [
        [
            *(label := point["member"], *(axis.values.get(label, "-") for axis in own)),
            *(*(metric.text(point) for metric in metrics), marks.get(label, "")),
        ]
        for point in in_order(cell["points"])
    ]
    return titles, rows


def columns(cells: Sequence[Mapping[str, Any]], where: Shown) -> list[Metric]:
    """The metrics that some member of the cells has, among those that are shown there."""
    found = {
        metric.key
        for cell in cells
        for metric in shown(where, toy=modelless(cell["key"]) is not None)
        if any(metric.value(point) is not None for point in cell["points"])
    }
    return [metric for key, metric in METRICS.items() if key in found]


def in_order(points: Sequence[Point]) -> list[Point]:
    """Points by architecture, then L0; those without an L0 last."""

    def place(point: Point) -> tuple[str, bool, float, str]:
        l0 = point["l0"]
        return point["architecture"], l0 is None, l0 or 0.0, point["member"]

    return sorted(points, key=place)


def frontier_marks(cell: Mapping[str, Any]) -> dict[str, str]:
    """OVERALL or OWN, by label, for the members of one cell that are on a frontier; TRIMMED for those that are on none
    for that."""
    frontiers = cell["frontiers"]
    own = {label: OWN for name, labels in frontiers.items() if name != OVERALL for label in labels}
    trimmed = {point["member"]: TRIMMED for point in cell["points"] if point.get("trimmed")}
    return trimmed | own | dict.fromkeys(frontiers[OVERALL], OVERALL)


def aligned(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of text: the first and last column to the left, the numbers between them to the right."""
    widths = [max(len(line[index]) for line in (titles, *rows)) for index in range(len(titles))]
    left = (0, len(titles) - 1)
    return [
        "  ".join(
            cell.ljust(width) if index in left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in (titles, *rows)
    ]


def _drawn(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(titles[0], overflow="fold")
    for title in titles[1:-1]:
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column(titles[-1])
    for row in rows:
        table.add_row(*row, style="bold" if row[-1] == OVERALL else None)
    return table
