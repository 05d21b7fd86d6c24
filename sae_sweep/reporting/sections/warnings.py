"""What makes a cell's numbers doubtful, before one reads them."""

from html import escape

from sae_sweep.reporting.page import Cell, Page
from sae_sweep.reporting.pareto import disagreements

PLACE, SPAN = 9, "cell"
MOST = 3
"""How many lines are seen at once; the others unfold."""


def html(page: Page, cell: Cell) -> str:
    """A list; nothing where nothing is doubtful."""
    lines = [f"<li>{escape(line)}</li>" for line in disagreements(cell)]
    if not lines:
        return ""
    rest = lines[MOST:]
    more = f"<details><summary>{len(rest)} more</summary><ul>{''.join(rest)}</ul></details>" if rest else ""
    return f"<div class=warnings role=note><ul>{''.join(lines[:MOST])}</ul>{more}</div>"
