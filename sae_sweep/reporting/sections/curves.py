"""Training curves, read back from metrics.jsonl and thinned."""

from pathlib import Path
from typing import Any

from sae_sweep.config.values import finite
from sae_sweep.folder.names import CURVES
from sae_sweep.host.json_files import parsed_object
from sae_sweep.reporting.page import Cell, Page

PLACE, SPAN = 70, "page"
DRAWN = ("l0", "loss")
MOST_POINTS = 240
"""Of a member, where there are few."""
FEWEST_POINTS, ALL_POINTS = 48, 24_000
"""The same where there are many, and of all together: a page has to open at once."""


def html(page: Page, cell: Cell | None) -> str:
    """The charts' places; nothing without a finished member."""
    if not page.cells:
        return ""
    return (
        "<section class=curves><h2>Training</h2><p class=quiet>The pointer on a name picks its curve out; a click hides"
        " or shows it, on an architecture all of its members.</p><div class=legend></div><div class=pair>"
        "<div><h3>L0</h3><div class=chart data-curve=l0></div></div>"
        "<div><h3>Training loss</h3><div class=chart data-curve=loss></div></div></div>"
        "<p class=quiet>Losses of different architectures have different terms; compare a member with itself.</p>"
        "</section>"
    )


def data(page: Page) -> list[dict[str, Any]]:
    """One member's curves after another's."""
    points = page.record.points
    most = max(FEWEST_POINTS, min(MOST_POINTS, ALL_POINTS // max(1, len(points))))
    return [
        {"member": point["member"], "architecture": point["architecture"]}
        | read_curves(page.record.folders[point["member"]] / CURVES, most)
        for point in points
    ]


def read_curves(file: Path, most: int = MOST_POINTS) -> dict[str, list[float | None]]:
    """`tokens` and each of DRAWN, one value per kept line, so many at most; no lines where the file is missing or holds
    none."""
    lines = thinned(_read_lines(file), most)
    curves = {key: [_short(_number(line.get(key))) for line in lines] for key in DRAWN}
    return {"tokens": [_number(line["tokens"]) for line in lines], **curves}


def thinned(lines: list[dict[str, Any]], most: int = MOST_POINTS) -> list[dict[str, Any]]:
    """At most so many of the lines, evenly spaced, with the first and the last."""
    if len(lines) <= most:
        return lines
    stride = (len(lines) - 1) / (most - 1)
    return [lines[round(index * stride)] for index in range(most)]


def _read_lines(file: Path) -> list[dict[str, Any]]:
    """The lines that are training steps. A line that was cut short (a killed run) is passed over."""
    if not file.is_file():
        return []
    lines = []
    with file.open(encoding="utf-8", errors="replace") as text:
        for line in text:
            try:
                entry = parsed_object(line)
            except ValueError:
                continue
            if _number(entry.get("tokens")) is not None:
                lines.append(entry)
    return [line for line in lines if any(_number(line.get(key)) is not None for key in DRAWN)]


def _number(value: object) -> float | None:
    return finite(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _short(value: float | None) -> float | None:
    """Five digits: more than a chart shows, a third of the bytes."""
    return None if value is None else float(f"{value:.5g}")
