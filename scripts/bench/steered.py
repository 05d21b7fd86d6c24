"""A member steered to an L0 beside members whose coefficient is fixed, about the one that it ended with.

    python scripts/bench/shipped.py ... --parts ours --only gated,standard_april,jumprelu --lr null --seeds 3
    python scripts/bench/steered.py ... --lr null --seeds 3

It takes what shipped.py takes. The steered members are those that --out holds; for each a coefficient a quarter below
its last one, and as much above, is trained on the same tokens and judged on the same text. jumprelu aims at an L0 with
no coefficient at all, so its fixed ones are some that lie far apart. The table has CE recovered of the steered member
less that of the fixed ones, read off their frontier at its L0.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace

from sae_sweep.config.files import config_of
from scripts.bench.common_ground import Point, own_points
from scripts.bench.measure import Results
from scripts.bench.peers.client import Unavailable
from scripts.bench.shipped import Kept, key_of, parser_of, quickened, settings, sweep_of, workplace
from scripts.bench.shipped_tables import aimed, print_differences
from scripts.bench.sides import run_ours
from scripts.bench.sweeps import OURS, Members

FIXED = "fixed"
"""What --out calls these parts, as shipped.py's `ours`."""
RECIPES = ["gated", "gated_decoder_norm", "standard", "standard_april", "p_anneal", "jumprelu", "jumprelu_anthropic"]
BELOW = 0.75
FAR_APART = {"jumprelu": Members("l0_coefficient", (0.03, 0.1, 0.3, 1.0, 3.0))}


def about(steered: Sequence[Point], recipe: str, l0s: Sequence[float]) -> Members:
    """The fixed coefficients that go with some steered members."""
    if recipe in FAR_APART:
        return FAR_APART[recipe]
    ends = [point["coefficient_final"] for point in (aimed(steered, l0) for l0 in l0s) if point is not None]
    values = sorted(float(f"{end * by:.3g}") for end in ends for by in (BELOW, 1 / BELOW))
    return Members(config_of((f"sae={recipe}",)).sae.knob(), tuple(values))


def train_fixed(asked: argparse.Namespace, recipe: str, seed: int, kept: Kept) -> None:
    """The fixed members of a recipe, where they are not there. Raises Unavailable."""
    steered = sweep_of(asked, seed, recipe)
    told = settings(steered, OURS)
    points = kept.points(key_of(f"{OURS}/{recipe}", asked.lr), told, seed)
    if not points:
        raise Unavailable(f"--out holds no steered members of {recipe} with these settings: run shipped.py before")
    key = key_of(f"{FIXED}/{recipe}", asked.lr)
    if kept.points(key, told, seed):
        return
    with workplace() as work:
        sweep = replace(steered, members={OURS: about(points, recipe, asked.l0)})
        run = run_ours(sweep, work, f"{FIXED}-{recipe}-seed{seed}")
        kept.add(key, told, seed, own_points(run.folder), None)


def main(arguments: list[str] | None = None) -> int:
    parser = parser_of(__doc__)
    parser.set_defaults(only=RECIPES)
    asked = quickened(parser.parse_args(arguments))
    kept = Kept(Results("shipped", asked.out))
    for seed in asked.seeds:
        for recipe in asked.only:
            try:
                train_fixed(asked, recipe, seed, kept)
            except Unavailable as reason:
                print(f"{recipe}, seed {seed}, was not measured: {reason}", file=sys.stderr)
    both = {recipe: tuple(key_of(f"{side}/{recipe}", asked.lr) for side in (OURS, FIXED)) for recipe in asked.only}
    beside = {recipe: (own, other) for recipe, (own, other) in both.items()}
    entries = {key: kept.results.entry(key) for keys in beside.values() for key in keys}
    found = {key: entry for key, entry in entries.items() if entry}
    print_differences(f"CE recovered, steered less fixed, lr {asked.lr}", found, beside, asked.l0)
    return 0


if __name__ == "__main__":
    sys.exit(main())
