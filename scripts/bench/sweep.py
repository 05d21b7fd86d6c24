"""What a whole sweep costs, and what it buys: our command against sae-lens's multi-SAE runner.

    python scripts/bench/sweep.py --out sweep.json                          standard, gated and topk, 8 members each
    python scripts/bench/sweep.py --quick --only topk                       does it run? (the numbers mean nothing)
    python scripts/bench/sweep.py --only standard --l1 1,2,3,4,5,6,8,10 --repeats 3

Both sides train the same members (knob values, widths, inputs scaled to mean norm sqrt(d), lr and its schedule) on the
same rows of tokens through the model that ships, both stopping it at the site. A side's process is timed from start to
end, in turns with the other's: ours also tokenises, calibrates, evaluates every member and reports, sae-lens's reads
finished rows and evaluates nothing. Medians over --repeats.

    whole s           the process
    training s        from the first forward pass of training to the last step; both include the language model
    us/token/SAE      training, per token and member; in the first and the last quarter of the steps
    us/token/+1       one more member: (training with all - training with --few) / (difference in members), per token
    at matched L0     CE recovered of both by OUR evaluation on the same held-out tokens, each side's frontier
                      interpolated in log L0: speed that was bought with quality would show here

Threads are OMP_NUM_THREADS's on both sides. Our recipes are those with sae-lens's loss (standard_april,
gated_decoder_norm, topk), so that a coefficient means the same; `--recipes papers` takes standard, gated and topk.
"""

import os

os.environ.setdefault("GOMP_SPINCOUNT", "2000")  # on both sides; the command sets it by itself

import argparse
import sys
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from math import exp, log
from pathlib import Path
from statistics import median
from typing import Any

import torch

from sae_sweep.reporting.pareto import interpolate
from scripts.bench.measure import machine, ratio, show, shown, write
from scripts.bench.peers.client import Unavailable
from scripts.bench.sweeps import PAPERS, SAME_LOSS, Bench, Point, Run, Sweep, run_ours, run_saelens

OURS, PEER = "ours", "sae-lens"
MATCHED = 5
"""L0s at which both sides are compared."""


def measure(sweep: Sweep, few: int, repeats: int, work: Path) -> dict[str, Any]:
    """Both sides with all members and with a few, in turns."""
    bench = Bench.of(sweep)
    rows = work / f"{sweep.architecture}.rows.npz"
    bench.save_rows(sweep, rows)
    middle = (len(sweep.values) - few) // 2
    sizes = {len(sweep.values): sweep, few: sweep.few(sweep.values[middle : middle + few])}
    runs: dict[tuple[str, int], list[Run]] = {}
    missing: dict[str, str] = {}
    for repeat in range(repeats):
        for members, own in sizes.items():
            for who in (OURS, PEER):
                name = f"{sweep.architecture}-{who}-{members}-{repeat}"
                print(f"running {name}", file=sys.stderr)
                try:
                    run = run_ours(own, work, name) if who == OURS else _peer(own, work, name, rows, bench)
                except Unavailable as reason:
                    missing[who] = str(reason)
                else:
                    runs.setdefault((who, members), []).append(run)
    sides = {who: _side(sweep, few, who, runs) for who in (OURS, PEER) if (who, len(sweep.values)) in runs}
    points = {who: _points(bench, who, runs[who, len(sweep.values)][0]) for who in sides}
    return {
        "sweep": asdict(sweep),
        "sides": sides,
        "points": points,
        "matched": matched(points),
        "not_measured": missing,
    }


def _peer(sweep: Sweep, work: Path, name: str, rows: Path, bench: Bench) -> Run:
    return run_saelens(sweep, work, name, rows, bench.config)


def _points(bench: Bench, who: str, run: Run) -> list[Point]:
    return bench.our_points(run.folder) if who == OURS else bench.saelens_points(run.folder)


def _side(sweep: Sweep, few: int, who: str, runs: dict[tuple[str, int], list[Run]]) -> dict[str, float | None]:
    """One side's numbers."""
    members, step_us = len(sweep.values), 1e6 / (sweep.batch * len(sweep.values))
    every, fewer = runs[who, members], runs.get((who, few), [])
    training = median(run.training for run in every)
    more = training - median(run.training for run in fewer) if fewer and members > few else None
    tokens = sweep.steps * sweep.batch
    return {
        "whole_seconds": median(run.seconds for run in every),
        "training_seconds": training,
        "us_per_token_and_sae": 1e6 * training / (tokens * members),
        "us_first_quarter": step_us * median(run.quarter(last=False) for run in every),
        "us_last_quarter": step_us * median(run.quarter(last=True) for run in every),
        "us_per_token_of_one_more": None if more is None else 1e6 * more / (tokens * (members - few)),
    }


def matched(points: dict[str, list[Point]]) -> list[dict[str, float | None]]:
    """CE recovered of both sides at L0s that both reach."""
    if len(points) < 2 or not all(points.values()):
        return []
    low = max(min(point["l0"] for point in own) for own in points.values())
    high = min(max(point["l0"] for point in own) for own in points.values())
    if not 0 < low < high:
        return []
    at = [exp(log(low) + i / (MATCHED - 1) * (log(high) - log(low))) for i in range(MATCHED)]
    at = [min(max(l0, low), high) for l0 in at]  # rounding may leave the range
    return [{"l0": l0, **{who: interpolate(own, l0) for who, own in points.items()}} for l0 in at]


def print_sweeps(found: Sequence[dict[str, Any]]) -> None:
    header = ["architecture", "side", "members", "whole s", "training s", "us/token/SAE", "first quarter"]
    header += ["last quarter", "us/token/+1"]
    rows: list[list[str]] = []
    for each in found:
        name, members = each["sweep"]["architecture"], str(len(each["sweep"]["values"]))
        for who, side in each["sides"].items():
            rows.append([name, who, members, *(shown(value) for value in side.values())])
        if len(each["sides"]) == 2:
            ours, peer = each["sides"][OURS], each["sides"][PEER]
            rows.append([name, f"{PEER}/{OURS}", "", *(shown(ratio(peer[key], ours[key])) for key in ours)])
    show("a whole sweep", header, rows)
    matches = [(each["sweep"]["architecture"], row) for each in found for row in each["matched"]]
    cells = [[name, shown(row["l0"], 1), shown(row[OURS], 4), shown(row[PEER], 4), _gain(row)] for name, row in matches]
    show("CE recovered at matched L0", ["architecture", "L0", OURS, PEER, f"{OURS} - {PEER}"], cells)
    for each in found:
        for who, own in each["points"].items():
            l0s = ", ".join(shown(point["l0"], 1) for point in own)
            print(f"{each['sweep']['architecture']}, {who}: L0 {l0s}")
        for who, reason in each["not_measured"].items():
            print(f"{each['sweep']['architecture']}, {who} was not measured: {reason}")


def _gain(row: dict[str, float | None]) -> str:
    ours, peer = row[OURS], row[PEER]
    return "-" if ours is None or peer is None else f"{ours - peer:+.4f}"


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(","))


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    first, _, rest = (__doc__ or "").partition("\n\n")
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=first, epilog=rest, formatter_class=plain)
    parser.add_argument("--only", default="standard,gated,topk", help="architectures, with commas (%(default)s)")
    parser.add_argument("--l1", type=_numbers, default=(0.5, 0.8, 1.2, 1.8, 2.7, 4.0, 6.0, 9.0), help="coefficients")
    parser.add_argument("--k", type=_numbers, default=(6, 10, 16, 24, 32, 48, 64, 96), help="topk's members")
    parser.add_argument("--few", type=int, default=1, help="members of the smaller sweep (%(default)s)")
    parser.add_argument("--width", type=int, default=1024, help="latents (%(default)s)")
    parser.add_argument("--tokens", type=float, default=1.5e6, help="training tokens (%(default)g)")
    parser.add_argument("--batch", type=int, default=512, help="tokens per step (%(default)s)")
    parser.add_argument("--lr", type=float, default=6e-3, help="of both sides (%(default)s)")
    parser.add_argument("--decay", type=float, default=0.5, help="share of the run in which lr falls (%(default)s)")
    parser.add_argument("--layer", type=int, default=2, help="resid_post of this block (%(default)s)")
    parser.add_argument("--evaluation-tokens", type=float, default=1e5, help="held-out tokens (%(default)g)")
    parser.add_argument("--repeats", type=int, default=1, help="times that every run is made (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the members (%(default)s)")
    parser.add_argument("--recipes", choices=("same-loss", "papers"), default="same-loss", help="ours (%(default)s)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (%(default)s)")
    parser.add_argument("--work", type=Path, help="keep the sweeps' folders here (a temporary one)")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs")
    parser.add_argument("--out", type=Path, help="write everything here too, as JSON")
    found = parser.parse_args(arguments)
    unknown = sorted(set(found.only.split(",")) - set(SAME_LOSS))
    if unknown:
        parser.error(f"--only: no {', '.join(unknown)} among {', '.join(SAME_LOSS)}")
    if found.quick:
        found.tokens, found.batch, found.width, found.evaluation_tokens = 5e4, 256, 256, 4e3
        found.l1, found.k = found.l1[1::3][:2], found.k[1::3][:2]
    shortest = min(len(found.l1), len(found.k))
    if not 1 <= found.few < shortest:
        parser.error(f"--few: must be at least 1 and below the number of members, {shortest}")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    asked = parsed(arguments)
    recipes = SAME_LOSS if asked.recipes == "same-loss" else PAPERS
    found = []
    with nullcontext(asked.work) if asked.work else tempfile.TemporaryDirectory() as folder:
        work = Path(folder).resolve()
        work.mkdir(parents=True, exist_ok=True)
        for architecture in asked.only.split(","):
            sweep = Sweep(
                architecture=architecture,
                recipe=recipes[architecture],
                values=asked.k if architecture == "topk" else asked.l1,
                width=asked.width,
                tokens=int(asked.tokens),
                batch=asked.batch,
                lr=asked.lr,
                decay=asked.decay,
                layer=asked.layer,
                evaluation_tokens=asked.evaluation_tokens,
                device=asked.device,
                seed=asked.seed,
            )
            found.append(measure(sweep, asked.few, asked.repeats, work))
    print_sweeps(found)
    write(asked.out, {"machine": machine(torch.device(asked.device)), "sweeps": found})
    return 0


if __name__ == "__main__":
    sys.exit(main())
