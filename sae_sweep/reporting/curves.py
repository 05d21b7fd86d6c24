"""Training curves read back from metrics.jsonl, thinned for a report."""

import json
from pathlib import Path
from typing import Any

from sae_sweep.config.values import finite

CURVES = ("l0", "loss")
MOST_POINTS = 240


def read_curves(file: Path) -> dict[str, list[float | None]]:
    """`tokens` and each of CURVES, one value per kept line; no lines where the file is missing or holds none."""
    lines = thinned(_read_lines(file))
    curves = {key: [_short(_number(line.get(key))) for line in lines] for key in CURVES}
    return {"tokens": [_number(line["tokens"]) for line in lines], **curves}


def thinned(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """At most MOST_POINTS of the lines, evenly spaced, with the first and the last."""
    if len(lines) <= MOST_POINTS:
        return lines
    stride = (len(lines) - 1) / (MOST_POINTS - 1)
    return [lines[round(index * stride)] for index in range(MOST_POINTS)]


def _read_lines(file: Path) -> list[dict[str, Any]]:
    """The lines that are training steps. A line that was cut short (a killed run) is passed over."""
    if not file.is_file():
        return []
    lines = []
    with file.open(encoding="utf-8", errors="replace") as text:
        for line in text:
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if isinstance(entry, dict) and _number(entry.get("tokens")) is not None:
                lines.append(entry)
    return [line for line in lines if any(_number(line.get(key)) is not None for key in CURVES)]


def _number(value: object) -> float | None:
    return finite(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _short(value: float | None) -> float | None:
    """Five digits: more than a chart shows, a third of the bytes."""
    return None if value is None else float(f"{value:.5g}")
