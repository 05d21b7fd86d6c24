"""report.html: one file, with its data and plotly inside, that opens without a network.

It is made of sections, each a file of `sections/` or an entry point in the group `sae_sweep.sections`. What all their
scripts use is in `scripts/`, and how everything looks in report.css, beside this file.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, Protocol, cast

from sae_sweep.evaluation.metrics import AXIS, METRICS
from sae_sweep.host.kinds import Kinds
from sae_sweep.reporting.axes import axes
from sae_sweep.reporting.cell import cell_title
from sae_sweep.reporting.pareto import first_measure
from sae_sweep.reporting.points import SweepRecord
from sae_sweep.reporting.table import columns

SAID = ("title", "heading", "axis", "name", "digits", "scale", "most", "error", "better")
"""What scripts know of a metric."""
SCRIPTS = ("data", "selection", "scales", "marks", "charts", "saving")
"""The files of `scripts/`, each of which uses those before it."""
Cell = Mapping[str, Any]
"""As pareto.json has it."""


@dataclass(frozen=True)
class Page:
    """What sections are made from."""

    folder: Path
    """The sweep's; of several sweeps the first one's."""
    record: SweepRecord
    cells: Sequence[Cell]
    notes: Sequence[str]
    """What readers must know of the members that are left out, a line each."""
    published: Sequence[Mapping[str, Any]] = field(default_factory=tuple)
    """Numbers that papers give, as `published.py` reads them."""

    @cached_property
    def axes(self) -> dict[str, Any]:
        """In what members differ."""
        return axes(self.record, self.cells)


class Section(Protocol):
    """A module that makes one section; a script of the same name beside it may draw what is in it.

    The script runs once. It has what `scripts/` define and, as `data`, what the module's `data(page)` gives in JSON's
    types, where there is such a function. What it gives to `chart(element, paint)` is drawn when it is near the screen,
    and again when filters, colours or the width change; what it gives to `onChange` is called when filters do.
    """

    PLACE: int
    """Sections stand in rising order."""
    SPAN: Literal["page", "cell", "half"]
    """The page has one, or each cell has one: as wide as the page, or half as wide with its neighbour beside it."""
    __file__: str

    def html(self, page: Page, cell: Cell | None) -> str:
        """Of the page, or of one cell of it."""


SECTIONS = Kinds("sae_sweep.reporting.sections", "sae_sweep.sections")


def report_html(page: Page) -> str:
    """The whole page. Training curves are read from the members' folders."""
    from plotly.offline import get_plotlyjs

    sections = {name: cast(Section, SECTIONS[name]) for name in SECTIONS}
    here = Path(__file__).parent
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(page.record.name)}: SAE frontier</title>\n"
        f"<style>\n{(here / 'report.css').read_text(encoding='utf-8')}</style>\n</head>\n"
        f"<body>\n<main>\n{_body(page, list(sections.values()))}\n</main>\n"
        f'<script type="application/json" id="data">{_script_json(_data(page, sections))}</script>\n'
        f"<script>{get_plotlyjs() if page.cells else ''}</script>\n"
        f"<script>\n{_script(here, sections)}</script>\n</body>\n</html>\n"
    )


def _data(page: Page, sections: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "cells": [{key: value for key, value in cell.items() if key != "seeds"} for cell in page.cells],
        "choices": [choices(cell) for cell in page.cells],
        "metrics": {key: {name: getattr(metric, name) for name in SAID} for key, metric in METRICS.items()},
        "axes": page.axes,
        "sections": {name: section.data(page) for name, section in sections.items() if hasattr(section, "data")},
    }


def choices(cell: Cell) -> list[str]:
    """The measures that a cell's frontier can be seen in, the one that it is first seen in first."""
    first = first_measure(cell)
    return sorted((metric.key for metric in columns([cell], AXIS)), key=lambda key: key != first)


def _script(here: Path, sections: Mapping[str, Section]) -> str:
    files = {name: Path(section.__file__).with_suffix(".js") for name, section in sections.items()}
    own = [
        f'{{\nconst data = sections["{name}"];\n{file.read_text(encoding="utf-8")}}}\n'
        for name, file in files.items()
        if file.is_file()
    ]
    shared = [(here / "scripts" / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS]
    return "".join([*shared, *own, "start();\n"])


def _body(page: Page, sections: Sequence[Section]) -> str:
    """The sections in their order; those of cells that follow each other are together in a panel for each cell."""
    parts = []
    for of_page, run in groupby(sorted(sections, key=lambda one: one.PLACE), key=lambda one: one.SPAN == "page"):
        some = list(run)
        if of_page:
            parts += [section.html(page, None) for section in some]
        else:
            parts += [_panel(page, index, some) for index in range(len(page.cells))]
    return "\n".join(parts)


def _panel(page: Page, index: int, sections: Sequence[Section]) -> str:
    cell = page.cells[index]
    parts = []
    for span, run in groupby(sections, key=lambda one: one.SPAN):
        made = [section.html(page, cell) for section in run]
        halves = "".join(f"<div>{half}</div>" for half in made)
        parts.append(f"<div class=pair>{halves}</div>" if span == "half" else "".join(made))
    title = escape(cell_title(cell["key"]))
    return f'<section class=cell data-cell="{index}"><h2>{title}</h2>{"".join(parts)}</section>'


def _script_json(data: object) -> str:
    """JSON that cannot end the script element it stands in."""
    return json.dumps(data, allow_nan=False, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
