"""Standard SAE with an annealed penalty (Karvonen et al. 2024, arXiv 2408.00113, section 4), decoder at unit norm:

    f = ReLU(W_enc (x - b_dec) + b_enc),   x_hat = W_dec f + b_dec
    L = ||x - x_hat||^2 + l1 s sum_i f_i^p

p falls from 1 to `p_end` in ten equal updates. Whenever it does, s (1 at first) is multiplied by the mean of
sum_i f_i^p_old over that of sum_i f_i^p_new, both over the last ten batches, so that the penalty keeps its size. The
last update comes with four fifths of the run, where by the paper's recipe a steered l1 is held too: what remains
minimises one loss then.
"""

from math import ceil

import torch
from torch import Tensor

from sae_sweep.architectures.base import SaeConfig
from sae_sweep.architectures.p_anneal.facts import PAnnealConfig
from sae_sweep.architectures.standard.maths import Standard
from sae_sweep.kernels.device import beside
from sae_sweep.saes.base import Clock, Parameters, Step
from sae_sweep.saes.codes import Codes

UPDATES = 10
BATCHES = 10
"""Batches whose penalties are averaged when p changes."""
START_SHARE, END_SHARE = 0.05, 0.8
"""p changes within this part of the run."""


class PAnneal(Standard):
    """The maths of `sae=p_anneal`."""

    def buffers(self, config: SaeConfig) -> Parameters:
        """`scale`: s. `sums` [BATCHES, 2]: mean penalties of the last batches, at the p of then and the p to come."""
        return {"scale": torch.ones(()), "sums": torch.full((BATCHES, 2), torch.nan)}

    def penalty(self, f: Tensor, codes: Codes, p: Parameters, step: Step) -> tuple[Tensor, Parameters]:
        now = [exponent(config, clock.step, clock) for config, clock in zip(step.configs, step.clocks, strict=True)]
        norms_F = self.norms(p, step)
        f = f if norms_F is None else f * codes.at_latent(norms_F)
        powers_M = self._power_sums(f, codes, step, now)
        buffers = self._rescaled(f.detach(), codes, step, now, powers_M.detach())
        return step.buffers["scale"] * powers_M, buffers

    def _power_sums(self, f: Tensor, codes: Codes, step: Step, exponents: list[float]) -> Tensor:
        """[M]: sum_i f_i^p, averaged over tokens."""
        if set(exponents) == {1.0}:
            return codes.member_sums(f) / codes.tokens
        exponent_F = beside(f, exponents).index_select(0, step.layout.member_F)
        # Outside the support of a dense step values are 0; there a power has no slope.
        positive = torch.where(f > 0, f, 1.0)
        return codes.member_sums(torch.where(f > 0, positive.pow(codes.at_latent(exponent_F)), 0.0)) / codes.tokens

    def _rescaled(self, f: Tensor, codes: Codes, step: Step, now: list[float], powers_M: Tensor) -> Parameters:
        """The buffers after this step."""
        coming = [next_exponent(c, clock) for c, clock in zip(step.configs, step.clocks, strict=True)]
        scale_M, sums_MQ2 = step.buffers["scale"].clone(), step.buffers["sums"].clone()
        pairs_M2 = torch.stack([powers_M, self._power_sums(f, codes, step, coming)], dim=1)
        for member, (config, clock) in enumerate(zip(step.configs, step.clocks, strict=True)):
            sums_MQ2[member, clock.step % BATCHES] = pairs_M2[member]
            if exponent(config, clock.step + 1, clock) != now[member]:
                old, new = sums_MQ2[member].nanmean(0)
                scale_M[member] *= torch.where(new > 0, old / new, 1.0)
                sums_MQ2[member] = torch.nan
        return {"scale": scale_M, "sums": sums_MQ2}


def exponent(config: SaeConfig, step: int, clock: Clock) -> float:
    """p at a step of the run that the clock belongs to."""
    assert isinstance(config, PAnnealConfig)
    return 1.0 - (1.0 - config.p_end) * updates_done(config, step, clock) / UPDATES


def next_exponent(config: SaeConfig, clock: Clock) -> float:
    """p after the next change; in a run of a few steps that is several updates away."""
    assert isinstance(config, PAnnealConfig)
    first, last = annealing(config, clock)
    done = min(UPDATES, updates_done(config, clock.step, clock) + 1)
    return exponent(config, first + ceil(done * (last - first) / UPDATES), clock)


def updates_done(config: PAnnealConfig, step: int, clock: Clock) -> int:
    """How many of the updates come before a step: they are spread evenly over the annealing."""
    first, last = annealing(config, clock)
    return max(0, min(UPDATES, (step - first) * UPDATES // (last - first)))


def annealing(config: PAnnealConfig, clock: Clock) -> tuple[int, int]:
    """The steps between which p falls."""
    first = min(config.anneal_after_steps, int(START_SHARE * clock.total_steps))
    return first, max(first + 1, int(END_SHARE * clock.total_steps))


Maths = PAnneal
