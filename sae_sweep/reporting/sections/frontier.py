"""The frontier of a cell: L0 against a measure of fidelity, coloured by an axis; both are the reader's choice."""

from html import escape
from typing import Any

from sae_sweep.evaluation.metrics import METRICS
from sae_sweep.reporting.page import Cell, Page, choices
from sae_sweep.reporting.published import of_cell

PLACE, SPAN = 30, "cell"


def html(page: Page, cell: Cell) -> str:
    """The chart's place, and the choices of its y axis; the script adds what colours it."""
    bars = " Bars are ±1 standard error." if METRICS[cell["fidelity"]].error else ""
    twins = any(point["member"] in page.axes["twins"] for point in cell["points"])
    seeds = " Members that differ in their seed alone are one mark, ±1 standard deviation over seeds." if twins else ""
    options = "".join(f'<option value="{key}">{escape(METRICS[key].choice)}</option>' for key in choices(cell))
    return (
        "<div class=chart-head><h3>Sparsity and fidelity</h3><div class=controls>"
        f"<label>y axis: <select class=measure>{options}</select></label></div></div>"
        "<div class=key></div>"
        "<div class='chart frontier' role=img aria-label='Frontier; its numbers are in the table below'></div>"
        "<p class=quiet>Lines join each colour's frontier in L0 and the measure that is shown, and a ring marks what is"
        f" on the frontier of all that is shown.{bars}{seeds} Click a point for its page.</p>"
    )


def data(page: Page) -> list[list[dict[str, Any]]]:
    """What papers say of each cell's model and site."""
    return [[dict(row) for row in of_cell(page.published, cell)] for cell in page.cells]
