"""What shipped recipes come to, and whether `sae.l0` is where training ends: every architecture, L0s, seeds, lrs.

    python scripts/bench/recipes.py --model DIR --tokens FILE.npz --layer 2 --out outputs/recipes
    python scripts/bench/recipes.py ... --only gated,topk --lr null,1e-3 --seeds 0,1,2

Members are judged on rows that are reserved from the training tokens. All of a command are trained in one pass, and a
command that is killed goes on where it was. `recipes.json` beside the sweep has a row for each architecture, lr and L0:
means and standard deviations over seeds.
"""

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import sae_sweep as ss
from sae_sweep.reporting.points import read_sweep

ALL = (
    *("standard", "standard_april", "p_anneal", "gated", "gated_decoder_norm", "jumprelu", "jumprelu_anthropic"),
    *("topk", "batchtopk", "matryoshka", "hierarchical_topk", "ortsae", "jumprelu_gemma_scope_2", "temporal"),
)
MEASURES = ("l0_untrimmed", "ce_recovered", "fvu", "gamma", "dead_fraction")


def overrides(asked: argparse.Namespace) -> list[str]:
    """The command line of the sweep."""
    return [
        *("model=local", f"model.path={asked.model}", "data=tokens", f"data.path={asked.tokens}", "tracking=none"),
        *(f"data.context={asked.context}", f"site.layer={asked.layer}", f"sae.width={asked.width}"),
        *(f"training.tokens={asked.steps * asked.batch}", f"training.batch_size={asked.batch}"),
        *(f"sae={asked.only}", f"sae.l0={asked.l0}", f"training.lr={asked.lr}", f"seed={asked.seeds}"),
        *asked.more,
    ]


def summary(points: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row for each architecture, lr and asked L0: of each measure the mean and the spread over seeds."""
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for point in points:
        groups.setdefault((point["architecture"], point["lr"], point["knob_value"]), []).append(point)
    return [
        {"architecture": architecture, "lr": lr, "l0": l0, "seeds": len(some), **_measured(some)}
        for (architecture, lr, l0), some in sorted(groups.items())
    ]


def _measured(points: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key in MEASURES:
        values = [float(point[key]) for point in points if point[key] is not None]
        found[key] = mean(values) if values else None
        found[f"{key}_sd"] = stdev(values) if len(values) > 1 else None
    return found


def text(row: Mapping[str, Any]) -> str:
    """A row of the table."""
    untrimmed = "-" if row["l0_untrimmed"] is None else f"{row['l0_untrimmed']:.2f}"
    spread = "" if row["ce_recovered_sd"] is None else f" ±{row['ce_recovered_sd']:.4f}"
    return (
        f"| {row['architecture']} | {row['lr']:.2g} | {row['l0']:g} | {untrimmed} | {row['ce_recovered']:.4f}{spread} |"
        f" {row['fvu']:.3f} | {row['gamma']:.2f} | {row['dead_fraction']:.3f} |"
    )


def main() -> None:
    """Train, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--tokens", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", default=",".join(ALL))
    for name, default in (("l0", "8,16,32"), ("lr", "null"), ("seeds", "0")):
        parser.add_argument(f"--{name}", default=default)
    for name, number in (("layer", 2), ("context", 256), ("width", 1024), ("steps", 732), ("batch", 2048)):
        parser.add_argument(f"--{name}", type=int, default=number)
    parser.add_argument("more", nargs="*", help="further key=value")
    asked = parser.parse_args()
    ss.train(*overrides(asked), name=asked.out.name, output_dir=asked.out.parent)
    rows = summary(read_sweep(asked.out).points)
    (asked.out / "recipes.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    print("| `sae=` | lr | L0 | before the trim | CE recovered | FVU | γ | dead |")
    print(f"|---{'|---:' * 7}|")
    print("\n".join(map(text, rows)))


if __name__ == "__main__":
    main()
