"""Reconstructions of which parts must be reconstructions too.

Nested prefixes of the latents (Matryoshka; Bussmann et al. 2025, arXiv 2503.17547): in the place of the squared error

    L = sum_g ||x - (sum_{i < m_g} f_i W_dec,i + b_dec)||^2

over G prefixes m_1 < ... < m_G = F. `fixed`: group sizes 2^-G, 2^-(G-1), ..., 2^-2 of F and the rest (section 4: 1/32,
1/16, 1/8, 1/4, 1/2 + 1/32 for G = 5). `sampled`: each step draws G - 1 prefixes from a Pareto(0.5) distribution cut to
[1, F] (appendix); equal ones count once. The error of the whole is the step's objective's to judge, the others are
squared and part of the auxiliary term: the sum is the paper's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from sae_sweep.architectures.base import SaeConfig
from sae_sweep.architectures.prefixes import PrefixConfig
from sae_sweep.saes.base import Clock, Parameters, Step, squared_error
from sae_sweep.saes.codes import Codes
from sae_sweep.saes.layout import layout_of

PARETO_ALPHA = 0.5


@dataclass(frozen=True)
class Errors:
    """Reconstruction - target of the members of a step."""

    whole_BMD: Tensor
    """Of all that fires."""
    inner_M: Tensor | None = None
    """[M]: the squared errors of what a part gives alone, summed over parts; None where none has to."""

    def and_inner(self, term_M: Tensor | None) -> Tensor | None:
        """[M]: an auxiliary term and the squared errors of parts; None where there is neither."""
        if self.inner_M is None or term_M is None:
            return self.inner_M if term_M is None else term_M
        return self.inner_M + term_M


def errors(codes: Codes, f: Tensor, p: Parameters, target_BMD: Tensor, step: Step) -> Errors:
    """Of activations f; with prefixes where the step's members have them."""
    if not step.configs[0].nested:
        return Errors(codes.errors(f, p["W_dec"], p["b_dec"], target_BMD))
    found = zip(step.configs, step.layout.widths, step.clocks, strict=True)
    prefixes = [prefix_sizes(config, width, clock) for config, width, clock in found]
    # To the decoder each group of latents is a member, so that its reconstruction comes out by itself.
    groups = layout_of(tuple(b - a for own in prefixes for a, b in pairwise([0, *own])), step.layout.device)
    partials_BGD = codes.relaid(groups).decode(f, p["W_dec"])
    return nested_errors(partials_BGD, [len(own) for own in prefixes], target_BMD, p["b_dec"])


def nested_errors(partials_BGD: Tensor, counts: Sequence[int], target_BMD: Tensor, b_dec_MD: Tensor) -> Errors:
    """Where each member's reconstruction is the sum of so many parts, and the first 1, 2, ... of them are one too."""
    targets = target_BMD.expand(-1, len(counts), -1)
    own = [
        partial_BGD.cumsum(1) + b_dec_MD[member] - targets[:, member, None]
        for member, partial_BGD in enumerate(partials_BGD.split(list(counts), dim=1))
    ]
    whole_BMD = torch.stack([error_BGD[:, -1] for error_BGD in own], dim=1)
    return Errors(whole_BMD, torch.stack([squared_error(error_BGD[:, :-1]).sum() for error_BGD in own]))


def prefix_sizes(config: SaeConfig, width: int, clock: Clock) -> list[int]:
    """The nested prefixes of one member at one step, ascending; the last is the width."""
    assert isinstance(config, PrefixConfig)
    if config.prefixes == "fixed":
        sizes = config.fixed_sizes(width)
    else:
        generator = torch.Generator().manual_seed(clock.seed * 1_000_003 + clock.step)
        uniform = torch.rand(config.groups - 1, generator=generator, dtype=torch.float64)
        drawn = (1 - uniform * (1 - width**-PARETO_ALPHA)) ** (-1 / PARETO_ALPHA)
        sizes = drawn.long().clamp(1, width).tolist()
    return sorted({*sizes, width} - {0})
