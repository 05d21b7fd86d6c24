"""Dead latents set anew on badly reconstructed inputs (Bricken et al. 2023, appendix "Neuron Resampling").

Each dead latent draws an input with probability proportional to its squared loss (squared error plus coefficient
times penalty) and takes its direction about b_dec, without what a lookup gives already; its encoder row gets a fifth
of the mean norm of the living ones; its biases and Adam moments are zeroed. No input is drawn twice: two latents set
on one input would stay one latent. A transcoder's decoder row gets what its skip leaves of the target, about b_dec, and
its encoder row the direction of the input about the inputs' mean.
"""

import torch
from torch import Tensor

from sae_sweep.saes.bank import PER_MEMBER, Bank, Batch
from sae_sweep.saes.base import Parameters, SaeMaths
from sae_sweep.saes.inference import InferenceSae
from sae_sweep.training.step.optimizer import Adam

ENCODER_NORM_SHARE = 0.2
SAMPLE_ROWS = 8_192
"""Inputs the losses are measured on: the first ones of the block. Bricken et al. took 819,200 for batches of 8,192;
what matters is many more than there are dead latents."""
CODE_ELEMENTS = 2**23
"""Codes held at a time, inputs x latents: of all inputs they would take more than a training step."""


def resample(
    bank: Bank, adam: Adam, member: int, dead_F: Tensor, batch: Batch, coefficient: float, generator: torch.Generator
) -> Tensor:
    """Set one member's dead latents anew on a batch as it trains on it; the latents [K] that were.

    All dead ones, unless there are fewer inputs with a loss. Raises FloatingPointError when losses are not finite.
    Whatever it raises, nothing has changed then.
    """
    weights = bank.member(bank.storage, member)
    dead_K = dead_F.nonzero().squeeze(1)
    if len(dead_K) == 0:
        return dead_K
    sae = bank.fold(member, scale=1.0)
    weight_B = _losses(sae, batch, coefficient, bank.maths).double().square().cpu()
    if not weight_B.isfinite().all():
        raise FloatingPointError("its losses on the inputs to resample from are not finite")
    dead_K = dead_K[: int((weight_B > 0).sum())]
    if len(dead_K) == 0:
        return dead_K
    drawn = torch.multinomial(weight_B, len(dead_K), replacement=False, generator=generator).to(dead_K.device)
    x_ND, nothing = batch.x_BD[drawn], batch.x_BD.new_zeros(())
    explained_ND = sae.completed(nothing, batch.tokens_B[drawn], x_ND)  # about b_dec, the lookup's row and the skip
    directions = _unit(batch.target_BD[drawn] - explained_ND)
    norms_F = weights["W_enc"].norm(dim=1)
    alive_F = ~dead_F
    living_norm = (norms_F * alive_F).sum() / alive_F.sum() if alive_F.any() else norms_F.new_ones(())
    about_ND, encoder_norm = x_ND - batch.x_BD.mean(0), ENCODER_NORM_SHARE * living_norm
    kept = [(rows, own_K, rows[own_K]) for rows, own_K in bank.rows(weights, dead_K, weights.keys() - PER_MEMBER)]
    try:
        adam.forget(member, dead_K, _revive(bank, weights, dead_K, directions, about_ND, encoder_norm))
    except BaseException:  # memory may be short half-way
        for rows, own_K, before in kept:
            rows.index_copy_(0, own_K, before)
        raise
    return dead_K


def _revive(
    bank: Bank, weights: Parameters, dead_K: Tensor, directions: Tensor, about_KD: Tensor, encoder_norm: Tensor
) -> tuple[str, ...]:
    """Set dead latents anew, in place; the names of the tensors whose rows changed. `about_KD` are the inputs that they
    are set on, about the mean."""
    if bank.spaces.layers > 1:
        return _revive_layers(bank, weights, dead_K, directions, about_KD, encoder_norm)
    if bank.spaces.same:
        return bank.maths.revive(weights, dead_K, directions, encoder_norm)
    elsewhere = {"W_enc": torch.zeros_like(weights["W_dec"])}
    names = bank.maths.revive(weights | elsewhere, dead_K, directions, encoder_norm)
    weights["W_enc"][dead_K] = encoder_norm * _unit(about_KD)
    return names


def _revive_layers(
    bank: Bank, weights: Parameters, dead_K: Tensor, directions_KD: Tensor, about_KD: Tensor, encoder_norm: Tensor
) -> tuple[str, ...]:
    """The same of a cross-layer transcoder: a latent takes of both what its layer reads, and may write to."""
    spaces, width = bank.spaces, len(weights["W_enc"])
    norms_F1 = weights["W_dec"].new_zeros(width, 1)  # of decoder rows, as the architecture begins them
    lengths = {"W_enc": torch.zeros_like(norms_F1), "W_dec": norms_F1}
    names = bank.maths.revive(weights | lengths, dead_K, torch.ones_like(norms_F1[dead_K]), encoder_norm)
    layer_K = dead_K // (width // spaces.layers)
    inputs, encoders = about_KD.chunk(spaces.layers, dim=1), weights["W_enc"].chunk(spaces.layers)
    for layer, (table, rows_k) in enumerate(
        zip(spaces.tables(weights["W_dec"]), spaces.in_tables(dead_K, width), strict=True)
    ):
        drawn = layer_K == layer
        table[rows_k] = norms_F1[dead_K[drawn]] * _unit(directions_KD[drawn, -table.shape[1] :])
        encoders[layer][rows_k] = encoder_norm * _unit(inputs[layer][drawn])
    return names


def _unit(rows_KD: Tensor) -> Tensor:
    return rows_KD / rows_KD.norm(dim=1, keepdim=True).clamp(min=torch.finfo(rows_KD.dtype).tiny)


def _losses(sae: InferenceSae, batch: Batch, coefficient: float, maths: SaeMaths) -> Tensor:
    """[B]: squared error plus coefficient times penalty, some inputs at a time."""
    rows = max(1, CODE_ELEMENTS // sae.width)
    losses = []
    some = (batch.x_BD.split(rows), batch.tokens_B.split(rows), batch.target_BD.split(rows))
    for x_bD, tokens_b, y_bD in zip(*some, strict=True):
        f_bF = sae.encode(x_bD, tokens_b)
        error_bD = y_bD - sae.decode(f_bF, tokens_b, x_bD)
        losses.append(error_bD.square().sum(1) + coefficient * maths.row_penalty(f_bF))
    return torch.cat(losses)
