"""What a whole sweep costs, and what it buys: our command against other libraries' multi-SAE training.

    python scripts/bench/sweep.py --out sweep.json              five architectures, 8 members each: about an hour
    python scripts/bench/sweep.py --only gated --out sweep.json one of them; the others' results in the file stay
    python scripts/bench/sweep.py --quick --only topk           does it run? (the numbers mean nothing)
    python scripts/bench/sweep.py --model demo --only topk      on the model that ships (d 128)
    python scripts/bench/sweep.py --install-peers               make the peers' environments first

Sides: our command; sae-lens's multi-SAE runner; dictionary_learning's `trainSAE`. All train members of the same widths
and knob values, lr and its schedule on the same rows of tokens through the same model, which stops at the site. By
default that is a small language model (d 64, 2 layers; after block 0), trained into --model once where it is missing. A
side's process is timed from start to end, in turns with the others: ours also tokenises, calibrates, evaluates every
member and reports; the peers read finished rows and evaluate nothing. Medians over --repeats. Before that ours is run
for a moment with as many members each: after installing, the first run compiles loops.

    whole s           the process
    training s        from the first forward pass of training to the last step; both include the language model
    judging s         judging every member on held-out tokens and saving it, which is in whole s
    us/token/SAE      training, per token and member; in the first and the last quarter of the steps
    us/token/+1       one more member: (training with all - training with --few) / (difference in members), per token
    us/token alone    training with one member, per token; the middle one of the sweep
    at matched L0     CE recovered of all by OUR evaluation on the same held-out tokens, each side's frontier
                      interpolated in log L0: speed that was bought with quality would show here

Threads are OMP_NUM_THREADS's on all sides. Our recipes are those with sae-lens's loss (standard_april,
gated_decoder_norm, ...) and its Adam, so that a coefficient means the same; `--recipes papers` takes standard
and gated for those two and leaves the others as they are.
dictionary_learning's gated is the paper's. jumprelu has no common knob: ours and dictionary_learning's aim at an L0,
sae-lens's takes a coefficient; only the frontiers are compared. sparsify is in step.py alone: its trainer takes one k
per run and scales no inputs, so members that share one pass over the model would have to be written here.
"""

import os

os.environ.setdefault("GOMP_SPINCOUNT", "2000")  # on all sides; the command sets it by itself

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch

from scripts.bench import asked
from scripts.bench.common_ground import CommonGround
from scripts.bench.matching import matched
from scripts.bench.measure import machine, ratio, show, shown
from scripts.bench.peers.client import Unavailable
from scripts.bench.sides import Run, run_ours, run_side
from scripts.bench.sweeps import OURS, SIDES, Sweep

FIRST_TOKENS = 400_000
"""Of our command's first runs, which are not timed: they compile loops that later ones find."""


def measure(sweep: Sweep, sides: Sequence[str], few: int, repeats: int, work: Path) -> dict[str, Any]:
    """Every side with all members and with a few, in turns."""
    ground = CommonGround.of(sweep)
    rows = work / f"{sweep.architecture}.rows.npz"
    ground.save_rows(sweep, rows)
    every = len(sweep.members[OURS].values)
    sweeps = {every: sweep} | ({few: sweep.few(few)} if few else {})
    for count, own in sweeps.items():  # members in a process per core take other loops than one that has all cores
        run_ours(replace(own, tokens=min(own.tokens, FIRST_TOKENS)), work, f"{sweep.architecture}-first-{count}")
    runs: dict[tuple[str, int], list[Run]] = {}
    missing: dict[str, str] = {}
    for repeat in range(repeats):
        for count, own in sweeps.items():
            for side in sides:
                if side in missing:
                    continue
                name = f"{sweep.architecture}-{side}-{count}-{repeat}"
                try:
                    run = run_side(side, own, work, name, rows, ground.config.data)
                except Unavailable as reason:
                    missing[side] = str(reason)
                else:
                    runs.setdefault((side, count), []).append(run)
    measured = [side for side in sides if (side, every) in runs]
    points = {side: ground.points(side, runs[side, every][0], sweep) for side in measured}
    return {
        "machine": machine(torch.device(sweep.device)),
        "sweep": sweep.entry(),
        "sides": {side: _side(sweep, few, side, runs) for side in measured},
        "points": points,
        "matched": matched(points),
        "not_measured": missing,
    }


def _side(sweep: Sweep, few: int, side: str, runs: dict[tuple[str, int], list[Run]]) -> dict[str, float | None]:
    """One side's numbers."""
    members = len(sweep.members[side].values)
    quarter_us = 4e6 / (sweep.steps * sweep.batch * members)
    every, fewer = runs[side, members], runs.get((side, few), [])
    training = median(run.training for run in every)
    judging = [run.judging for run in every if run.judging is not None]
    less = median(run.training for run in fewer) if fewer else None
    more = training - less if less is not None and members > few else None
    tokens = sweep.steps * sweep.batch
    return {
        "whole_seconds": median(run.seconds for run in every),
        "training_seconds": training,
        "judging_seconds": median(judging) if judging else None,
        "us_per_token_and_sae": 1e6 * training / (tokens * members),
        "us_first_quarter": quarter_us * median(run.quarter(last=False) for run in every),
        "us_last_quarter": quarter_us * median(run.quarter(last=True) for run in every),
        "us_per_token_of_one_more": None if more is None else 1e6 * more / (tokens * (members - few)),
        "us_per_token_alone": 1e6 * less / tokens if less is not None and few == 1 else None,
    }


def print_sweeps(found: Mapping[str, dict[str, Any]]) -> None:
    header = ["architecture", "side", "members", "whole s", "training s", "judging s", "us/token/SAE"]
    header += ["first quarter", "last quarter", "us/token/+1", "us/token alone"]
    rows: list[list[str]] = []
    for name, each in found.items():
        sides = each["sides"]
        for side, own in sides.items():
            count = str(len(each["sweep"]["members"][side]["values"]))
            rows.append([name, side, count, *(shown(value) for value in own.values())])
        for side in [side for side in sides if side != OURS and OURS in sides]:
            ratios = (shown(ratio(sides[side][key], sides[OURS][key])) for key in sides[OURS])
            rows.append([name, f"{side}/{OURS}", "", *ratios])
    show("a whole sweep", header, rows)
    peers = [side for side in SIDES if side != OURS]
    cells = [[name, *_matched(row, peers)] for name, each in found.items() for row in each["matched"]]
    columns = [column for side in peers for column in (side, f"{OURS} - {side}")]
    show("CE recovered at matched L0", ["architecture", "L0", OURS, *columns], cells)
    for name, each in found.items():
        for side, points in each["points"].items():
            l0s = ", ".join(shown(point["l0"], 1) for point in points)
            print(f"{name}, {side}: L0 {l0s}")
        for side, reason in each["not_measured"].items():
            print(f"{name}, {side} was not measured: {reason}")


def _matched(row: Mapping[str, float | None], peers: Sequence[str]) -> list[str]:
    ours = row[OURS]
    cells = [shown(row["l0"], 1), shown(ours, 4)]
    for side in peers:
        peer = row.get(side)
        cells += [shown(peer, 4), "-" if ours is None or peer is None else f"{ours - peer:+.4f}"]
    return cells


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    parser = asked.parser_of(__doc__)
    parser.add_argument("--few", type=int, default=1, help="members of the smaller sweep, 0 for none (%(default)s)")
    parser.add_argument("--repeats", type=int, default=1, help="times that every run is made (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the members (%(default)s)")
    found = asked.parsed(parser, "sweep", arguments)
    least = min(len(asked.members_of(found, architecture)[OURS].values) for architecture in found.only)
    if not 0 <= found.few < least:
        parser.error(f"--few: must be at least 0 and below the number of members, {least}")
    return found


def main(arguments: list[str] | None = None) -> int:
    wanted = parsed(arguments)
    found: dict[str, dict[str, Any]] = {}
    with asked.workplace(wanted) as work:
        for architecture in wanted.only:
            sweep = asked.sweep_of(wanted, architecture, wanted.seed)
            found[architecture] = measure(sweep, wanted.sides, wanted.few, wanted.repeats, work)
            wanted.results.add(architecture, found[architecture])
    print_sweeps(found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
