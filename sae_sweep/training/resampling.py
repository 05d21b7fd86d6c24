"""Dead latents set anew on badly reconstructed inputs (Bricken et al. 2023, appendix "Neuron Resampling").

Each dead latent draws an input with probability proportional to its squared loss and takes its direction; its
encoder row gets a fifth of the mean norm of the living ones; its biases and Adam moments are zeroed. Directions
are taken about b_dec, since that is what encoder and decoder see.
"""

import torch
from torch import Tensor

from sae_sweep.saes.bank import Bank
from sae_sweep.training.optimizer import Adam

ENCODER_NORM_SHARE = 0.2
SAMPLE_ROWS = 8_192
"""Inputs the losses are measured on: the next ones of the block, fewer where it ends. Bricken et al. took 819,200
for batches of 8,192; what matters is many more than there are dead latents."""


def resample(
    bank: Bank, adam: Adam, member: int, dead_F: Tensor, x_BD: Tensor, coefficient: float, generator: torch.Generator
) -> int:
    """Resample one member's dead latents on inputs `x_BD` (as it trains on them); returns how many there were.

    Raises FloatingPointError when the member's losses are not finite.
    """
    dead_K = dead_F.nonzero().squeeze(1)
    if len(dead_K) == 0:
        return 0
    weights = bank.member(bank.storage, member)
    x_BD = x_BD[:SAMPLE_ROWS]
    loss_B = _row_losses(bank, member, x_BD, coefficient)
    weight_B = loss_B.double().square().cpu()
    if not weight_B.isfinite().all():
        raise FloatingPointError("its losses on the inputs to resample from are not finite")
    if weight_B.sum() == 0:
        return 0  # every input is reconstructed exactly
    # Two latents set on one input would stay one latent for ever, so inputs are drawn without replacement.
    repeats = int((weight_B > 0).sum()) < len(dead_K)
    drawn = torch.multinomial(weight_B, len(dead_K), replacement=repeats, generator=generator)
    directions = x_BD[drawn.to(x_BD.device)] - weights["b_dec"]
    directions = directions / directions.norm(dim=1, keepdim=True).clamp(min=torch.finfo(x_BD.dtype).tiny)
    norms_F = weights["W_enc"].norm(dim=1)
    alive_F = ~dead_F
    living_norm = (norms_F * alive_F).sum() / alive_F.sum() if alive_F.any() else norms_F.new_ones(())
    names = bank.maths.revive(weights, dead_K, directions, ENCODER_NORM_SHARE * living_norm)
    adam.forget(member, dead_K, names)
    return len(dead_K)


def _row_losses(bank: Bank, member: int, x_BD: Tensor, coefficient: float) -> Tensor:
    """[B]: squared error plus the L1 penalty of each row."""
    weights = bank.member(bank.storage, member)
    sae = bank.maths.fold(bank.configs[member], weights, scale=1.0)
    f_BF = sae.encode(x_BD)
    return (x_BD - sae.decode(f_BF)).square().sum(1) + coefficient * f_BF.sum(1)
