"""The sums by held-out row that a member's metrics are ratios of, kept so that two members can be compared in pairs.

Members of a cell are judged on the same rows, and what one row costs both cancels in their difference: its standard
error is then far below those of the two numbers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from sae_sweep.evaluation.jackknife import ratio_standard_error
from sae_sweep.folder.files import replacing
from sae_sweep.folder.names import ROWS

NAMES = ("tokens", "l0", "squared_error", "targets", "ce", "kl", "ce_clean", "ce_zero")
_OVER = {"l0": ("l0", "tokens"), "mse": ("squared_error", "tokens"), "kl": ("kl", "targets")}
_OVER |= {"ce_sae": ("ce", "targets"), "ce_delta": ("ce", "targets")}
SAME_CE = 1e-4
"""Relative: devices and batch shapes move the clean model's cross-entropy of a row by less, other rows by far more."""


@dataclass(frozen=True)
class Rows:
    """Sums [R] over each held-out row, in float64; `Evaluation.rows` says of what."""

    sums: Mapping[str, Tensor]

    def same(self, other: "Rows") -> bool:
        """Whether both were judged on the same rows: as many counted tokens in each, of the same clean loss."""
        mine, theirs = self.sums, other.sums
        return torch.equal(mine["tokens"], theirs["tokens"]) and torch.allclose(
            mine["ce_clean"], theirs["ce_clean"], rtol=SAME_CE, atol=0
        )


def write_rows(folder: Path, rows: Mapping[str, Tensor]) -> None:
    """Write them beside a member's metrics; nothing where there are none."""
    if rows:
        with replacing(folder / ROWS) as temporary:
            save_file({name: rows[name].cpu().contiguous() for name in NAMES}, temporary)


def read_rows(folder: Path) -> Rows | None:
    """A member's; None where an older version judged it, or the file is damaged."""
    try:
        sums = load_file(folder / ROWS)
    except (OSError, SafetensorError):
        return None
    return Rows(sums) if set(NAMES) <= sums.keys() else None


def paired_error(metric: str, weighted: Sequence[tuple[float, Rows]]) -> float | None:
    """The standard error of a sum of weights times a metric of members that were judged on the same rows, of weights
    that sum to 0: a jackknife over the rows. None for a metric that is no ratio of their sums."""
    base = weighted[0][1].sums

    def summed(name: str) -> Tensor:
        return torch.stack([weight * rows.sums[name] for weight, rows in weighted]).sum(0)

    if metric == "ce_recovered":
        return ratio_standard_error(summed("ce"), base["ce_zero"] - base["ce_clean"])
    if metric in _OVER:
        numerator, denominator = _OVER[metric]
        return ratio_standard_error(summed(numerator), base[denominator])
    return None
