"""A sweep's frontier, as its trackers take it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sae_sweep.evaluation.metrics import METRICS
from sae_sweep.reporting.cell import cell_title
from sae_sweep.reporting.pareto import cells
from sae_sweep.reporting.points import FACTS, read_sweep
from sae_sweep.tracking.runs import FrontierTable

COLUMNS = tuple(dict.fromkeys([*FACTS, *METRICS]))


def frontier_tables(found: Sequence[Mapping[str, Any]]) -> list[FrontierTable]:
    """A table of each cell's members, which says who is on its frontier."""
    return [_table(cell) for cell in found]


def latest_tables(folder: Path, latest: Mapping[str, Mapping[str, Any]]) -> list[FrontierTable]:
    """The same in the middle of training, with what members that are not finished were `latest` judged to be."""
    return frontier_tables(cells(read_sweep(folder, latest).points))


def _table(cell: Mapping[str, Any]) -> FrontierTable:
    on_frontier = set(cell["frontiers"]["overall"])
    rows = [[*(point[key] for key in COLUMNS), point["member"] in on_frontier] for point in cell["points"]]
    return FrontierTable(cell_title(cell["key"]), cell["fidelity"], (*COLUMNS, "on_frontier"), rows)
