"""The AuxK loss: dead latents model what the living leave over (Gao et al. 2024, arXiv 2406.04093, appendix A.2):

    a V ||e - e_hat||^2 / ||e - mean(e)||^2

e = sg(target - x_hat) is the residual (b_dec is in it once), e_hat = W_dec z with z the top `auxk` of the dead
latents' pre-activations, ReLU'd, a the coefficient and V = E||x - mean||^2. The paper's code divides the first loss by
V and adds this one without it; multiplied by V it is in the same unit as every other architecture's loss.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from sae_sweep.architectures.topk.facts import TopKConfig
from sae_sweep.saes.base import Parameters, Step
from sae_sweep.saes.layered_codes import ends_summed
from sae_sweep.saes.taking import taken


def auxk_losses(p: Parameters, x_BD: Tensor, error_BMD: Tensor, step: Step) -> Tensor | None:
    """[M]: each member's AuxK loss, given its error, which is -e; None when no latent of any member is dead."""
    terms = [_auxk(p, x_BD, error_BMD[:, member].detach(), member, step) for member in range(step.layout.members)]
    return torch.stack(terms) if any(term.requires_grad for term in terms) else None


def _auxk(p: Parameters, x_BD: Tensor, error_BD: Tensor, member: int, step: Step) -> Tensor:
    """One member's AuxK loss; a constant 0 without dead latents."""
    config, latents = step.configs[member], step.layout.slices[member]
    assert isinstance(config, TopKConfig)
    auxk = config.auxk_latents(error_BD.shape[1])
    if step.most_dead is not None:
        return _without_waiting(p, x_BD, error_BD, member, step)
    dead_K = step.dead_F[latents].nonzero().squeeze(1) + latents.start
    if auxk == 0 or len(dead_K) == 0:
        return x_BD.new_zeros(())
    spread = (error_BD - error_BD.mean(0)).square().sum()
    if spread == 0:
        return x_BD.new_zeros(())
    own = step.spaces.in_tables(dead_K, len(p["W_enc"]))
    encoders = [W.index_select(0, own_K) for W, own_K in zip(step.spaces.encoders(p["W_enc"]), own, strict=True)]
    decoders = [W.index_select(0, own_K) for W, own_K in zip(step.spaces.tables(p["W_dec"]), own, strict=True)]
    pre_BK = _products(x_BD, encoders, p["b_dec"][member], step) + p["b_enc"].index_select(0, dead_K)
    top = pre_BK.topk(min(auxk, len(dead_K)), dim=1, sorted=False)
    z_BK = torch.zeros_like(pre_BK).scatter(1, top.indices, top.values.relu())
    return config.auxk_coefficient * step.variance * _squared(error_BD, z_BK, decoders) / spread


def _without_waiting(p: Parameters, x_BD: Tensor, error_BD: Tensor, member: int, step: Step) -> Tensor:
    """The same where only the device knows how many are dead: of each layer as many rows as can be, the dead ones
    first."""
    config, latents = step.configs[member], step.layout.slices[member]
    assert isinstance(config, TopKConfig)
    assert step.most_dead is not None
    auxk, most = config.auxk_latents(error_BD.shape[1]), step.most_dead[member]
    if auxk == 0 or most == 0:
        return x_BD.new_zeros(())
    dead_F = step.dead_F[latents]
    layers = dead_F.chunk(step.spaces.layers)
    firsts = [dead_f.to(torch.int8).sort(descending=True, stable=True).indices[:most] for dead_f in layers]
    dead_K = torch.cat([own_K + layer * len(layers[0]) for layer, own_K in enumerate(firsts)])
    rows = [own_K + latents.start for own_K in firsts]
    spread = (error_BD - error_BD.mean(0)).square().sum()
    encoders = [taken(W, own_K, once=True) for W, own_K in zip(step.spaces.encoders(p["W_enc"]), rows, strict=True)]
    decoders = [taken(W, own_K, once=True) for W, own_K in zip(step.spaces.tables(p["W_dec"]), rows, strict=True)]
    pre_BK = _products(x_BD, encoders, p["b_dec"][member], step)
    pre_BK = pre_BK + taken(p["b_enc"], dead_K + latents.start, once=True)
    top = torch.where(dead_F[dead_K], pre_BK, -torch.inf).topk(min(auxk, len(dead_K)), dim=1, sorted=False)
    z_BK = torch.zeros_like(pre_BK).scatter(1, top.indices, top.values.relu())
    error = _squared(error_BD, z_BK, decoders)
    loss = config.auxk_coefficient * step.variance * error / spread.clamp(min=torch.finfo(spread.dtype).tiny)
    return torch.where(dead_F.any() & (spread > 0), loss, 0)


def _products(x_BD: Tensor, encoders: Sequence[Tensor], b_dec_D: Tensor, step: Step) -> Tensor:
    """[B, K]: what encoder rows of each layer read."""
    inputs = step.spaces.centred(x_BD, b_dec_D).chunk(step.spaces.layers, dim=1)
    return torch.cat([x_Bd @ W_Kd.T for x_Bd, W_Kd in zip(inputs, encoders, strict=True)], dim=1)


def _squared(error_BD: Tensor, z_BK: Tensor, decoders: Sequence[Tensor]) -> Tensor:
    """Of what decoder rows of each layer leave of the residual, summed."""
    parts = zip(z_BK.split([len(W_KD) for W_KD in decoders], dim=1), decoders, strict=True)
    return (error_BD + ends_summed([z_Bk @ W_KD for z_Bk, W_KD in parts])).square().sum()
