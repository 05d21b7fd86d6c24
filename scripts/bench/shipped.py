"""Our recipes as they ship, aimed at L0s, beside other libraries' trainers at their own coefficients: the same tokens.

    python scripts/bench/shipped.py --model DIR --tokens FILE.npz --heldout FILE.npz --layer 2 --out shipped.json
    python scripts/bench/shipped.py --model demo --context 128 --out demo.json         on the demo's own text
    python scripts/bench/shipped.py ... --only topk,gated --lr null --seeds 3,4,5      adds to what the file holds
    python scripts/bench/shipped.py ... --parts sae-lens/gated,ours/gated              some parts alone
    python scripts/bench/shipped.py ... --parts ours                                   all of one side
    python scripts/bench/shipped.py ... --quick                                        does it run?

Of each seed, all of ours are trained in one pass, and a peer's members of one architecture in one. All are judged by
our evaluation on held-out text. A peer's CE recovered at the L0 of one of our members is read off its frontier; no
number where it does not reach that far. The table has the mean difference over seeds and its standard error, and how
far L0 was from what was asked for before the last correction. What is in --out already, with the same settings, is not
run again; members that are not there are.

sae-lens and dictionary_learning are as in their tutorials: inputs scaled to a mean norm of sqrt(d) (theirs of 1 where
their trainer needs it), a warm-up of 1/20 of the run for lr and sparsity, lr falling in the last fifth. sae-lens's
jumprelu reads inputs as they are, which is its default: with scaled ones no coefficient brings it below L0 80 in 700
steps. --peer-scale none does so for its others, and --peer-values are coefficients for that.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from sae_sweep.architectures.recipe import RECIPES
from scripts.bench.common_ground import CommonGround, Point, own_points
from scripts.bench.language_model import named
from scripts.bench.measure import Results, machine
from scripts.bench.peers.client import Unavailable
from scripts.bench.shipped_tables import aimed, print_differences, print_missed
from scripts.bench.sides import run_ours, run_side
from scripts.bench.sweeps import DICTIONARY, OURS, SAELENS, Members, Sweep

PAIRS: Mapping[str, tuple[str, str]] = {
    "topk": (SAELENS, "topk"),
    "gated": (SAELENS, "gated"),
    "standard_april": (SAELENS, "standard"),
    "batchtopk": (SAELENS, "batchtopk"),
    "jumprelu": (SAELENS, "jumprelu"),
    "gated_decoder_norm": (SAELENS, "gated"),
    "matryoshka": (SAELENS, "matryoshka"),
    "standard": (DICTIONARY, "standard_bricken"),
    "p_anneal": (DICTIONARY, "p_anneal"),
}
"""By our name of a recipe: the peer and what it is called there. jumprelu_anthropic has no peer."""
COEFFICIENTS: Mapping[tuple[str, str], tuple[float, ...]] = {
    (SAELENS, "standard"): (0.7, 2.0, 5.0, 13.0, 18.0),
    (SAELENS, "gated"): (0.7, 1.5, 4.0, 8.0, 16.0),
    **{(SAELENS, name): (4, 8, 16, 32) for name in ("topk", "batchtopk", "matryoshka")},
    (SAELENS, "jumprelu"): (0.0002, 0.0005, 0.002, 0.008, 0.03),
    (DICTIONARY, "standard_bricken"): (1.0, 2.5, 6.0, 15.0),
    (DICTIONARY, "p_anneal"): (0.5, 1.0, 2.5, 6.0, 15.0),
}
UNSCALED = {(SAELENS, "jumprelu")}
KNOBS = {"topk": "k", "batchtopk": "k", "matryoshka": "k", "jumprelu": "l0_coefficient"}
DECAY = 0.2
NUMBERS = {"layer": 2, "context": 256, "width": 1024, "steps": 732, "batch": 2048, "evaluation-tokens": 50_000}
QUICK = {"width": 64, "steps": 40, "batch": 512, "evaluation_tokens": 2_000, "l0": (4.0, 8.0)}


@dataclass(frozen=True)
class Shipped(Sweep):
    """What ships, on rows of token ids; its `lr` is the peers'."""

    token_file: str | None
    """None is the demo's text, some of which is kept to judge on."""
    heldout_file: str | None
    context: int
    own_lr: str
    """`training.lr` of ours: null leaves it to the recipe."""
    trained_by: str = RECIPES[0]
    """`sae.recipe` of ours."""
    peer_scale: str = "sqrt_d"
    """Of sae-lens's inputs."""

    def input_scale(self, side: str) -> str:
        return self.peer_scale if side == SAELENS else super().input_scale(side)

    def overrides(self, name: str, output: Path) -> list[str]:
        own = self.members[OURS]
        files = ["data=tokens", f"data.path={self.token_file}", f"data.heldout_path={self.heldout_file}"]
        return [
            *(f"name={name}", f"output_dir={output}", "tracking=none", *self.model.overrides, "model.device=cpu"),
            *(files if self.token_file else ["data=demo"]),
            *(f"data.context={self.context}", "site=resid_post", f"site.layer={self.model.layer}"),
            *(f"sae={self.recipe}", f"sae.recipe={self.trained_by}", f"sae.width={self.width}"),
            f"training.lr={self.own_lr}",
            f"sae.{own.knob}={','.join(f'{value:g}' for value in own.values)}",
            *(f"training.tokens={self.steps * self.batch}", f"training.batch_size={self.batch}"),
            *(f"evaluation.tokens={self.evaluation_tokens:g}", f"seed={self.seed}"),
        ]


def part_names(recipes: Sequence[str]) -> list[str]:
    """Ours, then each peer that one of the recipes is beside, as side/architecture."""
    own = [f"{OURS}/{recipe}" for recipe in recipes]
    return [*own, *dict.fromkeys("/".join(PAIRS[recipe]) for recipe in recipes if recipe in PAIRS)]


def scale_of(side: str, architecture: str, asked: str | None) -> str:
    """How inputs of a part are scaled, where --peer-scale asks for that."""
    return asked or ("none" if (side, architecture) in UNSCALED else "sqrt_d")


def key_of(part: str, lr: str, scale: str | None = None) -> str:
    """What --out calls a part: ours are of a learning rate, sae-lens's of how its inputs are scaled."""
    side, _, architecture = part.partition("/")
    if side in (SAELENS, DICTIONARY):
        own = scale_of(side, architecture, scale)
        return f"{part} {own}" if side == SAELENS and own != "sqrt_d" else part
    return f"{part} {lr}"


def sweep_of(asked: argparse.Namespace, seed: int, recipe: str, side: str = OURS, architecture: str = "") -> Shipped:
    """Ours of one or more recipes, with commas; or a peer's, judged on the ground that a recipe of ours gives."""
    peers = {}
    if side != OURS:
        peers = {side: Members(KNOBS.get(architecture, "l1"), asked.peer_values or COEFFICIENTS[side, architecture])}
    return Shipped(
        architecture=architecture or recipe,
        recipe=recipe,
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
        token_file=asked.tokens and str(asked.tokens.resolve()),
        heldout_file=asked.heldout and str(asked.heldout.resolve()),
        context=asked.context,
        own_lr=asked.lr,
        peer_scale=scale_of(side, architecture, asked.peer_scale),
        trained_by=asked.recipe,
    )


def settings(sweep: Shipped, side: str) -> dict[str, Any]:
    """What all seeds of a part have in common, without places of this machine."""
    places = {"token_file": sweep.token_file, "heldout_file": sweep.heldout_file}
    files = {key: place and Path(place).name for key, place in places.items()}
    left_out = {"seed", "recipe", "trained_by", "members", *({"lr", "decay"} if side == OURS else {"own_lr"})}
    if side != SAELENS or sweep.peer_scale == "sqrt_d":
        left_out |= {"peer_scale"}
    own = {"sae.recipe": sweep.trained_by} if side == OURS else {}
    return {key: value for key, value in (sweep.entry() | files).items() if key not in left_out} | own


@dataclass(frozen=True)
class Kept:
    """What --out holds: of each part its settings, the machine, the peer's version, and points by seed."""

    results: Results

    def points(self, key: str, told: Mapping[str, Any], seed: int) -> list[Point]:
        """Those of a seed that were measured with these settings."""
        entry = self.results.entry(key)
        return list(entry["seeds"].get(str(seed), [])) if entry and entry["settings"] == told else []

    def add(self, key: str, told: Mapping[str, Any], seed: int, points: list[Point], version: str | None) -> None:
        """In place of what the seed had; other settings' points go."""
        entry = self.results.entry(key)
        seeds = dict(entry["seeds"]) if entry and entry["settings"] == told else {}
        facts = {"machine": machine(torch.device("cpu")), "version": version, "settings": dict(told)}
        self.results.add(key, {**facts, "seeds": seeds | {str(seed): points}})


@contextmanager
def workplace() -> Iterator[Path]:
    """A folder for as long as a part takes."""
    with tempfile.TemporaryDirectory() as work:
        yield Path(work).resolve()


def train_ours(asked: argparse.Namespace, recipes: Sequence[str], seed: int, kept: Kept) -> None:
    """Those members of our recipes that are not there, in one pass where all lack the same. Raises Unavailable."""
    told = {recipe: settings(sweep_of(asked, seed, recipe), OURS) for recipe in recipes}
    keys = {recipe: key_of(f"{OURS}/{recipe}", asked.lr) for recipe in recipes}
    there = {recipe: kept.points(keys[recipe], told[recipe], seed) for recipe in recipes}
    lacking: dict[tuple[float, ...], list[str]] = {}
    for recipe in recipes:
        lacking.setdefault(tuple(l0 for l0 in asked.l0 if aimed(there[recipe], l0) is None), []).append(recipe)
    for l0s, some in lacking.items():
        if not l0s:
            continue
        sweep = replace(sweep_of(asked, seed, ",".join(some)), members={OURS: Members("l0", l0s)})
        with workplace() as work:
            points = own_points(run_ours(sweep, work, f"{OURS}-seed{seed}").folder)
        for recipe in some:
            own = [point for point in points if point["member"].startswith(f"{recipe}-l0_")]
            kept.add(keys[recipe], told[recipe], seed, there[recipe] + own, None)


def train_peer(asked: argparse.Namespace, part: str, seed: int, kept: Kept) -> None:
    """Those members of a peer's part that are not there, in one pass. Raises Unavailable."""
    side, _, architecture = part.partition("/")
    recipe = next(recipe for recipe, pair in PAIRS.items() if pair == (side, architecture))
    sweep = sweep_of(asked, seed, recipe, side, architecture)
    told = settings(sweep, side)
    key = key_of(part, asked.lr, asked.peer_scale)
    there = kept.points(key, told, seed)
    wanted, names = sweep.members[side], {point["member"] for point in there}
    missing = tuple(value for name, value in wanted.named().items() if name not in names)
    if not missing:
        return
    sweep = replace(sweep, members={**sweep.members, side: replace(wanted, values=missing)})
    ground = CommonGround.of(sweep)
    with workplace() as work:
        rows = work / "rows.npz"
        ground.save_rows(sweep, rows)
        name = f"{part.replace('/', '-')}-seed{seed}"
        run = run_side(side, sweep, work, name, rows, ground.config.data)
        found = ground.points(side, run, sweep)
    kept.add(key, told, seed, there + found, run.marks["version"])


def numbers(text: str) -> tuple[float, ...]:
    """With commas between."""
    return tuple(map(float, text.split(",")))


def parser_of(text: str | None) -> argparse.ArgumentParser:
    first, _, rest = (text or "").partition("\n\n")
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=first, epilog=rest, formatter_class=plain)
    parser.add_argument("--model", required=True, help="a folder, or demo")
    parser.add_argument("--tokens", type=Path, help="rows of token ids to train on (the demo's text)")
    parser.add_argument("--heldout", type=Path, help="rows of token ids to judge on, with --tokens")
    parser.add_argument("--out", type=Path, required=True, help="JSON that this adds to")
    parser.add_argument("--only", type=lambda text: text.split(","), default=list(PAIRS), help="our recipes")
    parser.add_argument("--seeds", type=lambda text: [int(part) for part in text.split(",")], default=[0, 1, 2])
    parser.add_argument("--l0", type=numbers, default=(4.0, 8.0, 16.0, 32.0))
    parser.add_argument("--lr", default="1e-3", help="ours; null is the recipe's (%(default)s)")
    parser.add_argument("--peer-lr", type=float, default=1e-3, help="theirs (%(default)g)")
    parser.add_argument("--recipe", choices=RECIPES, default=RECIPES[0], help="of ours (%(default)s)")
    parser.add_argument("--peer-scale", choices=("sqrt_d", "none"), help="of sae-lens's inputs")
    parser.add_argument("--peer-values", type=numbers, help="in place of a peer's coefficients, of one part")
    parser.add_argument("--quick", action="store_true", help="does it run? (the numbers mean nothing)")
    for name, number in NUMBERS.items():
        parser.add_argument(f"--{name}", type=int, default=number)
    return parser


def quickened(asked: argparse.Namespace) -> argparse.Namespace:
    """What was asked for, small where it is only to be seen whether it runs."""
    return argparse.Namespace(**vars(asked) | QUICK) if asked.quick else asked


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    parser = parser_of(__doc__)
    parser.add_argument("--parts", type=lambda text: text.split(","), help="as sae-lens/gated, or all of ours")
    asked = quickened(parser.parse_args(arguments))
    parts = part_names(asked.only)
    if (asked.tokens is None) != (asked.heldout is None):
        parser.error("--tokens and --heldout go together")
    unknown = sorted(set(asked.parts or []) - {name for part in parts for name in (part, part.split("/")[0])})
    if unknown:
        parser.error(f"--parts: no {', '.join(unknown)} among {', '.join(parts)}")
    asked.parts = [part for part in parts if not asked.parts or {part, part.split("/")[0]} & set(asked.parts)]
    return asked


def main(arguments: list[str] | None = None) -> int:
    asked = parsed(arguments)
    kept = Kept(Results("shipped", asked.out))
    own = [part.partition("/")[2] for part in asked.parts if part.startswith(f"{OURS}/")]
    peers = [part for part in asked.parts if not part.startswith(f"{OURS}/")]
    for seed, part in ((seed, part) for seed in asked.seeds for part in (OURS, *peers)):
        try:
            if part == OURS:
                train_ours(asked, own, seed, kept)
            else:
                train_peer(asked, part, seed, kept)
        except Unavailable as reason:
            print(f"{part}, seed {seed}, was not measured: {reason}", file=sys.stderr)
    keys = {recipe: key_of(f"{OURS}/{recipe}", asked.lr) for recipe in asked.only}
    paired = {recipe: "/".join(PAIRS[recipe]) for recipe in asked.only if recipe in PAIRS}
    beside = {recipe: (keys[recipe], key_of(part, asked.lr, asked.peer_scale)) for recipe, part in paired.items()}
    entries = {key: kept.results.entry(key) for key in [*keys.values(), *(other for _, other in beside.values())]}
    found = {key: entry for key, entry in entries.items() if entry}
    print_differences(f"CE recovered, ours with lr {asked.lr}", found, beside, asked.l0)
    print_missed(found, keys, asked.l0)
    return 0


if __name__ == "__main__":
    sys.exit(main())
