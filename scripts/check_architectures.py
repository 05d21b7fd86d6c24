"""Check what docs/ say of the architectures, from the sweeps they quote.

    sae-sweep +experiment=architectures
    sae-sweep +experiment=tokenized
    sae-sweep +experiment=toy
    python scripts/check_architectures.py outputs

Prints the tables and exits with 1 when a claim does not hold; `--out FILE` also writes the numbers as JSON.
"""

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from scripts.claims import Point, concluded, on_target, points_of

BEYOND = 0.002
"""CE recovered by which an architecture may be below Bricken's standard: about one standard error of each."""
AT_LEAST_STANDARD = ("topk", "batchtopk", "jumprelu", "gated")
"""What the papers report to be no worse than Bricken's standard at equal L0."""
RECOVERED = 0.95
FROZEN_HELPS_TO = 32
"""The highest L0 at which a frozen table is expected to help."""


def by_target(points: Iterable[Point]) -> dict[str, dict[float, Point]]:
    """Points by architecture and the `sae.l0` they were asked for."""
    table: dict[str, dict[float, Point]] = {}
    for point in points:
        table.setdefault(point["architecture"], {})[point["knob_value"]] = point
    return table


def architecture_claims(table: dict[str, dict[float, Point]]) -> dict[str, bool]:
    """Every L0 on its target, and the papers' order."""
    everyone = [point for own in table.values() for point in own.values()]
    found = {"every L0 within the larger of 5% and 0.5 of its target": all(map(on_target, everyone))}
    for name in AT_LEAST_STANDARD:
        found[f"{name} no worse than standard at every L0"] = all(
            point["ce_recovered"] >= table["standard"][l0]["ce_recovered"] - BEYOND for l0, point in table[name].items()
        )
    found["batchtopk no worse than any other at every L0"] = all(
        table["batchtopk"][l0]["ce_recovered"] >= point["ce_recovered"] - BEYOND
        for own in table.values()
        for l0, point in own.items()
    )
    return found


def tokenized_claims(table: dict[str, dict[float, Point]]) -> dict[str, bool]:
    """Each tokenized architecture against its twin, by CE with the SAE in place; a frozen table up to L0 32 only, since
    beyond that it has nothing left to give."""
    found = {}
    for name, own in table.items():
        twin = name.partition("_tokenized")[0]
        if twin != name:
            at = [l0 for l0 in own if l0 <= FROZEN_HELPS_TO or not name.endswith("frozen")]
            lower = all(own[l0]["ce_sae"] < table[twin][l0]["ce_sae"] for l0 in at)
            found[f"{name} has lower CE than {twin} at L0 {', '.join(f'{l0:g}' for l0 in sorted(at))}"] = lower
    return found


def toy_claims(points: list[Point]) -> dict[str, bool]:
    """Every member on synthetic activations."""
    return {
        f"{point['member']} recovers frequent true latents to {RECOVERED}": point["mmcs_truth_frequent"] >= RECOVERED
        for point in points
    }


def print_table(title: str, table: dict[str, dict[float, Point]], key: str) -> None:
    """Architectures as rows, targets as columns, and the L0 each landed on."""
    targets = sorted({target for own in table.values() for target in own})
    print(f"\n{title}\n{'':24}" + "".join(f"{f'l0={target:g}':>18}" for target in targets))
    for name, own in table.items():
        cells = (f"{own[t][key]:.4f} ({own[t]['l0']:.1f})" if t in own else "-" for t in targets)
        print(f"{name:24}" + "".join(f"{cell:>18}" for cell in cells))


def summary(table: dict[str, dict[float, Point]], *keys: str) -> dict[str, Any]:
    """The numbers of a table worth keeping."""
    return {
        name: {f"{target:g}": {key: point[key] for key in ("l0", *keys)} for target, point in own.items()}
        for name, own in table.items()
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="Check what docs/ say of the architectures.")
    parser.add_argument("outputs", type=Path, help="the folder that holds the three sweeps")
    parser.add_argument("--out", type=Path, help="also write the numbers here, as JSON")
    arguments = parser.parse_args()
    names = ("architectures", "tokenized", "toy")
    for name in names:
        if not (arguments.outputs / name / "pareto.json").is_file():
            parser.error(f"{arguments.outputs / name} has no pareto.json: run sae-sweep +experiment={name}")
    points = {name: points_of(arguments.outputs / name) for name in names}
    compared, tokenized, toy = (by_target(points[name]) for name in names)
    print_table("CE recovered (L0)", compared, "ce_recovered")
    print_table("tokenized: CE recovered (L0)", tokenized, "ce_recovered")
    print_table("toy: MMCS of frequent true latents (L0)", toy, "mmcs_truth_frequent")
    claims = {**architecture_claims(compared), **tokenized_claims(tokenized), **toy_claims(points["toy"])}
    numbers = {
        "architectures": summary(compared, "ce_recovered", "ce_recovered_se", "fvu", "gamma", "alive"),
        "tokenized": summary(tokenized, "ce_sae", "ce_recovered", "fvu"),
        "toy": summary(toy, "mmcs_truth_frequent", "mmcs_truth", "mmcs_latents", "fvu"),
    }
    return concluded(claims, numbers, arguments.out)


if __name__ == "__main__":
    sys.exit(main())
