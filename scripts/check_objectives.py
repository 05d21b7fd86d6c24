"""Check what docs/ say of objectives and of transcoders, from the sweeps they quote.

    sae-sweep +experiment=e2e
    sae-sweep +experiment=e2e name=e2e_seed1 seed=1
    sae-sweep +experiment=e2e_finetune
    sae-sweep +experiment=transcoders
    python scripts/check_objectives.py outputs

Prints the numbers and exits with 1 when a claim does not hold; `--out FILE` also writes them as JSON.
"""

import argparse
import sys
from pathlib import Path

from sae_sweep.analyses.session.finished import finished_saes
from sae_sweep.evaluation.recovery import mmcs
from scripts.claims import Point, concluded, points_of

SWEEPS = ("e2e", "e2e_seed1", "e2e_finetune", "transcoders")
KEPT = ("l0", "ce_recovered", "ce_recovered_se", "ce_delta", "kl", "fvu", "later_fvu", "alive")
LOCAL, E2E, DOWNSTREAM = "topk", "topk e2e", "topk e2e_downstream"
FINETUNED, CONTINUED = "topk kl_mse finetuned", "topk finetuned"


def objective_claims(own: dict[str, Point]) -> dict[str, bool]:
    """What Braun et al. 2024 report at equal L0, of one seed."""
    local, e2e, downstream = (own[name] for name in (LOCAL, E2E, DOWNSTREAM))
    return {
        "one L0": max(point["l0"] for point in own.values()) - min(point["l0"] for point in own.values()) < 0.1,
        "e2e has a lower KL than local": e2e["kl"] < local["kl"],
        "e2e recovers more CE than local": e2e["ce_recovered"] > local["ce_recovered"],
        "e2e_downstream has a lower KL than local": downstream["kl"] < local["kl"],
        "e2e_downstream is nearer to later activations than e2e": downstream["later_fvu"] < e2e["later_fvu"],
    }


def recovered_share(local: Point, finetuned: Point, e2e: Point) -> float:
    """Of the CE that local loses against e2e, what fine-tuning gives back."""
    return float((local["ce_delta"] - finetuned["ce_delta"]) / (local["ce_delta"] - e2e["ce_delta"]))


def seed_claims(alike: dict[str, tuple[float, float]], labels: dict[str, str]) -> dict[str, bool]:
    """Matched both ways."""
    pairs = zip(alike[labels[E2E]], alike[labels[LOCAL]], strict=True)
    return {"seeds of e2e are less alike than those of local, both ways": all(e2e < local for e2e, local in pairs)}


def likeness(first: Path, second: Path) -> dict[str, tuple[float, float]]:
    """Of each member that both sweeps have, the mean best cosine of its latents: first in second, second in first."""
    one, other = ({sae.label: sae for sae in finished_saes(folder)} for folder in (first, second))
    rows = {
        key: [own[key].sae.tensors["W_dec"][own[key].alive_F] for own in (one, other)] for key in one.keys() & other
    }
    return {key: (mmcs(a, b) or 0.0, mmcs(b, a) or 0.0) for key, (a, b) in sorted(rows.items())}


def skip_pairs(points: list[Point]) -> list[tuple[Point, Point]]:
    """Each transcoder without a skip, and the one with it that was asked for the same L0."""
    by_name = {(point["architecture"], point["knob_value"]): point for point in points}
    return [
        (point, by_name[f"{name}_skip", l0]) for (name, l0), point in by_name.items() if (f"{name}_skip", l0) in by_name
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description="Check what docs/ say of objectives and transcoders.")
    parser.add_argument("outputs", type=Path, help="the folder that holds the four sweeps")
    parser.add_argument("--out", type=Path, help="also write the numbers here, as JSON")
    arguments = parser.parse_args()
    for name in SWEEPS:
        if not (arguments.outputs / name / "pareto.json").is_file():
            parser.error(f"{arguments.outputs / name} has no pareto.json; see the top of this file")
    points = {name: points_of(arguments.outputs / name) for name in SWEEPS}
    own = {point["architecture"]: point for point in points["e2e"]}
    tuned = {point["architecture"]: point for point in points["e2e_finetune"]}
    alike = likeness(arguments.outputs / "e2e", arguments.outputs / "e2e_seed1")
    pairs = skip_pairs(points["transcoders"])
    shares = {name: recovered_share(own[LOCAL], tuned[name], own[E2E]) for name in (FINETUNED, CONTINUED)}
    claims = {
        **objective_claims(own),
        **seed_claims(alike, {name: point["member"] for name, point in own.items()}),
        "fine-tuning on KL and squared error recovers part of the gap": shares[FINETUNED] > 0,
        "and more than going on with squared error alone": shares[FINETUNED] > shares[CONTINUED],
        "a skip recovers more CE at every L0": bool(pairs)
        and all(skip["ce_recovered"] > plain["ce_recovered"] for plain, skip in pairs),
    }
    for name in SWEEPS:
        print(f"\n{name:40}" + "".join(f"{key:>16}" for key in KEPT))
        for point in points[name]:
            print(f"{point['member']:40}" + "".join(f"{point[key]:>16.4f}" for key in KEPT if point[key] is not None))
    print("\nmember: mean best cosine of the first seed in the second, and back")
    for label, (forth, back) in alike.items():
        print(f"{label:40}{forth:>16.3f}{back:>16.3f}")
    print("\n" + "\n".join(f"{name}: {share:.2f} of the gap in CE" for name, share in shares.items()))
    numbers = {
        "sweeps": {name: {p["member"]: {key: p[key] for key in KEPT} for p in points[name]} for name in SWEEPS},
        "seeds": alike,
        "share of the gap": shares,
    }
    return concluded(claims, numbers, arguments.out)


if __name__ == "__main__":
    sys.exit(main())
