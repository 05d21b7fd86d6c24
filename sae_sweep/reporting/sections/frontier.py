"""The frontier of a cell: L0 against a measure of fidelity that the reader chooses."""

from html import escape

from sae_sweep.evaluation.metrics import AXIS, METRICS
from sae_sweep.reporting.page import Cell, Page
from sae_sweep.reporting.table import columns

PLACE, SPAN = 30, "cell"


def html(page: Page, cell: Cell) -> str:
    """The chart's place, and the choices of its y axis."""
    fidelity = METRICS[cell["fidelity"]]
    bars = " Bars are ±1 standard error." if fidelity.error else ""
    options = "".join(
        f'<option value="{metric.key}">{escape(metric.choice)}</option>' for metric in columns([cell], AXIS)
    )
    return (
        "<div class=chart-head><h3>Sparsity and fidelity</h3>"
        f"<label>y axis: <select class=measure>{options}</select></label></div>"
        "<div class='chart frontier' role=img aria-label='Frontier; its numbers are in the table below'></div>"
        f"<p class=quiet>A ring marks members on the frontier of the whole cell.{bars} Lines join "
        f"each architecture's frontier in L0 and {fidelity.name}, whichever measure is shown.</p>"
    )
