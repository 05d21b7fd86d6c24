"""How much an SAE shrinks or stretches what it reconstructs, against L0."""

from sae_sweep.reporting.page import Cell, Page

PLACE, SPAN = 40, "half"


def html(page: Page, cell: Cell) -> str:
    """The chart's place."""
    return "<h3>Reconstruction bias</h3><div class='chart gamma' role=img aria-label='Gamma against L0'></div>"
