"""The fidelity of each architecture at the same L0, read off its frontier."""

from collections.abc import Sequence
from html import escape

from sae_sweep.evaluation.metrics import METRICS
from sae_sweep.reporting.page import Cell, Page
from sae_sweep.reporting.pareto import by_architecture, interpolate
from sae_sweep.reporting.points import Point

PLACE, SPAN = 50, "half"


def html(page: Page, cell: Cell) -> str:
    """A table, one row for each power of two that some frontier crosses; nothing where none does."""
    curves = by_architecture(cell["points"])
    found = [point["l0"] for point in cell["points"] if point["l0"]]
    levels = [2**power for power in range(20) if found and min(found) <= 2**power <= max(found)]
    rows = "".join(_row(level, list(curves.values()), cell["fidelity"]) for level in levels)
    if not rows:
        return ""
    heads = "".join(f"<th scope=col>{escape(name)}</th>" for name in curves)
    return (
        f"<h3>At matched L0: {METRICS[cell['fidelity']].name}</h3>"
        f"<div class=scroll><table class=matched><thead><tr><th scope=col>L0</th>{heads}</tr></thead>"
        f"<tbody>{rows}</tbody></table></div><p class=quiet>Read off each architecture's "
        "frontier, linear in log L0 between neighbours; – is outside its range; the best is bold.</p>"
    )


def _row(level: int, curves: Sequence[Sequence[Point]], fidelity: str) -> str:
    values = [interpolate(points, level, fidelity) for points in curves]
    best = max((value for value in values if value is not None), default=None)
    if best is None:
        return ""
    return f"<tr><th scope=row>{level}</th>{''.join(_entry(value, best) for value in values)}</tr>"


def _entry(value: float | None, best: float) -> str:
    if value is None:
        return "<td>–</td>"
    return f"<td class=best>{value:.4f}</td>" if value == best else f"<td>{value:.4f}</td>"
