"""One process against two and four that share a group: throughput, and bytes received as planned.

    python scripts/bench/ranks.py --out ranks.json
    python scripts/bench/ranks.py --quick                       does it run? (the numbers mean nothing)

Every row is the whole command on the model that ships, in a process of its own, with one thread to a rank: --members
SAEs at two sites. Throughput is that of training, blocks and steps, in activations of each member a second.

On a machine with fewer cores than ranks, which the table says, the ranks take turns on the cores: what is seen there is
what sharing a group costs, and no scaling.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from scripts.bench.measure import ROOT, Results, machine, ratio, seconds, show, shown

SIZES = (1, 2, 4)


def overrides(asked: argparse.Namespace) -> list[str]:
    """What follows `sae-sweep`, but for launcher.devices."""
    sites, each = "site.layer=1,2", asked.members // 2
    return [
        *("model.device=cpu", "tracking=none", "evaluation.tokens=1280", "sae=topk", "sae.k=32", sites),
        *(f"seed=range(0,{each})", f"sae.width={asked.width}", f"training.batch_size={asked.batch}"),
        *(f"training.tokens={asked.tokens}", "training.checkpoint_minutes=null", "data.rows_per_forward=16"),
    ]


def planned(arguments: Sequence[str], devices: int) -> int:
    """Bytes that rank 0 receives, as the plan says."""
    from itertools import product

    from sae_sweep.plan.costs import pass_cost
    from sae_sweep.plan.groups import plan_sweep
    from sae_sweep.plan.placement import plan_passes
    from scripts.bench.own import configured

    seeds = next(argument for argument in arguments if argument.startswith("seed=")).removeprefix("seed=range(0,")[:-1]
    plain = [argument for argument in arguments if not argument.startswith(("seed=", "site.layer="))]
    members = [
        configured([*plain, f"site.layer={layer}", f"seed={seed}"])
        for layer, seed in product((1, 2), range(int(seeds)))
    ]
    (group,) = plan_sweep(members).groups
    (made,) = plan_passes(group, None, None, devices)
    cost = pass_cost(made)
    return cost.devices[0].received_bytes * (cost.blocks + 1)


def measured(arguments: Sequence[str]) -> dict[str, Any]:
    """Seconds of training in this process, which is rank 0, and what it received."""
    from sae_sweep import cli
    from sae_sweep.training.devices import joining
    from sae_sweep.training.run.loop import GroupRun

    train, found = GroupRun._train, {}

    def timed(run: GroupRun, *rest: Any) -> None:
        found["seconds"] = seconds(lambda: train(run, *rest), torch.device("cpu"))

    GroupRun._train = timed  # type: ignore[assignment, method-assign]
    code = cli.main(list(arguments))
    return {**found, "code": code, "received_bytes": joining.joined().received_bytes}


def in_child(arguments: Sequence[str], devices: int) -> dict[str, Any]:
    """One row, in processes of their own. Raises RuntimeError where the command fails."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            __file__,
            "--child",
            *arguments,
            f"output_dir={folder}",
            f"launcher.devices={devices}",
        ]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else {"code": 1}
    if found.pop("code"):
        raise RuntimeError(done.stderr)
    return found


def measure(asked: argparse.Namespace) -> list[dict[str, Any]]:
    rows = []
    for devices in SIZES:
        print(f"{devices} processes", file=sys.stderr)
        found = in_child(overrides(asked), devices)
        rate = asked.members * asked.tokens / found["seconds"]
        rows.append({"processes": devices, "per_second": rate, **found, "planned": planned(overrides(asked), devices)})
    return rows


def main(arguments: Sequence[str]) -> int:
    if arguments[:1] == ["--child"]:
        print(json.dumps(measured(arguments[1:])))
        return 0
    first, _, rest = (__doc__ or "").partition("\n\n")
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=first, epilog=rest, formatter_class=plain)
    parser.add_argument("--members", type=int, default=8, help="an even number (%(default)s)")
    parser.add_argument("--width", type=int, default=2048, help="latents (%(default)s)")
    parser.add_argument("--batch", type=int, default=1024, help="tokens per step (%(default)s)")
    parser.add_argument("--tokens", type=int, default=200_000, help="of training (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs")
    parser.add_argument("--out", type=Path, help="write everything here too, as JSON")
    asked = parser.parse_args(arguments)
    if asked.quick:
        asked.members, asked.width, asked.tokens = 4, 2048, 4_096
    results, rows = Results("ranks", asked.out), measure(asked)
    facts = machine(torch.device("cpu"))
    results.add("topk", {"machine": facts, "rows": rows})
    header = ["processes", "activations/s x members", "against one", "received by rank 0", "planned", "of it"]
    cells = [
        [str(row["processes"]), shown(row["per_second"]), shown(ratio(row["per_second"], rows[0]["per_second"])),
         str(row["received_bytes"]), str(row["planned"]), shown(ratio(row["received_bytes"], row["planned"]), 4)]
        for row in rows
    ]  # fmt: skip
    show(f"{asked.members} members, {facts['cores']} cores", header, cells)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
