"""The report of a sweep, made from its folder alone."""

import json
from pathlib import Path
from typing import Any

from rich.console import Console

from sae_sweep.config.values import count, number
from sae_sweep.folder.files import write_text_atomic
from sae_sweep.folder.names import PARETO, REPORT
from sae_sweep.host.terminal import escaped
from sae_sweep.reporting.cell import cell_title, synthetic
from sae_sweep.reporting.page import Page, report_html
from sae_sweep.reporting.pareto import cells, disagreements, pareto_json
from sae_sweep.reporting.plot import WIDTH, frontier_plot
from sae_sweep.reporting.points import SweepRecord, read_sweep
from sae_sweep.reporting.table import print_frontier


def write_report(folder: Path, console: Console | None = None) -> list[dict[str, Any]]:
    """Write pareto.json and report.html into a sweep's folder, print its frontier, and return its cells.

    Raises ConfigError where the folder has no readable sweep.json. Works with no finished member.
    """
    console = console or Console()
    record = read_sweep(folder)
    found = cells(record.points)
    notes = [*record.notes, *(line for cell in found for line in disagreements(cell))]
    pareto, html = folder / PARETO, folder / REPORT
    write_text_atomic(pareto, json.dumps(pareto_json(found), indent=1, allow_nan=False) + "\n")
    write_text_atomic(html, report_html(Page(folder, record, found, notes)))
    for cell in found:
        _print_cell(cell, console)
    for line in [*notes, *_states(record), f"open {html} in a browser; its numbers are in {pareto}"]:
        console.print(escaped(line), markup=False, highlight=False, soft_wrap=True)
    return found


def _print_cell(cell: dict[str, Any], console: Console) -> None:
    if synthetic(cell["key"]) is None:
        baselines = "  ".join(f"{name} {number(value)}" for name, value in cell["baselines"].items())
        told = f"{baselines}  on {count(cell['tokens'])} held-out tokens"
    else:
        told = f"on {count(cell['tokens'])} held-out activations"
    for line in (cell_title(cell["key"]), told):
        console.print(escaped(line), markup=False, highlight=False, soft_wrap=True)
    print_frontier(cell, console)
    for line in ("", *frontier_plot(cell, min(WIDTH, console.width)), ""):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _states(record: SweepRecord) -> list[str]:
    """What became of the members that have no point."""
    lines = [
        f"{member['member']}: {member['state']}" + (f", {member['reason']}" if member["reason"] else "")
        for member in record.unfinished
        if member["state"] == "failed"
    ]
    if not record.points:
        lines.append(f"no finished member yet, of {len(record.unfinished) + len(record.notes)}")
    elif record.unfinished:
        lines.append(f"{len(record.points)} members finished, {len(record.unfinished)} not")
    return lines
