"""Our recipes as they ship, aimed at L0s, beside other libraries' trainers at their own coefficients: the same tokens.

    python scripts/bench/shipped.py --model DIR --tokens FILE.npz --heldout FILE.npz --layer 2 --out shipped.json
    python scripts/bench/shipped.py ... --only topk,gated --lr null --seeds 3,4,5      adds to what the file holds
    python scripts/bench/shipped.py ... --parts sae-lens/gated                         one part alone

Ours are trained in one pass for each seed, each peer's four members in one of its own. All are judged by our evaluation
on held-out text. A peer's CE recovered at the L0 of one of our members is its frontier's, linear in log L0; no number
where it does not reach that far. The table has the mean difference over seeds and its standard error. A part that is in
--out already, with the same settings, is not run again.

sae-lens and dictionary_learning are as in their tutorials: inputs scaled to a mean norm of sqrt(d) (theirs of 1 where
their trainer needs it), a warm-up of 1/20 of the run for lr and sparsity, lr falling in the last fifth.
"""

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch

from sae_sweep.reporting.pareto import interpolate
from scripts.bench.common_ground import CommonGround, Point
from scripts.bench.language_model import named
from scripts.bench.measure import Results, machine, show
from scripts.bench.peers.client import Unavailable
from scripts.bench.sides import run_side
from scripts.bench.sweeps import DICTIONARY, OURS, SAELENS, Members, Sweep

PAIRS: Mapping[str, tuple[str, str]] = {
    "standard": (DICTIONARY, "standard_bricken"),
    "standard_april": (SAELENS, "standard"),
    "p_anneal": (DICTIONARY, "p_anneal"),
    "gated": (SAELENS, "gated"),
    "gated_decoder_norm": (SAELENS, "gated"),
    "topk": (SAELENS, "topk"),
    "batchtopk": (SAELENS, "batchtopk"),
    "jumprelu": (SAELENS, "jumprelu"),
    "matryoshka": (SAELENS, "matryoshka"),
}
"""By our name of a recipe: the peer and what it is called there. jumprelu_anthropic has no peer."""
COEFFICIENTS: Mapping[tuple[str, str], tuple[float, ...]] = {
    (SAELENS, "standard"): (1.0, 2.5, 6.0, 15.0),
    (SAELENS, "gated"): (1.5, 4.0, 8.0, 16.0),
    **{(SAELENS, name): (4, 8, 16, 32) for name in ("topk", "batchtopk", "matryoshka")},
    (SAELENS, "jumprelu"): (0.02, 0.1, 0.5, 2.5),
    (DICTIONARY, "standard_bricken"): (1.0, 2.5, 6.0, 15.0),
    (DICTIONARY, "p_anneal"): (1.0, 2.5, 6.0, 15.0),
}
KNOBS = {"topk": "k", "batchtopk": "k", "matryoshka": "k", "jumprelu": "l0_coefficient"}
DECAY = 0.2


@dataclass(frozen=True)
class Shipped(Sweep):
    """What ships, on rows of token ids; its `lr` is the peers'."""

    token_file: str
    heldout_file: str
    context: int
    own_lr: str
    """`training.lr` of ours: null leaves it to the recipe."""

    def overrides(self, name: str, output: Path) -> list[str]:
        return [
            *(f"name={name}", f"output_dir={output}", "tracking=none", *self.model.overrides, "model.device=cpu"),
            *("data=tokens", f"data.path={self.token_file}", f"data.heldout_path={self.heldout_file}"),
            *(f"data.context={self.context}", "site=resid_post", f"site.layer={self.model.layer}"),
            *(f"sae={self.recipe}", f"sae.width={self.width}", f"training.lr={self.own_lr}"),
            f"sae.l0={','.join(f'{value:g}' for value in self.members[OURS].values)}",
            *(f"training.tokens={self.steps * self.batch}", f"training.batch_size={self.batch}"),
            *(f"evaluation.tokens={self.evaluation_tokens:g}", f"seed={self.seed}"),
        ]


def part_names(recipes: Sequence[str]) -> list[str]:
    """Ours, then each peer that one of the recipes is beside, as side/architecture."""
    return [OURS, *dict.fromkeys("/".join(PAIRS[recipe]) for recipe in recipes if recipe in PAIRS)]


def sweep_of(asked: argparse.Namespace, part: str, seed: int) -> Shipped:
    side, _, architecture = part.partition("/")
    peers = {}
    if side != OURS:
        peers = {side: Members(KNOBS.get(architecture, "l1"), COEFFICIENTS[side, architecture])}
    return Shipped(
        architecture=architecture or OURS,
        recipe=",".join(asked.only),
        members={OURS: Members("l0", asked.l0)} | peers,
        width=asked.width,
        tokens=asked.steps * asked.batch,
        batch=asked.batch,
        lr=asked.peer_lr,
        decay=DECAY,
        model=named(asked.model, asked.layer),
        text=None,
        evaluation_tokens=asked.evaluation_tokens,
        device="cpu",
        seed=seed,
        token_file=str(asked.tokens.resolve()),
        heldout_file=str(asked.heldout.resolve()),
        context=asked.context,
        own_lr=asked.lr,
    )


def settings(sweep: Shipped) -> dict[str, Any]:
    """What all seeds of a part have in common, without places of this machine."""
    files = {"token_file": Path(sweep.token_file).name, "heldout_file": Path(sweep.heldout_file).name}
    own = {"own_lr"} if sweep.architecture != OURS else {"lr", "decay"}
    return {key: value for key, value in (sweep.entry() | files).items() if key not in {"seed", *own}}


def trained(sweep: Shipped, part: str, work: Path) -> list[Point]:
    """Train and judge one part with one seed. Raises Unavailable."""
    ground, side = CommonGround.of(replace(sweep, recipe=sweep.recipe.split(",")[0])), part.partition("/")[0]
    name = f"{part.replace('/', '-')}-{sweep.own_lr}-seed{sweep.seed}"
    rows = work / f"{name}.rows.npz"
    if side != OURS:
        ground.save_rows(sweep, rows)
    return ground.points(side, run_side(side, sweep, work, name, rows, ground.config.data), sweep)


def differences(found: Mapping[str, Any], recipe: str, l0: float, lr: str) -> list[float]:
    """Ours less the peer's CE recovered at the L0 of our member that aims at `l0`, of each seed that both have."""
    ours, peer = found.get(f"{OURS} {lr}"), found.get("/".join(PAIRS[recipe]))
    if ours is None or peer is None:
        return []
    told = []
    for seed in ours["seeds"].keys() & peer["seeds"].keys():
        mine = next((p for p in ours["seeds"][seed] if p["member"].startswith(f"{recipe}-l0_{l0:g}-")), None)
        theirs = interpolate(peer["seeds"][seed], mine["l0"]) if mine is not None else None
        if mine is not None and theirs is not None:
            told.append(mine["ce_recovered"] - theirs)
    return told


def print_differences(found: Mapping[str, Any], recipes: Sequence[str], l0s: Sequence[float], lr: str) -> None:
    rows = []
    for recipe in (recipe for recipe in recipes if recipe in PAIRS):
        cells = []
        for l0 in l0s:
            values = differences(found, recipe, l0, lr)
            error = f" ±{stdev(values) / len(values) ** 0.5:.4f}" if len(values) > 1 else ""
            cells.append(f"{mean(values):+.4f}{error}" if values else "-")
        rows.append([recipe, " ".join(PAIRS[recipe]), *cells])
    heads = ["ours", "beside", *(f"L0 {l0:g}" for l0 in l0s)]
    show(f"CE recovered, ours (lr {lr}) less theirs, at the L0 of ours", heads, rows)


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    first, _, rest = (__doc__ or "").partition("\n\n")
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=first, epilog=rest, formatter_class=plain)
    parser.add_argument("--model", required=True, help="a folder, or demo")
    parser.add_argument("--tokens", type=Path, required=True, help="rows of token ids to train on")
    parser.add_argument("--heldout", type=Path, required=True, help="rows of token ids to judge on")
    parser.add_argument("--out", type=Path, required=True, help="JSON that this adds to")
    parser.add_argument("--only", type=lambda text: text.split(","), default=list(PAIRS), help="our recipes")
    parser.add_argument("--parts", type=lambda text: text.split(","), help="ours, or a peer's as sae-lens/gated")
    parser.add_argument("--seeds", type=lambda text: [int(part) for part in text.split(",")], default=[0, 1, 2])
    parser.add_argument("--l0", type=lambda text: tuple(map(float, text.split(","))), default=(4.0, 8.0, 16.0, 32.0))
    parser.add_argument("--lr", default="1e-3", help="ours; null is the recipe's (%(default)s)")
    parser.add_argument("--peer-lr", type=float, default=1e-3, help="theirs (%(default)g)")
    numbers = {"layer": 2, "context": 256, "width": 1024, "steps": 732, "batch": 2048, "evaluation-tokens": 100_000}
    for name, number in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=number)
    asked = parser.parse_args(arguments)
    unknown = sorted(set(asked.parts or []) - set(part_names(asked.only)))
    if unknown:
        parser.error(f"--parts: no {', '.join(unknown)} among {', '.join(part_names(asked.only))}")
    return asked


def main(arguments: list[str] | None = None) -> int:
    asked = parsed(arguments)
    results = Results("shipped", asked.out)
    found: dict[str, Any] = {}
    for part in part_names(asked.only):
        key = f"{OURS} {asked.lr}" if part == OURS else part
        entry = results.entry(key)
        for seed in asked.seeds if not asked.parts or part in asked.parts else ():
            sweep = sweep_of(asked, part, seed)
            told = settings(sweep)
            seeds = entry["seeds"] if entry and entry["settings"] == told else {}
            if str(seed) not in seeds:
                with tempfile.TemporaryDirectory() as work:
                    try:
                        seeds = {**seeds, str(seed): trained(sweep, part, Path(work).resolve())}
                    except Unavailable as reason:
                        print(f"{part} was not measured: {reason}", file=sys.stderr)
                        break
            entry = {"machine": machine(torch.device("cpu")), "settings": told, "seeds": seeds}
            results.add(key, entry)
        if entry:
            found[key] = entry
    print_differences(found, asked.only, asked.l0, asked.lr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
