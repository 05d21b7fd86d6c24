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
for a moment, with one member: after installing, the first run compiles loops.

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
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from math import exp, log
from pathlib import Path
from statistics import median
from typing import Any

import torch

from sae_sweep.reporting.pareto import interpolate
from scripts.bench import language_model
from scripts.bench.common_ground import CommonGround, Point
from scripts.bench.measure import Results, machine, ratio, show, shown
from scripts.bench.peers.client import Unavailable, install_missing
from scripts.bench.sides import PEER_SCRIPTS, Run, run_ours, run_peer
from scripts.bench.sweeps import L0_COEFFICIENTS, OURS, PAPERS, SAME_LOSS, SIDES, VALUES, Sweep, members

MATCHED = 5
"""L0s at which the sides are compared."""
FIRST_TOKENS = 400_000
"""Of our command's first run, which is not timed: it compiles loops that later ones find."""


def measure(sweep: Sweep, sides: Sequence[str], few: int, repeats: int, work: Path) -> dict[str, Any]:
    """Every side with all members and with a few, in turns."""
    ground = CommonGround.of(sweep)
    rows = work / f"{sweep.architecture}.rows.npz"
    ground.save_rows(sweep, rows)
    run_ours(replace(sweep.few(1), tokens=min(sweep.tokens, FIRST_TOKENS)), work, f"{sweep.architecture}-first")
    every = len(sweep.members[OURS].values)
    sweeps = {every: sweep} | ({few: sweep.few(few)} if few else {})
    runs: dict[tuple[str, int], list[Run]] = {}
    missing: dict[str, str] = {}
    for repeat in range(repeats):
        for count, own in sweeps.items():
            for side in sides:
                if side in missing:
                    continue
                name = f"{sweep.architecture}-{side}-{count}-{repeat}"
                print(f"running {name}", file=sys.stderr)
                try:
                    if side == OURS:
                        run = run_ours(own, work, name)
                    else:
                        run = run_peer(side, own, work, name, rows, ground.config.data)
                except Unavailable as reason:
                    missing[side] = str(reason)
                else:
                    runs.setdefault((side, count), []).append(run)
    measured = [side for side in sides if (side, every) in runs]
    points = {side: ground.points(side, runs[side, every][0], sweep) for side in measured}
    return {
        "machine": machine(torch.device(sweep.device)),
        "sweep": sweep_entry(sweep),
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


def sweep_entry(sweep: Sweep) -> dict[str, Any]:
    """The settings, in JSON's types."""
    model = {"model": sweep.model.folder.name, "layer": sweep.model.layer, "d": sweep.model.d}
    return {**asdict(sweep), **model, "text": sweep.text and str(sweep.text)}


def matched(points: Mapping[str, list[Point]]) -> list[dict[str, float | None]]:
    """CE recovered of all sides at L0s that ours reaches and some peer does; None for one that does not."""
    ranges = {side: _range(own) for side, own in points.items()}
    ours, peers = ranges.get(OURS), [found for side, found in ranges.items() if side != OURS and found]
    if not ours or not peers:
        return []
    low, high = max(ours[0], min(r[0] for r in peers)), min(ours[1], max(r[1] for r in peers))
    if not 0 < low < high:
        return []
    inner = [exp(log(low) + log(high / low) * i / (MATCHED - 1)) for i in range(1, MATCHED - 1)]
    at = [low, *inner, high]  # the ends as they are: rounding would put them outside
    return [{"l0": l0, **{side: interpolate(own, l0) for side, own in points.items()}} for l0 in at]


def _range(points: Sequence[Point]) -> tuple[float, float] | None:
    l0s = [point["l0"] for point in points if point["l0"] is not None and point["ce_recovered"] is not None]
    return (min(l0s), max(l0s)) if l0s else None


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


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(","))


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    first, _, rest = (__doc__ or "").partition("\n\n")
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=first, epilog=rest, formatter_class=plain)
    parser.add_argument("--only", default=",".join(SAME_LOSS), help="architectures, with commas (%(default)s)")
    parser.add_argument("--values", type=_numbers, help="members of one architecture: its l1, k, or L0 to aim at")
    parser.add_argument("--l0-coefficients", type=_numbers, help="as many, for sae-lens's jumprelu")
    parser.add_argument("--few", type=int, default=1, help="members of the smaller sweep, 0 for none (%(default)s)")
    parser.add_argument("--width", type=int, default=1024, help="latents (%(default)s)")
    parser.add_argument("--tokens", type=float, default=4e6, help="training tokens (%(default)g)")
    parser.add_argument("--batch", type=int, default=2048, help="tokens per step (%(default)s)")
    parser.add_argument("--lr", type=float, default=4e-3, help="of all sides (%(default)s)")
    parser.add_argument("--decay", type=float, default=0.5, help="share of the run in which lr falls (%(default)s)")
    parser.add_argument("--model", default=str(language_model.SMALL), help="a folder, or demo (%(default)s)")
    parser.add_argument("--text", type=Path, help="a file of text to read instead of the demo's")
    parser.add_argument("--layer", type=int, help="resid_post of this block (0; 2 in demo)")
    parser.add_argument("--evaluation-tokens", type=float, default=1e5, help="held-out tokens (%(default)g)")
    parser.add_argument("--repeats", type=int, default=1, help="times that every run is made (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the members (%(default)s)")
    parser.add_argument("--recipes", choices=("same-loss", "papers"), default="same-loss", help="ours (%(default)s)")
    parser.add_argument("--peers", default=",".join(SIDES[1:]), help="with commas (%(default)s)")
    parser.add_argument("--no-peers", action="store_true", help="our side alone")
    parser.add_argument("--install-peers", action="store_true", help="make the environments that peers lack")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (%(default)s)")
    parser.add_argument("--work", type=Path, help="keep the sweeps' folders here (a temporary one)")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs")
    parser.add_argument("--out", type=Path, help="write everything here too, as JSON, beside what it holds of others")
    found = parser.parse_args(arguments)
    found.only = found.only.split(",")
    found.peers = [] if found.no_peers else found.peers.split(",")
    for name, asked, known in (("--only", found.only, list(SAME_LOSS)), ("--peers", found.peers, SIDES[1:])):
        unknown = sorted(set(asked) - set(known))
        if unknown:
            parser.error(f"{name}: no {', '.join(unknown)} among {', '.join(known)}")
    if found.values and len(found.only) > 1:
        parser.error("--values: means something else for each architecture; name one with --only")
    if found.quick:
        found.tokens, found.batch, found.width, found.evaluation_tokens = 2e4, 256, 256, 4e3
    for architecture in found.only:
        values = members_of(found, architecture)
        counts = {len(own.values) for own in values.values()}
        if len(counts) > 1:
            parser.error(f"--l0-coefficients: must be as many as --values, {len(values[OURS].values)}")
        if not 0 <= found.few < min(counts):
            parser.error(f"--few: must be at least 0 and below the number of members, {min(counts)}")
    left = [run for name in found.only for run in sorted(found.work.glob(f"{name}-*"))] if found.work else []
    if left:
        parser.error(f"--work: {left[0]} is there already, and what is finished would not be run again")
    try:
        found.results = Results("sweep", found.out)
    except ValueError as error:
        parser.error(f"--out: {error}")
    return found


def members_of(asked: argparse.Namespace, architecture: str) -> dict[str, Any]:
    """Every side's members; two of the usual ones with --quick."""
    values, coefficients = asked.values or VALUES[architecture], asked.l0_coefficients or L0_COEFFICIENTS
    if asked.quick:
        values = asked.values or values[1::3][:2]
        coefficients = asked.l0_coefficients or coefficients[1::3][:2]
    return dict(members(architecture, values, coefficients))


def main(arguments: Sequence[str] | None = None) -> int:
    asked = parsed(arguments)
    if asked.install_peers:
        for name, why in install_missing([PEER_SCRIPTS[peer][0] for peer in asked.peers]).items():
            print(f"{name}: {why}", file=sys.stderr)
    model = language_model.named(asked.model, asked.layer)
    if not (model.folder / "config.json").is_file():
        language_model.make(model.folder)
    recipes = SAME_LOSS if asked.recipes == "same-loss" else PAPERS
    found: dict[str, dict[str, Any]] = {}
    with nullcontext(asked.work) if asked.work else tempfile.TemporaryDirectory() as folder:
        work = Path(folder).resolve()
        work.mkdir(parents=True, exist_ok=True)
        for architecture in asked.only:
            sweep = Sweep(
                architecture=architecture,
                recipe=recipes[architecture],
                members=members_of(asked, architecture),
                width=asked.width,
                tokens=int(asked.tokens),
                batch=asked.batch,
                lr=asked.lr,
                decay=asked.decay,
                model=model,
                text=asked.text,
                evaluation_tokens=asked.evaluation_tokens,
                device=asked.device,
                seed=asked.seed,
            )
            found[architecture] = measure(sweep, [OURS, *asked.peers], asked.few, asked.repeats, work)
            asked.results.add(architecture, found[architecture])
    print_sweeps(found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
