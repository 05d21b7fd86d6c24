"""Every finished member in one table, which a click on a column sorts; a member's name opens its page."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from sae_sweep.config.values import count, number, shown
from sae_sweep.evaluation.metrics import REPORT, Metric
from sae_sweep.reporting.cell import cell_title
from sae_sweep.reporting.page import Cell, Page
from sae_sweep.reporting.points import Point
from sae_sweep.reporting.table import columns, frontier_marks, in_order

PLACE, SPAN = 60, "page"
OWN = ("architecture", "sparsity", "width", "lr", "seed")
"""Axes that have columns whether or not members differ in them."""


def html(page: Page, cell: Cell | None) -> str:
    """The table, cell after cell; its script fills what is above it."""
    if not page.cells:
        return "<section><h2>Members</h2><p>No member is finished yet.</p></section>"
    metrics, axes = columns(page.cells, REPORT), _further(page)
    heads = [_head("member", "Member")] + ([_head("cell", "Cell")] if len(page.cells) > 1 else [])
    heads += [_head(metric.key, metric.title, metric.heading, numeric=True) for metric in metrics]
    heads += [_head("frontier", "Frontier", "of the cell, or of its own architecture, in L0 and the cell's fidelity")]
    heads += [_head("architecture", "Architecture")]
    heads += [_head(key, title, numeric=True) for key, title in _NUMBERS.items()]
    heads += [_head(key, title) for key, title in axes.items()]
    rows = "".join(_rows(page, cell, metrics, axes) for cell in page.cells)
    return (
        "<section class=table><div class=chart-head><h2>Members</h2><div class=controls></div></div>"
        "<p class=quiet>Click a column to sort, a name for the member's page.</p><div class='scroll tall'>"
        f"<table class=members><thead><tr>{''.join(heads)}</tr></thead><tbody>{rows}</tbody></table></div></section>"
    )


_NUMBERS = {"knob_value": "Knob", "width": "Width", "lr": "lr", "seed": "Seed", "tokens_trained": "Tokens"}


def _further(page: Page) -> Mapping[str, str]:
    """Axes that members differ in, beside those that have columns anyway."""
    return {key: title for key, title in page.axes["titles"].items() if key not in OWN}


def _rows(page: Page, cell: Cell, metrics: Sequence[Metric], axes: Mapping[str, str]) -> str:
    marks = frontier_marks(cell)
    rows = []
    for point in in_order(cell["points"]):
        label = escape(point["member"])
        mark = marks.get(point["member"], "")
        entries = [f"<th scope=row><button type=button>{label}</button></th>"]
        entries += [_entry(cell_title(cell["key"]))] if len(page.cells) > 1 else []
        entries += [_entry(metric.text(point), metric.value(point)) for metric in metrics]
        entries += [_entry(mark), _entry(point["architecture"]), *_facts(point)]
        entries += [_axis(page.axes["of"][point["member"]].get(key)) for key in axes]
        rows.append(f'<tr class="{mark}" data-member="{label}">{"".join(entries)}</tr>')
    return "".join(rows)


def _facts(point: Point) -> list[str]:
    return [
        _entry(f"{point['knob']}={number(point['knob_value'])}", point["knob_value"]),
        *(_entry(number(point[key]), point[key]) for key in ("width", "lr", "seed")),
        _entry(count(point["tokens_trained"]), point["tokens_trained"]),
    ]


def _axis(value: Any) -> str:
    """The value of a key of configs."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return _entry(shown(value), value if is_number else None)


def _head(key: str, title: str, meaning: str = "", *, numeric: bool = False) -> str:
    kind = " class=number" if numeric else ""
    tip = f' title="{escape(meaning)}"' if meaning else ""
    return (
        f'<th scope=col aria-sort=none data-key="{escape(key)}"{kind}{tip}>'
        f"<button type=button>{escape(title)}</button></th>"
    )


def _entry(text: str, value: float | None = None) -> str:
    """A table cell; `data-value` is what it is sorted by."""
    sort_by = "" if value is None else f' data-value="{value!r}"'
    kind = "" if value is None and text != "-" else " class=number"
    return f"<td{kind}{sort_by}>{escape(text)}</td>"
