"""Matryoshka SAE on BatchTopK (Bussmann et al. 2025, arXiv 2503.17547), decoder rows at unit norm:

    f as in `batchtopk.py`, over the full width
    L = sum_g ||x - (sum_{i < m_g} f_i W_dec,i + b_dec)||^2 + AuxK

over G nested prefixes m_1 < ... < m_G = F of the latents. `fixed`: group sizes 2^-G, 2^-(G-1), ..., 2^-2 of F and
the rest (section 4: 1/32, 1/16, 1/8, 1/4, 1/2 + 1/32 for G = 5). `sampled`: each step draws G - 1 prefixes from a
Pareto(0.5) distribution cut to [1, F] (appendix); equal ones count once. The full prefix's error is returned as the
reconstruction, the others' as part of the auxiliary term: the sum is the paper's.
"""

from itertools import pairwise

import torch
from torch import Tensor

from sae_sweep.architectures.base import SaeConfig
from sae_sweep.architectures.batchtopk.maths import BatchTopK, threshold_after
from sae_sweep.architectures.matryoshka.facts import MatryoshkaConfig
from sae_sweep.architectures.topk.maths import kept
from sae_sweep.saes.auxk import auxk_losses
from sae_sweep.saes.base import Clock, Losses, Parameters, Step, squared_error
from sae_sweep.saes.layout import Layout

PARETO_ALPHA = 0.5


class Matryoshka(BatchTopK):
    """The maths of `sae=matryoshka`."""

    def losses(self, p: Parameters, x_BD: Tensor, target_BMD: Tensor, step: Step) -> Losses:
        prefixes = [
            prefix_sizes(config, width, clock)
            for config, width, clock in zip(step.configs, step.layout.widths, step.clocks, strict=True)
        ]
        encoder = step.encoder(x_BD, p["W_enc"], p["b_enc"], p["b_dec"])
        # To the codes each group of latents is a member, so that its reconstruction comes out by itself.
        groups = Layout(tuple(b - a for own in prefixes for a, b in pairwise([0, *own])), step.layout.device)
        codes, f = encoder.largest_of_all([count * encoder.tokens for count in kept(step)], groups)
        counts = [len(own) for own in prefixes]
        errors = _nested_errors(codes.decode(f, p["W_dec"]).split(counts, dim=1), target_BMD, p["b_dec"])
        full_BMD = torch.stack([error_BGD[:, -1] for error_BGD in errors], dim=1)
        inner_M = torch.stack([squared_error(error_BGD[:, :-1]).sum() for error_BGD in errors])
        auxk_M = auxk_losses(p, x_BD, full_BMD, step)
        smallest_M = torch.stack([own_G.amin() for own_G in codes.member_minima(f.detach()).split(counts)])
        return Losses(
            reconstruction_M=step.objective.loss(full_BMD),
            sparsity_M=None,
            auxiliary_M=inner_M if auxk_M is None else inner_M + auxk_M,
            fired_F=codes.fired(f),
            support_F=codes.support(),
            buffers={"threshold": threshold_after(smallest_M, step)},
        )


def _nested_errors(partials: tuple[Tensor, ...], target_BMD: Tensor, b_dec_MD: Tensor) -> list[Tensor]:
    """Each member's errors [B, G, D]: reconstructions by 1, 2, ..., G groups, less its target."""
    targets = target_BMD.expand(-1, len(partials), -1)
    return [
        partial_BGD.cumsum(1) + b_dec_MD[member] - targets[:, member, None]
        for member, partial_BGD in enumerate(partials)
    ]


def prefix_sizes(config: SaeConfig, width: int, clock: Clock) -> list[int]:
    """The nested prefixes of one member at one step, ascending; the last is the width."""
    assert isinstance(config, MatryoshkaConfig)
    if config.prefixes == "fixed":
        # The group sizes 2^-G, ..., 2^-2 sum to (2^g - 1) 2^-G after g of them.
        sizes = [width * (2**g - 1) // 2**config.groups for g in range(1, config.groups)]
    else:
        generator = torch.Generator().manual_seed(clock.seed * 1_000_003 + clock.step)
        uniform = torch.rand(config.groups - 1, generator=generator, dtype=torch.float64)
        drawn = (1 - uniform * (1 - width**-PARETO_ALPHA)) ** (-1 / PARETO_ALPHA)
        sizes = drawn.long().clamp(1, width).tolist()
    return sorted({*sizes, width} - {0})


Maths = Matryoshka
