"""How good the members are that sweep.py times: frontiers of our command and of other libraries, over several seeds.

    python scripts/bench/frontiers.py --only batchtopk --seeds 0,1,2 --out frontiers.json
    python scripts/bench/frontiers.py --only batchtopk --seeds 3 --out frontiers.json     one more seed of the same
    python scripts/bench/frontiers.py --quick --only topk --seeds 0,1                     does it run?

Members, settings and judge are sweep.py's. A seed is of the members alone: all read the same tokens in the same order.
Nothing is timed, so the machine may do other work. CE recovered of a side at an L0 is its frontier's, interpolated in
log L0, for each seed by itself; the table has the mean over seeds and, in brackets, the lowest and the highest.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from sae_sweep.reporting.pareto import interpolate
from scripts.bench import asked
from scripts.bench.common_ground import CommonGround, Point
from scripts.bench.matching import l0s_in_common
from scripts.bench.measure import machine, show, shown
from scripts.bench.peers.client import Unavailable
from scripts.bench.sides import run_side
from scripts.bench.sweeps import OURS, SIDES, Sweep

Seeds = dict[str, dict[str, list[Point]]]
"""Every seed's points by side."""


def points_of(sweep: Sweep, sides: Sequence[str], work: Path) -> dict[str, list[Point]]:
    """One seed's, of the sides that can be run here."""
    ground = CommonGround.of(sweep)
    rows = work / f"{sweep.architecture}.rows.npz"
    ground.save_rows(sweep, rows)
    found: dict[str, list[Point]] = {}
    for side in sides:
        name = f"{sweep.architecture}-{side}-seed{sweep.seed}"
        try:
            run = run_side(side, sweep, work, name, rows, ground.config.data)
        except Unavailable as reason:
            print(f"{name} was not measured: {reason}", file=sys.stderr)
        else:
            found[side] = ground.points(side, run, sweep)
    return found


def settings(sweep: Sweep) -> dict[str, Any]:
    """What all seeds have in common."""
    return {key: value for key, value in sweep.entry().items() if key != "seed"}


def entry(sweep: Sweep, seeds: Seeds) -> dict[str, Any]:
    """What --out keeps of an architecture."""
    facts = machine(torch.device(sweep.device))
    return {"machine": facts, "sweep": settings(sweep), "seeds": seeds, "matched": matched(seeds)}


def matched(seeds: Seeds) -> list[dict[str, Any]]:
    """CE recovered by side, a value per seed, at L0s that ours and some peer reach with every seed; a side that does
    not reach one with some seed is left out there."""
    rows: list[dict[str, Any]] = []
    for l0 in l0s_in_common(seeds.values()):
        found = {side: [interpolate(points.get(side, []), l0) for points in seeds.values()] for side in SIDES}
        rows.append({"l0": l0, **{side: values for side, values in found.items() if None not in values}})
    return rows


def print_frontiers(found: Mapping[str, Mapping[str, Any]]) -> None:
    peers = [side for side in SIDES if side != OURS]
    header = ["architecture", "seeds", "L0", OURS, *(name for side in peers for name in (side, f"{OURS} - {side}"))]
    rows: list[list[str]] = []
    for architecture, each in found.items():
        for row in each["matched"]:
            cells = [architecture, str(len(each["seeds"])), shown(row["l0"], 1), _spread(row.get(OURS))]
            for side in peers:
                both = OURS in row and side in row
                cells += [_spread(row.get(side)), f"{mean(row[OURS]) - mean(row[side]):+.4f}" if both else "-"]
            rows.append(cells)
    show("CE recovered at matched L0", header, rows)


def _spread(values: Sequence[float] | None) -> str:
    return "-" if not values else f"{mean(values):.4f} ({min(values):.4f} to {max(values):.4f})"


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    parser = asked.parser_of(__doc__)
    parser.add_argument("--seeds", type=_seeds, default=(0, 1, 2), help="of the members, with commas (0,1,2)")
    return asked.parsed(parser, "frontiers", arguments)


def _seeds(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def main(arguments: list[str] | None = None) -> int:
    wanted = parsed(arguments)
    found: dict[str, dict[str, Any]] = {}
    with asked.workplace(wanted) as work:
        for architecture in wanted.only:
            there = wanted.results.entry(architecture)
            for seed in wanted.seeds:
                sweep = asked.sweep_of(wanted, architecture, seed)
                kept = there["seeds"] if there and there["sweep"] == settings(sweep) else {}
                seeds = {**kept, str(seed): points_of(sweep, wanted.sides, work)}
                there = found[architecture] = entry(sweep, seeds)
                wanted.results.add(architecture, there)
    print_frontiers(found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
