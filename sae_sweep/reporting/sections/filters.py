"""The bar that stays in sight: which members charts, tables and curves show."""

from sae_sweep.reporting.page import Cell, Page

PLACE, SPAN = 4, "page"


def html(page: Page, cell: Cell | None) -> str:
    """The bar's place, which its script fills; nothing without a finished member."""
    return "<nav class=filters aria-label='Which members are shown'></nav>" if page.cells else ""
