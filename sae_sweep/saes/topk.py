"""TopK SAE with the AuxK loss (Gao et al. 2024, arXiv 2406.04093), decoder rows at unit norm:

    f = ReLU(TopK_k(W_enc (x - b_dec) + b_enc)),   x_hat = W_dec f + b_dec
    L = ||x - x_hat||^2 + a V ||e - e_hat||^2 / ||e - mean(e)||^2

e = sg(x - x_hat) is the residual (b_dec is in it once), e_hat = W_dec z with z the top `auxk` of the dead latents'
pre-activations, a = 1/32, and V = E||x - mean||^2. The paper's code divides the first term by V and adds the second
without it; multiplied by V the loss is in the same unit as every other architecture's.
"""

from math import log2

import torch
from torch import Tensor

from sae_sweep.architectures.base import SaeConfig
from sae_sweep.architectures.topk import TopKConfig
from sae_sweep.saes.base import Losses, Parameters, SaeMaths, Step, random_unit_rows, squared_error
from sae_sweep.saes.codes import Codes, DenseCodes, SparseCodes, preactivations
from sae_sweep.saes.inference import InferenceSae


class TopK(SaeMaths):
    """The maths of `sae=topk`."""

    unit_decoder = True

    def __init__(self, config: SaeConfig):
        pass

    def initialise(self, config: SaeConfig, centre_D: Tensor, width: int, generator: torch.Generator) -> Parameters:
        """W_enc starts as W_dec's transpose, b_enc at 0, b_dec at the data's mean."""
        W_dec = random_unit_rows(width, len(centre_D), generator)
        return {"W_enc": W_dec.clone(), "b_enc": torch.zeros(width), "W_dec": W_dec, "b_dec": centre_D}

    def losses(self, p: Parameters, x_BD: Tensor, step: Step) -> Losses:
        pre_BF = preactivations(x_BD, p["W_enc"], p["b_enc"], p["b_dec"], step.layout)
        codes = _top_codes(pre_BF, step)
        f = torch.relu(codes.encode(pre_BF, x_BD, p["W_enc"], p["b_enc"], p["b_dec"]))
        error_BMD = x_BD[:, None] - (codes.decode(f, p["W_dec"]) + p["b_dec"])
        return Losses(
            reconstruction_M=squared_error(error_BMD),
            sparsity_M=None,
            auxiliary_M=_auxiliary(p, x_BD, error_BMD.detach(), step),
            fired_F=codes.fired(f),
        )

    def fold(self, config: SaeConfig, p: Parameters, scale: float) -> InferenceSae:
        assert isinstance(config, TopKConfig)
        tensors = {
            "W_enc": p["W_enc"].T.contiguous(),
            "b_enc": p["b_enc"] / scale,
            "W_dec": p["W_dec"].clone(),
            "b_dec": p["b_dec"] / scale,
        }
        return InferenceSae("topk", tensors, subtract_b_dec=True, k=config.active())

    def revive(self, p: Parameters, latents: Tensor, directions_KD: Tensor, encoder_norm: Tensor) -> tuple[str, ...]:
        raise AssertionError("topk revives latents by AuxK, not by resampling")


def _top_codes(pre_BF: Tensor, step: Step) -> Codes:
    """The k largest pre-activations of each token and member."""
    tops = []
    for config, latents in zip(step.configs, step.layout.slices, strict=True):
        assert isinstance(config, TopKConfig)
        top = pre_BF[:, latents].topk(config.active(), dim=1, sorted=False).indices
        tops.append(top + latents.start)
    top_BK = torch.cat(tops, dim=1)
    if step.dense:
        support_BF = torch.zeros_like(pre_BF, dtype=torch.bool).scatter_(1, top_BK, True)
        return DenseCodes(support_BF, step.layout)
    flat_BK = top_BK + step.layout.latents * torch.arange(len(pre_BF), device=pre_BF.device)[:, None]
    return SparseCodes(flat_BK.view(-1), len(pre_BF), step.layout)


def _auxiliary(p: Parameters, x_BD: Tensor, error_BMD: Tensor, step: Step) -> Tensor | None:
    """[M]: each member's AuxK loss; None when no latent of any member is dead."""
    terms = [
        _auxk(config, p, latents, member, x_BD, error_BMD[:, member], step)
        for member, (config, latents) in enumerate(zip(step.configs, step.layout.slices, strict=True))
    ]
    return torch.stack(terms) if any(term.requires_grad for term in terms) else None


def _auxk(
    config: SaeConfig, p: Parameters, latents: slice, member: int, x_BD: Tensor, error_BD: Tensor, step: Step
) -> Tensor:
    """One member's AuxK loss; a constant 0 without dead latents."""
    assert isinstance(config, TopKConfig)
    auxk = auxk_latents(config, x_BD.shape[1])
    dead_K = step.dead_F[latents].nonzero().squeeze(1) + latents.start
    spread = (error_BD - error_BD.mean(0)).square().sum()
    if auxk == 0 or len(dead_K) == 0 or spread == 0:
        return x_BD.new_zeros(())
    W_enc, W_dec = p["W_enc"].index_select(0, dead_K), p["W_dec"].index_select(0, dead_K)
    pre_BK = (x_BD - p["b_dec"][member]) @ W_enc.T + p["b_enc"].index_select(0, dead_K)
    top = pre_BK.topk(min(auxk, len(dead_K)), dim=1, sorted=False)
    z_BK = torch.zeros_like(pre_BK).scatter(1, top.indices, top.values.relu())
    return config.auxk_coefficient * step.variance * (error_BD - z_BK @ W_dec).square().sum() / spread


def auxk_latents(config: TopKConfig, d: int) -> int:
    """How many dead latents model the residual: the power of two nearest d / 2 unless the config says."""
    if config.auxk is not None:
        return config.auxk
    return 2 ** round(log2(max(d, 4) / 2))
