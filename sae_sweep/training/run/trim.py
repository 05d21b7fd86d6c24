"""The last correction of `sae.l0`: one number per member that sets the mean L0 of its inference form exactly.

Steering ends before the run does, and BatchTopK's own threshold is one of many batches, so what a member fires at
inference is a little off. What sets how many fire is each form's to say (`saes/forms/`).
"""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from sae_sweep.plan.constants import TRIM_ROWS, rows_together
from sae_sweep.saes.inference import InferenceSae

SPARE = 4
"""Margins kept per row and wanted latent before the exact selection."""


@torch.no_grad()
def trimmed(
    sae: InferenceSae, x_BD: Tensor, tokens_B: Tensor, l0: float, rows_at_once: int = TRIM_ROWS
) -> InferenceSae:
    """The SAE whose mean L0 on these raw activations is `l0`, as near as whole latents allow.

    Latents that are dead on them are not counted, or one far below would move everyone that far. The same SAE where
    nothing helps: a top-k, thresholds never learned.
    """
    t = sae.tensors
    if not sae.form.trims(t):
        return sae
    rows = rows_together(sae.width, rows_at_once)
    margin_N = _largest_margins(sae, x_BD, tokens_B, l0, rows, _alive(sae, x_BD, tokens_B, rows))
    wanted = min(round(l0 * len(x_BD)), len(margin_N) - 1)
    if wanted < 1:
        return sae
    largest_N = margin_N.topk(wanted + 1).values
    cut = ((largest_N[-1] + largest_N[-2]) / 2).to(t["b_dec"].dtype)  # between the last to fire and the first not to
    return replace(sae, tensors={**t, **sae.form.trimmed(t, cut)})


@torch.no_grad()
def mean_l0(sae: InferenceSae, x_BD: Tensor, tokens_B: Tensor, rows_at_once: int = TRIM_ROWS) -> float:
    """Latents above 0 per activation."""
    pairs = zip(x_BD.split(rows_at_once), tokens_B.split(rows_at_once), strict=True)
    return sum(int((sae.encode(x_bD, tokens_b) > 0).sum()) for x_bD, tokens_b in pairs) / len(x_BD)


def _margins(
    sae: InferenceSae, x_BD: Tensor, tokens_B: Tensor, rows_at_once: int
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    for x_bD, tokens_b in zip(x_BD.split(rows_at_once), tokens_B.split(rows_at_once), strict=True):
        yield x_bD, *sae.margins(x_bD, tokens_b)


def _alive(sae: InferenceSae, x_BD: Tensor, tokens_B: Tensor, rows_at_once: int) -> Tensor:
    """[F] bool: the latents that fire on any of the rows. Those that fire on few are silent in most parts of them."""
    alive_F = torch.zeros(sae.width, dtype=torch.bool, device=x_BD.device)
    for _, margin_bF, magnitude_bF in _margins(sae, x_BD, tokens_B, rows_at_once):
        alive_F |= ((margin_bF > 0) & (magnitude_bF > 0)).any(0)
    return alive_F


def _largest_margins(
    sae: InferenceSae, x_BD: Tensor, tokens_B: Tensor, l0: float, rows_at_once: int, alive_F: Tensor
) -> Tensor:
    """[N] float64: what the cut is compared to, for the latents that could fire; the largest of each few rows."""
    own, kept = {name: sae.tensors[name][alive_F] for name in sae.form.vectors}, []
    for x_bD, margin_bF, magnitude_bF in _margins(sae, x_BD, tokens_B, rows_at_once):
        could_N = sae.form.compared(own, margin_bF[:, alive_F], magnitude_bF[:, alive_F])
        most = min(len(could_N), int(SPARE * l0 * len(x_bD)) + 1)
        kept.append(could_N.topk(most, sorted=False).values)
    return torch.cat(kept).double()
