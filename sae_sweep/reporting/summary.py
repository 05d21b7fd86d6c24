"""A sweep's frontier, handed to its trackers."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sae_sweep.config.schema import TrackingConfig
from sae_sweep.evaluation.metrics import METRICS
from sae_sweep.reporting.cell import cell_title
from sae_sweep.reporting.points import FACTS
from sae_sweep.tracking.runs import FrontierTable, track_frontier

COLUMNS = tuple(dict.fromkeys([*FACTS, *METRICS]))


def log_summary(
    sweep_folder: Path, sweep_name: str, config: TrackingConfig, cells: Sequence[Mapping[str, Any]]
) -> None:
    """A table of every cell's members, which says who is on its frontier, for each tracker that is asked for."""
    track_frontier(sweep_folder, sweep_name, config, [_table(cell) for cell in cells])


def _table(cell: Mapping[str, Any]) -> FrontierTable:
    on_frontier = set(cell["frontiers"]["overall"])
    rows = [[*(point[key] for key in COLUMNS), point["member"] in on_frontier] for point in cell["points"]]
    return FrontierTable(cell_title(cell["key"]), cell["fidelity"], (*COLUMNS, "on_frontier"), rows)
