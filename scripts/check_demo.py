"""Check what docs/ say of the demo, from its own pareto.json.

    python scripts/check_demo.py outputs/demo                        the claims
    python scripts/check_demo.py outputs/demo --longer outputs/long  and how much more training would still change

`outputs/long` is the same experiment with twice the tokens:

    sae-sweep +experiment=demo name=long training.tokens=3e6

Prints a table and exits with 1 when a claim does not hold; `--out FILE` also writes the numbers as JSON.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sae_sweep.reporting.pareto import interpolate
from scripts.claims import Point, concluded, on_target, points_of

MATCHED_L0 = (6.5, 8.0, 16.0, 32.0, 64.0, 90.0)
BEST_AT_LEAST = 0.95
GATED_BELOW_STANDARD = 0.002
ARCHITECTURES = ("gated", "standard", "standard_april", "topk")


def by_architecture(folder: Path) -> dict[str, list[Point]]:
    """The points of a sweep with one cell, by architecture."""
    points = points_of(folder)
    return {name: [p for p in points if p["architecture"] == name] for name in ARCHITECTURES}


def matched(points: dict[str, list[Point]]) -> list[dict[str, Any]]:
    """CE recovered of every architecture at matched L0s, None outside its range."""
    return [{"l0": l0, **{name: interpolate(own, l0) for name, own in points.items()}} for l0 in MATCHED_L0]


def claims(points: dict[str, list[Point]], table: Sequence[dict[str, Any]]) -> dict[str, bool]:
    """What docs/ say, each true or false."""
    everyone = [point for own in points.values() for point in own]
    both = [row for row in table if row["gated"] is not None and row["standard"] is not None]
    pairs = list(zip(*(sorted(points[name], key=lambda p: p["l0"]) for name in ("gated", "standard")), strict=True))
    return {
        "at least 12 members": len(everyone) >= 12,
        "L0 from below 10 to above 80": min(p["l0"] for p in everyone) < 10 and max(p["l0"] for p in everyone) > 80,
        f"best member recovers {BEST_AT_LEAST}": max(p["ce_recovered"] for p in everyone) >= BEST_AT_LEAST,
        "gated no worse than standard at matched L0": len(both) >= 4
        and all(row["gated"] >= row["standard"] - GATED_BELOW_STANDARD for row in both),
        "gated's gamma nearer to 1": all(abs(g["gamma"] - 1) < abs(s["gamma"] - 1) for g, s in pairs),
        "L0 within 5% of its target or 0.5": all(map(on_target, everyone)),
    }


def change(table: Sequence[dict[str, Any]], longer: Sequence[dict[str, Any]]) -> dict[str, float]:
    """The largest change in CE recovered at matched L0 that the longer run brings, by architecture."""
    return {
        name: max(
            abs(late[name] - early[name])
            for early, late in zip(table, longer, strict=True)
            if early[name] is not None and late[name] is not None
        )
        for name in ARCHITECTURES
    }


def print_table(rows: Sequence[dict[str, Any]]) -> None:
    print("      L0  " + "  ".join(f"{name:>14}" for name in ARCHITECTURES))
    for row in rows:
        cells = (f"{row[name]:14.4f}" if row[name] is not None else " " * 13 + "-" for name in ARCHITECTURES)
        print(f"{row['l0']:8.1f}  " + "  ".join(cells))


def main() -> int:
    parser = argparse.ArgumentParser(description="Check what docs/ say of the demo.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--longer", type=Path, help="the same experiment with twice the tokens")
    parser.add_argument("--out", type=Path, help="also write the numbers here, as JSON")
    arguments = parser.parse_args()
    for folder in filter(None, (arguments.folder, arguments.longer)):
        if not (folder / "pareto.json").is_file():
            parser.error(f"{folder} has no pareto.json: it is not the folder of a finished sweep")
    points = by_architecture(arguments.folder)
    table = matched(points)
    numbers: dict[str, Any] = {"matched": table}
    print_table(table)
    if arguments.longer:
        longer = matched(by_architecture(arguments.longer))
        numbers |= {"matched_longer": longer, "largest_change": change(table, longer)}
        print("with twice the tokens:")
        print_table(longer)
        print("largest change:", ", ".join(f"{name} {value:.4f}" for name, value in numbers["largest_change"].items()))
    return concluded(claims(points, table), numbers, arguments.out)


if __name__ == "__main__":
    sys.exit(main())
