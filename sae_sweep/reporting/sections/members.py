"""Every finished member in one table, which a click on a column sorts."""

from collections.abc import Sequence
from html import escape

from sae_sweep.config.values import count, number
from sae_sweep.evaluation.metrics import REPORT, Metric
from sae_sweep.reporting.cell import cell_title
from sae_sweep.reporting.page import Cell, Page
from sae_sweep.reporting.table import columns, frontier_marks, in_order

PLACE, SPAN = 60, "page"


def html(page: Page, cell: Cell | None) -> str:
    """The table, cell after cell."""
    if not page.cells:
        return "<section><h2>Members</h2><p>No member is finished yet.</p></section>"
    several, metrics = len(page.cells) > 1, columns(page.cells, REPORT)
    heads = [_head("Member")] + ([_head("Cell")] if several else [])
    heads += [_head(metric.title, metric.heading, numeric=True) for metric in metrics]
    heads += [_head("Frontier", "of the cell, or of its own architecture"), _head("Architecture")]
    heads += [_head(title, numeric=True) for title in ("Knob", "Width", "lr", "Seed", "Tokens")]
    rows = "".join(_rows(cell, metrics, several) for cell in page.cells)
    return (
        "<section><h2>Members</h2><p class=quiet>Click a column to sort.</p><div class=scroll>"
        f"<table class=members><thead><tr>{''.join(heads)}</tr></thead><tbody>{rows}</tbody></table></div></section>"
    )


def _rows(cell: Cell, metrics: Sequence[Metric], several: bool) -> str:
    marks = frontier_marks(cell)
    rows = []
    for point in in_order(cell["points"]):
        mark = marks.get(point["member"], "")
        knob = f"{point['knob']}={number(point['knob_value'])}"
        entries = [f"<th scope=row>{escape(point['member'])}</th>"]
        entries += [_entry(cell_title(cell["key"]), None)] if several else []
        entries += [_entry(metric.text(point), metric.value(point)) for metric in metrics]
        entries += [_entry(mark, None), _entry(point["architecture"], None), _entry(knob, point["knob_value"])]
        entries += [_entry(number(point[key]), point[key]) for key in ("width", "lr", "seed")]
        entries += [_entry(count(point["tokens_trained"]), point["tokens_trained"])]
        rows.append(f'<tr class="{mark}">{"".join(entries)}</tr>')
    return "".join(rows)


def _head(title: str, meaning: str = "", *, numeric: bool = False) -> str:
    kind = " class=number" if numeric else ""
    tip = f' title="{escape(meaning)}"' if meaning else ""
    return f"<th scope=col aria-sort=none{kind}{tip}><button type=button>{escape(title)}</button></th>"


def _entry(text: str, value: float | None) -> str:
    """A table cell; `data-value` is what it is sorted by."""
    sort_by = "" if value is None else f' data-value="{value!r}"'
    kind = "" if value is None and text != "-" else " class=number"
    return f"<td{kind}{sort_by}>{escape(text)}</td>"
