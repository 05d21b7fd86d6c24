"""Cells and their frontiers: which members no other member of the cell beats."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from sae_sweep.config.values import finite
from sae_sweep.reporting.cell import fidelity
from sae_sweep.reporting.points import BASELINES, Point
from sae_sweep.reporting.seeds import seed_means

PARETO_VERSION = 1
L0_TOLERANCE = 0.05
"""A steered member further than this share, and 0.5, from its target L0 is told of."""
TOLD = 3
"""Members with the same doubt that are named."""
_BASELINE_TOLERANCE = 1e-3
"""Relative. Devices and batch shapes differ in the last bits; other held-out tokens differ by far more."""


def frontier(
    points: Iterable[Point], x: str = "l0", y: str = "ce_recovered", *, with_trimmed: bool = False
) -> list[str]:
    """Labels of the members that are not dominated in x (less is better) and y (more is), by rising x.

    A member is dominated when another has no more x and no less y, and is better in one of them; members equal in both
    stand together. Members without a finite x and y take no part, and those that were trimmed only where asked for.
    """
    best = -math.inf
    labels: list[str] = []
    kept: tuple[float, float] | None = None
    points = (point for point in points if with_trimmed or not point.get("trimmed"))
    for point in sorted(_comparable(points, x, y), key=lambda point: (point[x], -point[y])):
        place = (point[x], point[y])
        if point[y] > best or place == kept:
            labels.append(point["member"])
            best, kept = point[y], place
    return labels


def interpolate(points: Sequence[Point], l0: float, y: str = "ce_recovered") -> float | None:
    """A measure of fidelity at a matched L0, on the frontier of one architecture's points.

    Linear in log L0 between neighbours on the frontier; None outside the frontier's range.
    """
    found = bracket(points, l0, y)
    return sum(weight * float(point[y]) for weight, point in found) if found else None


def bracket(points: Sequence[Point], l0: float, y: str = "ce_recovered") -> list[tuple[float, Point]]:
    """The neighbours of an L0 on the frontier of some points, with the weights of `interpolate`; empty outside."""
    labels = set(frontier(points, y=y))
    curve = sorted((point for point in points if point["member"] in labels), key=lambda point: (point["l0"], point[y]))
    for left, right in pairwise(curve):
        if left["l0"] <= l0 <= right["l0"] and 0 < left["l0"] < right["l0"]:
            share = math.log(l0 / left["l0"]) / math.log(right["l0"] / left["l0"])
            return [(1 - share, left), (share, right)]
    return next(([(1.0, point)] for point in curve if point["l0"] == l0), [])


def cells(points: Sequence[Point], *, with_trimmed: bool = False) -> list[dict[str, Any]]:
    """Points grouped into cells, in order of appearance, each with its baselines and frontiers (pareto.json); those
    with members that were trimmed, too, where that is asked for."""
    grouped: dict[str, list[Point]] = {}
    for point in points:
        grouped.setdefault(json.dumps(point["cell"], sort_keys=True), []).append(point)
    return [_cell(members, with_trimmed) for members in grouped.values()]


def by_architecture(points: Iterable[Point]) -> dict[str, list[Point]]:
    """Points by architecture, architectures in alphabetical order."""
    found: dict[str, list[Point]] = {}
    for point in sorted(points, key=lambda point: str(point["architecture"])):
        found.setdefault(point["architecture"], []).append(point)
    return found


def pareto_json(cells: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The content of pareto.json."""
    return {"version": PARETO_VERSION, "cells": list(cells)}


def first_measure(cell: Mapping[str, Any]) -> str:
    """What a cell's members are first seen in: their fidelity, or KL where CE recovered means nothing."""
    return "kl" if _zeros_cost_nothing(cell) else str(cell["fidelity"])


def _zeros_cost_nothing(cell: Mapping[str, Any]) -> bool:
    clean, zero = finite(cell["baselines"]["ce_clean"]), finite(cell["baselines"]["ce_zero"])
    return clean is not None and zero is not None and zero <= clean


def disagreements(cell: Mapping[str, Any]) -> list[str]:
    """One line for each thing that makes the cell's numbers doubtful."""
    lines = []
    if _zeros_cost_nothing(cell):
        clean, zero = cell["baselines"]["ce_clean"], cell["baselines"]["ce_zero"]
        lines.append(
            f"ce_zero {zero:.4g} is not above ce_clean {clean:.4g}: zeroing this site costs the model nothing, so CE"
            " recovered means nothing here; look at ce_delta and kl"
        )
    lines += _some("L0 missed", _missed(cell)) + _some("L0 trimmed", _trimmed(cell))
    for name in BASELINES:
        values = [point[name] for point in cell["points"] if finite(point[name]) is not None]
        if values and max(values) - min(values) > _BASELINE_TOLERANCE * abs(max(values)):
            lines.append(
                f"{name} runs from {min(values):.4g} to {max(values):.4g} in one cell: its members did not see the"
                " same held-out tokens, do not compare them"
            )
    return lines


def _missed(cell: Mapping[str, Any]) -> list[str]:
    told = []
    for point in cell["points"]:
        target, l0 = point["knob_value"] if point["knob"] == "l0" else None, finite(point["l0"])
        if target is not None and l0 is not None and abs(l0 - target) > max(0.5, L0_TOLERANCE * target):
            told.append(
                f"{point['member']} has {l0:.3g} on held-out text, not the {target:g} that it has on training text"
            )
    return told


def _trimmed(cell: Mapping[str, Any]) -> list[str]:
    nowhere = "" if cell.get("with_trimmed") else "it is on no frontier; "
    return [
        f"{point['member']} trained at {point['l0_untrimmed']:.3g} and was brought to the {point['knob_value']:g} asked"
        f" for at the end; {nowhere}train longer"
        for point in cell["points"]
        if point.get("trimmed")
    ]


def _some(what: str, told: Sequence[str]) -> list[str]:
    """The first few lines, and how many more there are."""
    more = [f"and {len(told) - TOLD} more"] if len(told) > TOLD else []
    return [f"{what}: {line}" for line in [*told[:TOLD], *more]]


def _cell(points: Sequence[Point], with_trimmed: bool) -> dict[str, Any]:
    first = points[0]
    y = fidelity(first["cell"])
    frontiers = {"overall": frontier(points, y=y, with_trimmed=with_trimmed)}
    for architecture, members in by_architecture(points).items():
        frontiers[architecture] = frontier(members, y=y, with_trimmed=with_trimmed)
    return {
        "key": first["cell"],
        "fidelity": y,
        "baselines": {name: first[name] for name in BASELINES},
        "tokens": first["tokens_evaluated"],
        "points": [{key: value for key, value in point.items() if key not in ("cell", "twin")} for point in points],
        "seeds": seed_means(points),
        "frontiers": frontiers,
        "with_trimmed": with_trimmed,
    }


def _comparable(points: Iterable[Point], x: str, y: str) -> list[Point]:
    return [point for point in points if finite(point.get(x)) is not None and finite(point.get(y)) is not None]
