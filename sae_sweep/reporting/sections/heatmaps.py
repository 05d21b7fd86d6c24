"""Grids of dictionary size against sparsity, as Sharkey et al. 2022 draw them: one map for each number, none mixed."""

from collections.abc import Iterable, Mapping
from html import escape
from statistics import fmean
from typing import Any

from sae_sweep.config.values import finite
from sae_sweep.evaluation.metrics import MAP, Metric, shown
from sae_sweep.reporting.cell import modelless
from sae_sweep.reporting.page import Cell, Page
from sae_sweep.reporting.points import Point

PLACE, SPAN = 20, "cell"


def html(page: Page, cell: Cell) -> str:
    """Places for each grid's heat maps, dictionary size against the knob; nothing of a language model's cell."""
    parts = []
    for index, grid in enumerate(grids(cell)):
        charts = "".join(
            f"<div><h4>{escape(metric.heading)}</h4><div class='chart map' data-grid={index} data-map={metric.key}"
            f" role=img aria-label='{escape(metric.heading)}; its numbers are in the table below'></div></div>"
            for metric in maps()
        )
        title = f"{grid['architecture']}: dictionary size against {grid['knob']}"
        parts.append(f"<h3>{escape(title)}</h3><div class=maps>{charts}</div>")
    if parts:
        parts.append(
            "<p class=quiet>One map for each number; brighter is higher. Latents is the dictionary's size.</p>"
        )
    return "".join(parts)


def data(page: Page) -> list[list[dict[str, Any]]]:
    """The grids of every cell."""
    return [grids(cell) for cell in page.cells]


def maps() -> list[Metric]:
    """What is drawn, one heat map each: first what was found, then the rest."""
    return sorted(shown(MAP, toy=True), key=lambda metric: metric.better != "higher")


def grids(cell: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The grids among the members of a cell of synthetic activations; none for a language model's.

    One for each architecture and knob with at least two widths and two values of the knob: `architecture`, `knob`,
    `widths` and `values`, both rising, `members` (how many a place holds) and `maps`, from the key of each to the
    numbers [width][value]. Where members differ in something else, such as their seed, a number is their mean; it is
    None where there are none.
    """
    if modelless(cell["key"]) is None:
        return []
    places: dict[tuple[str, str], dict[tuple[float, float], list[Point]]] = {}
    for point in cell["points"]:
        width, value = point["width"], point["knob_value"]
        if width is not None and value is not None:
            own = places.setdefault((point["architecture"], point["knob"]), {})
            own.setdefault((width, value), []).append(point)
    found = [_grid(architecture, knob, own) for (architecture, knob), own in sorted(places.items())]
    return [grid for grid in found if len(grid["widths"]) > 1 and len(grid["values"]) > 1]


def _grid(architecture: str, knob: str, places: Mapping[tuple[float, float], list[Point]]) -> dict[str, Any]:
    widths, values = (sorted({place[axis] for place in places}) for axis in (0, 1))
    members = [[places.get((width, value), []) for value in values] for width in widths]
    return {
        "architecture": architecture,
        "knob": knob,
        "widths": widths,
        "values": values,
        "members": [[len(points) for points in row] for row in members],
        "maps": {
            metric.key: [[_mean(point[metric.key] for point in points) for points in row] for row in members]
            for metric in maps()
        },
    }


def _mean(numbers: Iterable[float | None]) -> float | None:
    known = [number for number in numbers if finite(number) is not None]
    return fmean(number for number in known if number is not None) if known else None
