"""Sites at a glance: a measure at the same L0, layer by layer."""

from sae_sweep.model.sites import parse_hook
from sae_sweep.reporting.page import Cell, Page

PLACE, SPAN = 6, "page"


def html(page: Page, cell: Cell | None) -> str:
    """The chart's place and its choices, which its script fills; nothing where there is one layer."""
    layers = {parse_hook(cell["key"]["site"]["out"]).layer for cell in page.cells}
    if len(layers) < 2:
        return ""
    return (
        "<section class=layers><div class=chart-head><h2>Layers</h2><div class=controls>"
        "<label>y axis: <select class=of></select></label><label>at L0: <select class=level></select></label>"
        "</div></div><div class=key></div><div class='chart overview' role=img aria-label='A measure by layer'></div>"
        "<p class=quiet>Read off each architecture's frontier at this L0, linear in log L0 between neighbours. Each"
        " site, and what else sets cells apart, is a line of its own.</p></section>"
    )
