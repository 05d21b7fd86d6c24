"""How alike members of the same name in two sweeps are: the mean best cosine of living decoder rows, each way.

python scripts/compare_seeds.py outputs/e2e outputs/e2e_seed1
"""

import argparse
import json
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from sae_sweep.evaluation.similarity import mean_best_cosines
from sae_sweep.folder.names import SPARSITY
from sae_sweep.interop.saelens import load_sae

NEVER = -9.5
"""log10 of a frequency: files hold log10(frequency + 1e-10)."""


def living_rows(folder: Path) -> Tensor:
    """Decoder rows [F, D] of the latents that fired on the held-out tokens."""
    return load_sae(folder).tensors["W_dec"][load_file(folder / SPARSITY)["sparsity"] > NEVER]


def likeness(first: Path, second: Path) -> dict[str, tuple[float, float]]:
    """Of each member that both sweeps have: first in second, and second in first."""
    members = json.loads((first / "sweep.json").read_text(encoding="utf-8"))["members"]
    both = [label for label in members if all((folder / label / SPARSITY).is_file() for folder in (first, second))]
    return {label: mean_best_cosines(living_rows(first / label), living_rows(second / label)) for label in both}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    asked = parser.parse_args()
    print(f"{'member':<32}{'first in second':>16}{'second in first':>16}")
    for label, (forth, back) in likeness(asked.first, asked.second).items():
        print(f"{label:<32}{forth:>16.3f}{back:>16.3f}")


if __name__ == "__main__":
    main()
