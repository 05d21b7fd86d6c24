"""OrtSAE (Korznikov et al. 2025, arXiv 2509.22033, section 3.3): BatchTopK whose decoder rows are kept apart,

    L = ||x - x_hat||^2 + AuxK + a V O
    O = 1/C sum_c 1/|c| sum_{i in c} (max_{j in c, j != i} cos(W_dec,i, W_dec,j))^2

with f and x_hat of `batchtopk/maths.py`. Each step parts the latents at random into C = ceil(F / `orthogonality_chunk`)
chunks c of about equal size, so that O costs F rows times a chunk, not F^2. a is `orthogonality`, the paper's gamma;
V = E||x - mean||^2 makes it weigh the same whatever the inputs' size, which the paper does not give: the repository
that it builds on standardises them and averages squared errors over d. Where the nearest cosine is below 0 its square
counts too, as there. The paper's variant that computes O in every fifth step alone, five times as heavy, is not here.
"""

import torch
from torch import Tensor

from sae_sweep.architectures.batchtopk.maths import BatchTopK
from sae_sweep.architectures.ortsae.facts import OrtSaeConfig
from sae_sweep.kernels.device import moved
from sae_sweep.saes.base import Parameters, Step
from sae_sweep.saes.initial import unit_rows
from sae_sweep.saes.taking import taken


class OrtSae(BatchTopK):
    """The maths of `sae=ortsae`."""

    def auxiliary(self, p: Parameters, x_BD: Tensor, error_BMD: Tensor, step: Step) -> Tensor | None:
        penalty_M = torch.stack([_penalty(p["W_dec"], member, step) for member in range(step.layout.members)])
        auxk_M = super().auxiliary(p, x_BD, error_BMD, step)
        return penalty_M if auxk_M is None else penalty_M + auxk_M


def _penalty(W_dec: Tensor, member: int, step: Step) -> Tensor:
    """a V O of one member."""
    config, clock, latents = step.configs[member], step.clocks[member], step.layout.slices[member]
    assert isinstance(config, OrtSaeConfig)
    generator = torch.Generator().manual_seed(clock.seed * 1_000_003 + clock.step)
    width = step.layout.widths[member]
    order_F = moved(torch.randperm(width, generator=generator), W_dec.device)
    rows_FD = unit_rows(W_dec[latents])
    chunks = order_F.tensor_split(-(-width // config.orthogonality_chunk))
    means = [nearest_cosines(taken(rows_FD, chunk_C, once=True)).square().mean() for chunk_C in chunks]
    return config.orthogonality * step.variance * torch.stack(means).mean()


def nearest_cosines(rows_CD: Tensor) -> Tensor:
    """[C]: each unit row's cosine with the nearest other one. Which that is has no gradient, so that the way back costs
    C rows and not C^2."""
    with torch.no_grad():
        nearest_C = (rows_CD @ rows_CD.T).fill_diagonal_(-torch.inf).argmax(1)
    return (rows_CD * taken(rows_CD, nearest_C)).sum(1)


Maths = OrtSae
