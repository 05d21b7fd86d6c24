"""What the scripts that check the claims of docs/ have in common: reading a sweep's points, and saying what holds."""

import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

Point = dict[str, Any]


def points_of(folder: Path) -> list[Point]:
    """The points of a finished sweep with one cell."""
    (cell,) = json.loads((folder / "pareto.json").read_text(encoding="utf-8"))["cells"]
    points: list[Point] = cell["points"]
    return points


def on_target(point: Point) -> bool:
    """Whether L0 is within the larger of 5% and 0.5 of what was asked for."""
    return bool(abs(point["l0"] - point["knob_value"]) <= max(0.5, 0.05 * point["knob_value"]))


def concluded(claims: Mapping[str, bool], numbers: Mapping[str, Any], out: Path | None) -> int:
    """The exit code, after printing each claim and, where `out` is given, writing all there as JSON."""
    print()
    for claim, holds in claims.items():
        print(f"{'holds' if holds else 'DOES NOT HOLD'}: {claim}")
    if out is not None:
        machine = {"python": platform.python_version(), "torch": torch.__version__, "cpu": platform.machine()}
        out.parent.mkdir(parents=True, exist_ok=True)
        found = {"claims": claims, **numbers, "machine": machine}
        out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0 if all(claims.values()) else 1
