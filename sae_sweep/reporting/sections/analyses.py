"""What analyses found of the sweep: any of them, its numbers with their errors and controls, and its figure."""

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from sae_sweep.config.values import finite, shown
from sae_sweep.folder import names
from sae_sweep.host.json_files import read_object
from sae_sweep.reporting.page import Cell, Page

PLACE, SPAN = 58, "page"
MOST_COLUMNS, MOST_ROWS = 24, 200
"""Of a table of members' numbers: those beyond are in the file alone."""


def html(page: Page, cell: Cell | None) -> str:
    """A panel for each analysis of each sweep; nothing where none was asked."""
    return "".join(_panel(index, found, len(page.record.roots) > 1) for index, found in enumerate(results(page)))


def data(page: Page) -> list[Mapping[str, Any] | None]:
    """The figure of each panel."""
    return [found.get("figure") for found in results(page)]


def results(page: Page) -> list[dict[str, Any]]:
    """Every readable result of the page's sweeps, with `sweep` and `file`, by sweep and name."""
    found = []
    for sweep, root in page.record.roots.items():
        for file in sorted((root / names.ANALYSES).glob("*.json")):
            try:
                entries = read_object(file)
            except (OSError, ValueError):
                continue
            if isinstance(entries.get("analysis"), str):
                found.append({**entries, "sweep": sweep, "file": str(Path(names.ANALYSES) / file.name)})
    return found


def _panel(index: int, found: Mapping[str, Any], several: bool) -> str:
    title = f"{found['analysis']}, {found['sweep']}" if several else found["analysis"]
    config = ", ".join(f"{key}={shown(value)}" for key, value in _mapping(found.get("config")).items())
    figure = ""
    if found.get("figure"):
        figure = f"<div class=key></div><div class='chart analysis' data-index={index} role=img></div>"
    return (
        f"<section class=analysis><h2>Analysis: {escape(title)}</h2><p class=quiet>{escape(config)}"
        f"{' · ' if config else ''}{escape(found['file'])} has all of it. ± is one standard error; of members,"
        " vs is the control. A number that does not differ from it by more than its error says nothing.</p>"
        f"{figure}{_numbers(_mapping(found.get('numbers')))}{_members(_mapping(found.get('members')))}</section>"
    )


def _numbers(numbers: Mapping[str, Any]) -> str:
    """The whole sweep's, a row each."""
    rows = "".join(
        f"<tr><th scope=row>{escape(name)}</th><td class=number>{_value(number)}</td>"
        f"<td class=number>{_short(number.get('control'))}</td><td class=number>{_short(number.get('n'))}</td></tr>"
        for name, number in numbers.items()
        if isinstance(number, Mapping)
    )
    heads = "<th scope=col></th><th scope=col class=number>Value</th><th scope=col class=number>Control</th>"
    return _table(f"{heads}<th scope=col class=number>n</th>", rows) if rows else ""


def _members(members: Mapping[str, Any]) -> str:
    """Each member's, a row for it and a column for each name; where most names are of few members, a row for each."""
    of = {label: _mapping(numbers) for label, numbers in members.items()}
    columns = list(dict.fromkeys(name for numbers in of.values() for name in numbers))
    if 2 * sum(map(len, of.values())) < len(of) * len(columns):
        return _sparse(of)
    kept = columns[:MOST_COLUMNS]
    rows = "".join(
        f"<tr><th scope=row>{escape(label)}</th>"
        + "".join(f"<td class=number>{_value(numbers.get(name))}{_control(numbers.get(name))}</td>" for name in kept)
        + "</tr>"
        for label, numbers in of.items()
    )
    heads = "".join(f"<th scope=col class=number>{escape(name)}</th>" for name in kept)
    left = len(columns) - len(kept)
    told = f"<p class=quiet>{left} more columns are in the file.</p>" if left else ""
    return _table(f"<th scope=col>Member</th>{heads}", rows) + told if rows else ""


def _sparse(of: Mapping[str, Mapping[str, Any]]) -> str:
    """A row for each number of each member."""
    rows = [
        f"<tr><th scope=row>{escape(label)}</th><td>{escape(name)}</td>"
        f"<td class=number>{_value(number)}{_control(number)}</td></tr>"
        for label, numbers in of.items()
        for name, number in numbers.items()
    ]
    left = len(rows) - MOST_ROWS
    told = f"<p class=quiet>{left} more rows are in the file.</p>" if left > 0 else ""
    heads = "<th scope=col>Member</th><th scope=col></th><th scope=col class=number>Value</th>"
    return _table(heads, "".join(rows[:MOST_ROWS])) + told


def _table(heads: str, rows: str) -> str:
    return (
        f"<div class='scroll tall'><table class=members><thead><tr>{heads}</tr></thead>"
        f"<tbody>{rows}</tbody></table></div>"
    )


def _value(number: Any) -> str:
    """With its error."""
    if not isinstance(number, Mapping):
        return "–"
    error = _finite(number.get("standard_error"))
    return _short(number.get("value")) + (f" ±{error:.2g}" if error is not None else "")


def _control(number: Any) -> str:
    control = _finite(number.get("control")) if isinstance(number, Mapping) else None
    return "" if control is None else f" <span class=control>vs {control:.4g}</span>"


def _short(value: Any) -> str:
    return "–" if (known := _finite(value)) is None else f"{known:.4g}"


def _finite(value: Any) -> float | None:
    return finite(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
