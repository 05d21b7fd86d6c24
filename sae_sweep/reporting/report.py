"""The report of a sweep, made from its folder alone, or of several together."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from sae_sweep.config.files import config_folder
from sae_sweep.config.values import count, number
from sae_sweep.evaluation.metrics import TERMINAL
from sae_sweep.folder.files import write_text_atomic
from sae_sweep.folder.names import PARETO, REPORT
from sae_sweep.host.terminal import escaped
from sae_sweep.plan.axes import Axis, axes
from sae_sweep.reporting.cell import cell_title, modelless
from sae_sweep.reporting.overlay import overlaid
from sae_sweep.reporting.page import Page, report_html
from sae_sweep.reporting.pareto import cells, disagreements, pareto_json
from sae_sweep.reporting.plot import WIDTH, frontier_plot
from sae_sweep.reporting.points import SweepRecord
from sae_sweep.reporting.published import read_all, shipped
from sae_sweep.reporting.sections.baselines import outliers
from sae_sweep.reporting.seeds import seed_table
from sae_sweep.reporting.table import aligned, columns, print_frontier


def write_report(folder: Path, console: Console | None = None, *, with_trimmed: bool = False) -> list[dict[str, Any]]:
    """Write pareto.json and report.html into a sweep's folder, print its frontier, and return its cells. Members that
    were trimmed are on frontiers only where that is asked for.

    Raises ConfigError where the folder has no readable sweep.json. Works with no finished member.
    """
    page = _page([folder], [], with_trimmed)
    pareto, html = folder / PARETO, folder / REPORT
    write_text_atomic(pareto, json.dumps(pareto_json(page.cells), indent=1, allow_nan=False) + "\n")
    write_text_atomic(html, report_html(page))
    _print(page, console or Console(), f"open {html} in a browser; its numbers: {pareto.name}")
    return list(page.cells)  # type: ignore[arg-type]  # as `cells` gives them


def write_overlay(
    folders: Sequence[Path],
    published: Sequence[Path],
    out: Path,
    console: Console | None = None,
    *,
    with_trimmed: bool = False,
) -> list[dict[str, Any]]:
    """Write a page of several sweeps together, whose members are compared where they share a cell, and of published
    numbers, those that ship and those of more files; print the frontiers, and return the cells. Raises ConfigError."""
    page = _page(folders, published, with_trimmed)
    write_text_atomic(out, report_html(page))
    _print(page, console or Console(), f"open {out} in a browser")
    return list(page.cells)  # type: ignore[arg-type]  # as `cells` gives them


def _page(folders: Sequence[Path], published: Sequence[Path], with_trimmed: bool) -> Page:
    record = overlaid(folders)
    papers = read_all([*shipped(config_folder()), *published])
    found = cells(record.points, with_trimmed=with_trimmed)
    return Page(folders[0], record, found, record.notes, papers)


def _print(page: Page, console: Console, last: str) -> None:
    """What is doubtful first, so that the frontier is what the eye ends on."""
    varying = axes(page.record.configs)
    doubts = [line for cell in page.cells for line in disagreements(cell)]
    for line in [*page.notes, *doubts, *_states(page.record)]:
        console.print(escaped(line), markup=False, highlight=False, soft_wrap=True)
    for cell in page.cells:
        print_cell(cell, console, varying)
    console.print(escaped(last), markup=False, highlight=False, soft_wrap=True)


def print_cell(cell: Mapping[str, Any], console: Console, varying: Sequence[Axis] = ()) -> None:
    """Print a cell's title, what its numbers are held against, and its members, with what of `varying` varies
    among them."""
    if modelless(cell["key"]) is None:
        baselines = "  ".join(f"{name} {number(value)}" for name, value in cell["baselines"].items())
        left_out = outliers(cell)
        told = f"{baselines}  on {count(cell['tokens'])} held-out tokens"
        told += f", without {left_out} outliers" if left_out else ""
    else:
        told = f"on {count(cell['tokens'])} held-out activations"
    for line in (cell_title(cell["key"]), told):
        console.print(escaped(line), markup=False, highlight=False, soft_wrap=True)
    print_frontier(cell, console, varying)
    if cell["seeds"]:
        for line in ("", *_seeds(cell, console)):
            console.print(escaped(line), markup=False, highlight=False, soft_wrap=True)
    for line in ("", *frontier_plot(cell, min(WIDTH, console.width)), ""):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _seeds(cell: Mapping[str, Any], console: Console) -> list[str]:
    """Means over seeds; on a terminal those of as many metrics as fit: pareto.json has all."""
    metrics = columns([cell], TERMINAL)
    lines = aligned(*seed_table(cell["seeds"], metrics))
    while console.is_terminal and len(metrics) > 1 and max(map(len, lines)) > console.width:
        metrics = metrics[:-1]
        lines = aligned(*seed_table(cell["seeds"], metrics))
    return lines


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
