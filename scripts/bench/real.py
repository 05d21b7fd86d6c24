"""What a whole command costs on a real language model, each part beside its own floor, and beside sae-lens.

    python scripts/bench/real.py --model DIR --text FILE --layer 15           TopK, 8 members, F 4,096: half an hour
    python scripts/bench/real.py --model DIR --text FILE --layer 15 --no-peers
    python scripts/bench/real.py --model demo --quick                         does it run? (the numbers mean nothing)

Both sides train the same members on the same rows of tokens, as in `scripts/bench/sweep.py`; ours judges them on
held-out tokens too, sae-lens's multi-SAE runner nothing. A floor is the operations of the matrix products that a part
cannot do without, at the rate of large ones that this machine is measured at, right before the run, on as many cores:

    reading     the model up to the site, for every block that is read
    SAEs        encoder products, forward: the least that sparse steps can cost
    judging     clean, ablated and spliced passes, logits, and the members' inference forms
    rest        loading, tokenising, first parameters, writing, the report: no floor

What `--out` holds of our side for the same sweep is not measured again. With `--peer-tokens` sae-lens trains on the
first of the rows only, and the time of its steps is multiplied up to all of them.
"""

import argparse
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from sae_sweep.launch.speed import measured
from sae_sweep.plan.costs import pass_cost
from sae_sweep.plan.groups import plan_sweep
from sae_sweep.plan.placement import plan_passes
from scripts.bench import asked
from scripts.bench.common_ground import CommonGround
from scripts.bench.measure import machine, ratio, show, shown
from scripts.bench.own import configured
from scripts.bench.peers.client import Unavailable
from scripts.bench.sides import Run, run_ours, run_side
from scripts.bench.sweep import FIRST_TOKENS
from scripts.bench.sweeps import OURS, SAELENS, Sweep

MEMBERS = (8.0, 12.0, 16.0, 24.0, 32.0, 48.0, 64.0, 96.0)
"""Values of k."""


def floors(sweep: Sweep, device_flops: float) -> dict[str, float]:
    """Seconds that each part takes at least."""
    own = sweep.overrides("bench", Path("unused"))
    knobs = next(i for i, override in enumerate(own) if "," in override.partition("=")[2])
    key, _, values = own[knobs].partition("=")
    members = [configured([*own[:knobs], f"{key}={value}", *own[knobs + 1 :]]) for value in values.split(",")]
    (group,) = plan_sweep(members).groups
    (made,) = plan_passes(group, None, None)
    (device,) = pass_cost(made).devices
    flops = {"reading": device.harvest_flops, "SAEs": device.encoder_flops, "judging": device.judging_flops}
    return {part: number / device_flops for part, number in flops.items()}


def parts(run: Run) -> dict[str, float]:
    """Seconds that each part of our command took. The first block is read before training begins."""
    blocks, judging = run.marks["reading"], run.judging or 0.0
    first = blocks / max(1, len(run.marks["steps"]))
    steps = run.training - (blocks - first)
    return {"reading": blocks, "SAEs": steps, "judging": judging, "rest": run.seconds - blocks - steps - judging}


def measure_own(sweep: Sweep, work: Path) -> dict[str, Any]:
    """Ours once, after a short run that compiles loops."""
    run_ours(replace(sweep, tokens=min(sweep.tokens, FIRST_TOKENS // 20)), work, "real-first")
    device_flops = measured(sweep.device, "float32")
    ours = run_ours(sweep, work, "real-ours")
    return {
        "machine": machine(torch.device(sweep.device)),
        "sweep": sweep.entry(),
        "flops": device_flops,
        "seconds": {OURS: ours.seconds},
        "parts": parts(ours),
        "floors": floors(sweep, device_flops),
    }


def measure_peer(sweep: Sweep, tokens: int, work: Path) -> tuple[float, int]:
    """Seconds of sae-lens's process if all its steps took what those on `tokens` did, and how many steps those were."""
    ground, rows = CommonGround.of(sweep), work / "rows.npz"
    ground.save_rows(sweep, rows)
    run = run_side(SAELENS, replace(sweep, tokens=tokens), work, "real-peer", rows, ground.config.data)
    steps = len(run.marks["steps"])
    return run.seconds + run.training * (sweep.steps - steps) / steps, steps


def print_real(found: Mapping[str, Any]) -> None:
    own, least = found["parts"], found["floors"]
    rows = [
        [part, shown(took), shown(least.get(part)), shown(ratio(took, least.get(part)))] for part, took in own.items()
    ]
    whole, floor = found["seconds"][OURS], sum(least.values())
    rows.append(["whole", shown(whole), shown(floor), shown(ratio(whole, floor))])
    show(f"our command, at {found['flops']:.3g} operations a second", ["part", "s", "floor s", "times"], rows)
    if SAELENS in found["seconds"]:
        peer = found["seconds"][SAELENS]
        print(f"{SAELENS}: {shown(peer)} s, judging nothing: {shown(ratio(peer, whole))} times ours")


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    parser = asked.parser_of(__doc__)
    parser.add_argument("--peer-tokens", type=float, help="sae-lens trains on so many (all)")
    parser.set_defaults(only="topk", width=4096, tokens=6e5, evaluation_tokens=2e4, peers=SAELENS, values=MEMBERS)
    return asked.parsed(parser, "real", arguments)


def main(arguments: list[str] | None = None) -> int:
    wanted = parsed(arguments)
    with asked.workplace(wanted) as work:
        sweep, name = asked.sweep_of(wanted, wanted.only[0], 0), wanted.only[0]
        found = wanted.results.entry(name)
        if found is None or found["sweep"] != sweep.entry():
            found = measure_own(sweep, work)
            wanted.results.add(name, found)
        if len(wanted.sides) > 1:
            try:
                found["seconds"][SAELENS], found["peer_steps"] = measure_peer(
                    sweep, int(wanted.peer_tokens or sweep.tokens), work
                )
            except Unavailable as reason:
                print(f"{SAELENS} was not measured: {reason}", file=sys.stderr)
            wanted.results.add(name, found)
    print_real(found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
