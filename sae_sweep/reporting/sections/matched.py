"""Each architecture at the same L0, read off its frontier in the measure that is shown."""

from html import escape

from sae_sweep.evaluation.metrics import METRICS
from sae_sweep.reporting.page import Cell, Page
from sae_sweep.reporting.pareto import first_measure

PLACE, SPAN = 50, "half"


def html(page: Page, cell: Cell) -> str:
    """The table's place: its script fills it, which follows the filters."""
    return (
        f"<h3>At matched L0: <span class=shown>{escape(METRICS[first_measure(cell)].name)}</span></h3>"
        "<div class=scroll><table class=matched></table></div><p class=quiet>Read off each architecture's frontier,"
        " linear in log L0 between neighbours; – is outside its range. Bold is best by more than both errors, over"
        " held-out rows and, of means, over seeds.</p>"
    )
