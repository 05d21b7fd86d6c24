"""The papers' equations for one member, written densely with ordinary torch operations and no stop for speed.

Weights have a latent a row. Every function returns the terms of the loss, each a scalar: squared error summed
over d and averaged over tokens, what the coefficient multiplies, and the auxiliary term with its own factor.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import one_hot

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Terms:
    reconstruction: Tensor
    sparsity: Tensor
    auxiliary: Tensor
    f_BF: Tensor
    x_hat_BD: Tensor

    def total(self, coefficient: float) -> Tensor:
        return self.reconstruction + coefficient * self.sparsity + self.auxiliary


def bricken(p: Weights, x_BD: Tensor) -> Terms:
    """Bricken et al. 2023: f = ReLU(W_enc (x - b_dec) + b_enc); ||x - x_hat||^2 + l1 ||f||_1."""
    f = torch.clamp((x_BD - p["b_dec"]) @ p["W_enc"].t() + p["b_enc"], min=0)
    x_hat = f @ p["W_dec"] + p["b_dec"]
    return Terms(mean_square(x_BD - x_hat), f.sum(1).mean(), zero(x_BD), f, x_hat)


def april(p: Weights, x_BD: Tensor) -> Terms:
    """Anthropic, April 2024: no pre-encoder bias; ||x - x_hat||^2 + l1 sum_i f_i ||W_dec,i||."""
    f = torch.clamp(x_BD @ p["W_enc"].t() + p["b_enc"], min=0)
    x_hat = f @ p["W_dec"] + p["b_dec"]
    norms = (p["W_dec"] ** 2).sum(1).sqrt()
    return Terms(mean_square(x_BD - x_hat), (f * norms).sum(1).mean(), zero(x_BD), f, x_hat)


def gated(p: Weights, x_BD: Tensor) -> Terms:
    """Rajamanoharan et al. 2024, appendix's pseudo-code: only the auxiliary term's decoder pass is frozen."""
    centred = x_BD - p["b_dec"]
    pi_gate = centred @ p["W_enc"].t() + p["b_gate"]
    W_mag = p["r_mag"].exp()[:, None] * p["W_enc"]
    f_mag = torch.clamp(centred @ W_mag.t() + p["b_mag"], min=0)
    f_gate = (pi_gate.detach() > 0).to(x_BD.dtype)
    f = f_gate * f_mag
    x_hat = f @ p["W_dec"] + p["b_dec"]
    via_gate = torch.clamp(pi_gate, min=0)
    x_hat_frozen = via_gate @ p["W_dec"].detach() + p["b_dec"].detach()
    return Terms(mean_square(x_BD - x_hat), via_gate.sum(1).mean(), mean_square(x_BD - x_hat_frozen), f, x_hat)


def topk(
    p: Weights, x_BD: Tensor, k: int, dead_F: Tensor, auxk: int, auxk_coefficient: float, variance: float
) -> Terms:
    """Gao et al. 2024: ReLU after the top k; the auxiliary term models the frozen residual with dead latents."""
    pre = (x_BD - p["b_dec"]) @ p["W_enc"].t() + p["b_enc"]
    f = torch.clamp(keep_largest(pre, k), min=0)
    x_hat = f @ p["W_dec"] + p["b_dec"]
    auxiliary = zero(x_BD)
    if auxk > 0 and bool(dead_F.any()):
        e = (x_BD - x_hat).detach()
        # Living latents out of the race for the largest: below every other number, and ReLU makes them 0.
        z = torch.clamp(keep_largest(torch.where(dead_F, pre, torch.full_like(pre, -1e9)), auxk), min=0)
        e_hat = z @ p["W_dec"]
        auxiliary = auxk_coefficient * variance * mean_square(e - e_hat) / mean_square(e - e.mean(0))
    return Terms(mean_square(x_BD - x_hat), zero(x_BD), auxiliary, f, x_hat)


def keep_largest(values_BF: Tensor, k: int) -> Tensor:
    """The k largest of each row, 0 elsewhere."""
    k = min(k, values_BF.shape[1])
    order = values_BF.detach().argsort(dim=1, descending=True)[:, :k]
    return values_BF * one_hot(order, values_BF.shape[1]).sum(1).to(values_BF.dtype)


def mean_square(error_BD: Tensor) -> Tensor:
    """Squared norm, averaged over tokens."""
    return (error_BD**2).sum(1).mean()


def zero(x_BD: Tensor) -> Tensor:
    return torch.zeros((), dtype=x_BD.dtype)


def gradients(p: Weights, total: Tensor) -> Weights:
    """d total / d p, 0 where the loss does not depend on a parameter."""
    found = torch.autograd.grad(total, list(p.values()), allow_unused=True)
    return {name: torch.zeros_like(w) if g is None else g for (name, w), g in zip(p.items(), found, strict=True)}


def leaves(p: Weights) -> Weights:
    """The same numbers in float64, to differentiate with respect to."""
    return {name: w.detach().double().clone().requires_grad_() for name, w in p.items()}
