"""The papers' equations for one member, written densely with ordinary torch operations and no stop for speed.

Weights have a latent a row. Every function returns the terms of the loss, each a scalar: squared error summed
over d and averaged over tokens, what the coefficient multiplies, and the auxiliary term with its own factor.

Here are the L1 family and what all share; `reference_topk` and `reference_jumprelu` hold the others. `x_BD` is what
the encoder sees, `target_BD` what is reconstructed: x itself, or x less the lookup table's row (see `tokenized`).
"""

from collections.abc import Sequence
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


def bricken(p: Weights, x_BD: Tensor, target_BD: Tensor | None = None) -> Terms:
    """Bricken et al. 2023: f = ReLU(W_enc (x - b_dec) + b_enc); ||x - x_hat||^2 + l1 ||f||_1."""
    f = torch.clamp(preactivations(p, x_BD), min=0)
    x_hat = f @ p["W_dec"] + p["b_dec"]
    return Terms(mean_square(target(x_BD, target_BD) - x_hat), f.sum(1).mean(), zero(x_BD), f, x_hat)


def april(p: Weights, x_BD: Tensor, target_BD: Tensor | None = None) -> Terms:
    """Anthropic, April 2024: no pre-encoder bias; ||x - x_hat||^2 + l1 sum_i f_i ||W_dec,i||."""
    f = torch.clamp(x_BD @ p["W_enc"].t() + p["b_enc"], min=0)
    x_hat = f @ p["W_dec"] + p["b_dec"]
    penalty = (f * row_norms(p["W_dec"])).sum(1).mean()
    return Terms(mean_square(target(x_BD, target_BD) - x_hat), penalty, zero(x_BD), f, x_hat)


def gated(p: Weights, x_BD: Tensor, target_BD: Tensor | None = None) -> Terms:
    """Rajamanoharan et al. 2024, appendix's pseudo-code: only the auxiliary term's decoder pass is frozen."""
    f, via_gate, x_hat = gated_pass(p, x_BD)
    x_hat_frozen = via_gate @ p["W_dec"].detach() + p["b_dec"].detach()
    wanted = target(x_BD, target_BD)
    auxiliary = mean_square(wanted.detach() - x_hat_frozen)  # a lookup's row is the decoder's, so frozen with it
    return Terms(mean_square(wanted - x_hat), via_gate.sum(1).mean(), auxiliary, f, x_hat)


def gated_decoder_norm(p: Weights, x_BD: Tensor, target_BD: Tensor | None = None) -> Terms:
    """Its authors' comment: the L1 term weighted by decoder norms, and nothing frozen in the auxiliary term."""
    f, via_gate, x_hat = gated_pass(p, x_BD)
    wanted = target(x_BD, target_BD)
    auxiliary = mean_square(wanted - (via_gate @ p["W_dec"] + p["b_dec"]))
    penalty = (via_gate * row_norms(p["W_dec"])).sum(1).mean()
    return Terms(mean_square(wanted - x_hat), penalty, auxiliary, f, x_hat)


def gated_pass(p: Weights, x_BD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Codes, the gate's ReLU'd pre-activations and the reconstruction; no gradient through the gate's step."""
    centred = x_BD - p["b_dec"]
    pi_gate = centred @ p["W_enc"].t() + p["b_gate"]
    W_mag = p["r_mag"].exp()[:, None] * p["W_enc"]
    f_mag = torch.clamp(centred @ W_mag.t() + p["b_mag"], min=0)
    f_gate = (pi_gate.detach() > 0).to(x_BD.dtype)
    f = f_gate * f_mag
    return f, torch.clamp(pi_gate, min=0), f @ p["W_dec"] + p["b_dec"]


def p_anneal(p: Weights, x_BD: Tensor, exponent: float, scale: float, target_BD: Tensor | None = None) -> Terms:
    """Karvonen et al. 2024 (2408.00113): Bricken's SAE with the penalty s sum_i f_i^p."""
    plain = bricken(p, x_BD, target_BD)
    return Terms(plain.reconstruction, scale * lp(plain.f_BF, exponent), plain.auxiliary, plain.f_BF, plain.x_hat_BD)


def lp(f_BF: Tensor, exponent: float) -> Tensor:
    """sum_i f_i^p, averaged over tokens; a latent at 0 adds nothing and is pulled nowhere."""
    fires = f_BF > 0
    return (torch.where(fires, f_BF, torch.ones_like(f_BF)) ** exponent * fires).sum(1).mean()


def annealed(batches: Sequence[Tensor], exponents: Sequence[float], remembered: int = 10) -> list[float]:
    """The penalty's scale s at each step, given each step's codes and the exponent in force there.

    Where the exponent changes, s is multiplied by mean(sum f^p_old) / mean(sum f^p_new) over the last batches.
    """
    scales = [1.0]
    for step in range(1, len(batches)):
        old, new = exponents[step - 1], exponents[step]
        last = batches[max(0, step - remembered) : step]
        ratio = 1.0 if old == new else float(sum(lp(f, old) for f in last) / sum(lp(f, new) for f in last))
        scales.append(scales[-1] * ratio)
    return scales


def annealed_exponents(p_end: float, updates: int = 10) -> list[float]:
    """1, and what each of the equal updates makes of it."""
    return [1 - (1 - p_end) * update / updates for update in range(updates + 1)]


def tokenized(p: Weights, x_BD: Tensor, token_B: Tensor, subtract: bool) -> tuple[Tensor, Tensor]:
    """Dooms & Wilhelm 2025 (2502.17332): what the encoder sees and what is reconstructed; both pull on the table."""
    rest = x_BD - one_hot(token_B, p["lookup"].shape[0]).to(x_BD.dtype) @ p["lookup"]
    return (rest if subtract else x_BD), rest


def quantile_cut(score_BF: Tensor, l0: float) -> tuple[Tensor, Tensor]:
    """Between which two scores the cut must lie for l0 latents a token to be above it on average."""
    ordered = score_BF.flatten().sort(descending=True).values
    count = round(l0 * len(score_BF))
    return ordered[count], ordered[count - 1]


def preactivations(p: Weights, x_BD: Tensor) -> Tensor:
    """[B, F], b_dec subtracted first."""
    return (x_BD - p["b_dec"]) @ p["W_enc"].t() + p["b_enc"]


def target(x_BD: Tensor, target_BD: Tensor | None) -> Tensor:
    return x_BD if target_BD is None else target_BD


def row_norms(W_FD: Tensor) -> Tensor:
    return (W_FD**2).sum(1).sqrt()


def mean_square(error_BD: Tensor) -> Tensor:
    """Squared norm, averaged over tokens."""
    return (error_BD**2).sum(1).mean()


def zero(x_BD: Tensor) -> Tensor:
    return torch.zeros((), dtype=x_BD.dtype)


def gradients(p: Weights, total: Tensor) -> Weights:
    """d total / d p, 0 where the loss does not depend on a parameter."""
    found = torch.autograd.grad(total, list(p.values()), allow_unused=True, retain_graph=True)
    return {name: torch.zeros_like(w) if g is None else g for (name, w), g in zip(p.items(), found, strict=True)}


def leaves(p: Weights) -> Weights:
    """The same numbers in float64, to differentiate with respect to."""
    return {name: w.detach().double().clone().requires_grad_() for name, w in p.items()}
