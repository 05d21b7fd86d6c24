"""Dead latents set anew on badly reconstructed inputs (Bricken et al. 2023, appendix "Neuron Resampling").

Each dead latent draws an input with probability proportional to its squared loss (squared error plus coefficient
times L1) and takes its direction about b_dec; its encoder row gets a fifth of the mean norm of the living ones; its
biases and Adam moments are zeroed. No input is drawn twice: two latents set on one input would stay one latent.
"""

import torch
from torch import Tensor

from sae_sweep.saes.bank import Bank
from sae_sweep.training.optimizer import Adam

ENCODER_NORM_SHARE = 0.2
SAMPLE_ROWS = 8_192
"""Inputs the losses are measured on: the first ones of the block. Bricken et al. took 819,200 for batches of 8,192;
what matters is many more than there are dead latents."""


def resample(
    bank: Bank, adam: Adam, member: int, dead_F: Tensor, x_BD: Tensor, coefficient: float, generator: torch.Generator
) -> Tensor:
    """Set one member's dead latents anew on inputs `x_BD`, as it trains on them; the latents [K] that were.

    All dead ones, unless there are fewer inputs with a loss. Raises FloatingPointError when losses are not finite.
    """
    weights = bank.member(bank.storage, member)
    dead_K = dead_F.nonzero().squeeze(1)
    if len(dead_K) == 0:
        return dead_K
    weight_B = _row_losses(bank, member, x_BD, coefficient).double().square().cpu()
    if not weight_B.isfinite().all():
        raise FloatingPointError("its losses on the inputs to resample from are not finite")
    dead_K = dead_K[: int((weight_B > 0).sum())]
    if len(dead_K) == 0:
        return dead_K
    drawn = torch.multinomial(weight_B, len(dead_K), replacement=False, generator=generator)
    directions = x_BD[drawn.to(x_BD.device)] - weights["b_dec"]
    directions = directions / directions.norm(dim=1, keepdim=True).clamp(min=torch.finfo(x_BD.dtype).tiny)
    norms_F = weights["W_enc"].norm(dim=1)
    alive_F = ~dead_F
    living_norm = (norms_F * alive_F).sum() / alive_F.sum() if alive_F.any() else norms_F.new_ones(())
    names = bank.maths.revive(weights, dead_K, directions, ENCODER_NORM_SHARE * living_norm)
    adam.forget(member, dead_K, names)
    return dead_K


def _row_losses(bank: Bank, member: int, x_BD: Tensor, coefficient: float) -> Tensor:
    """[B]: squared error plus the L1 penalty of each row."""
    weights = bank.member(bank.storage, member)
    sae = bank.maths.fold(bank.configs[member], weights, scale=1.0)
    f_BF = sae.encode(x_BD)
    return (x_BD - sae.decode(f_BF)).square().sum(1) + coefficient * f_BF.sum(1)
