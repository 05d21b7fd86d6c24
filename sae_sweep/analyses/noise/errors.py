"""Activations that are as far from the clean ones as an SAE's reconstructions, but wrong in another way.

Gurnee, "SAE reconstruction errors are (empirically) pathological" (2024), and Lee and Heimersheim 2024 (arXiv
2410.12555), whose point is that noise must be distributed as activations are to be a fair null. With x an activation, s
its reconstruction, e = ‖x - s‖ and cos θ = <x, s> / ‖x‖‖s‖:

    random_error       x + e g / ‖g‖, g ~ N(0, 1)
    covariance         x + e c / ‖c‖, c ~ N(0, Σ) with the covariance Σ of activations
    mixture            x + e m / ‖m‖, m = μ + c: another activation, as a Gaussian has them, mixed in
    random_cosine      cos θ x̂ + sin θ v, v ⊥ x at random, as long as x; random_cosine_norm as long as s
    norm_only          x as long as s
    sae_norm           s as long as x

Of a crosscoder all of that is of each site by itself, as its passes are.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Gaussian:
    """What activations are distributed like."""

    mean_D: Tensor
    factor_DD: Tensor
    """Σ is factor times its transpose."""

    @classmethod
    def of(cls, sum_D: Tensor, products_DD: Tensor, count: float) -> "Gaussian":
        """Of sums over activations and their outer products, in float64."""
        mean_D = sum_D / count
        values_D, vectors_DD = torch.linalg.eigh(products_DD / count - mean_D[:, None] * mean_D)
        return cls(mean_D, vectors_DD * values_D.clamp(min=0).sqrt())


@dataclass(frozen=True)
class Draws:
    """Random numbers for N activations, the same for every member at a site."""

    white_ND: Tensor
    covariant_ND: Tensor
    """c of the above."""
    mean_D: Tensor

    @classmethod
    def of(cls, gaussian: Gaussian, like_ND: Tensor, seed: int) -> "Draws":
        """Drawn on the CPU in float64, so that a device changes nothing."""
        generator = torch.Generator().manual_seed(seed)
        white, other = torch.randn(2, *like_ND.shape, generator=generator, dtype=torch.float64)
        covariant_ND = other @ gaussian.factor_DD.cpu().T
        return cls(*(each.to(like_ND) for each in (white, covariant_ND, gaussian.mean_D)))

    def of_sites(self, sites: int) -> "list[Draws]":
        """Those of each of the sites that lie side by side."""
        parts = (each.chunk(sites, dim=-1) for each in (self.white_ND, self.covariant_ND, self.mean_D))
        return [Draws(*own) for own in zip(*parts, strict=True)]


def unit(x_ND: Tensor) -> Tensor:
    """Each row at length 1; a row of zeros stays."""
    return x_ND / x_ND.norm(dim=1, keepdim=True).clamp(min=torch.finfo(x_ND.dtype).tiny)


def at_cosine(x_ND: Tensor, cosine_N: Tensor, white_ND: Tensor) -> Tensor:
    """Directions of length 1 that have these cosines with x and are random otherwise."""
    along_ND = unit(x_ND)
    across_ND = unit(white_ND - (white_ND * along_ND).sum(1, keepdim=True) * along_ND)
    sine_N = (1 - cosine_N.square()).clamp(min=0).sqrt()
    return cosine_N[:, None] * along_ND + sine_N[:, None] * across_ND


def cosines(x_ND: Tensor, s_ND: Tensor) -> Tensor:
    """[N]: of each row with its reconstruction."""
    return (unit(x_ND) * unit(s_ND)).sum(1)


def _error(x_ND: Tensor, s_ND: Tensor) -> Tensor:
    return (x_ND - s_ND).norm(dim=1, keepdim=True)


def _norm(x_ND: Tensor) -> Tensor:
    return x_ND.norm(dim=1, keepdim=True)


KINDS: dict[str, Callable[[Tensor, Tensor, Draws], Tensor]] = {
    "sae": lambda x, s, draws: s,
    "random_error": lambda x, s, draws: x + _error(x, s) * unit(draws.white_ND),
    "covariance": lambda x, s, draws: x + _error(x, s) * unit(draws.covariant_ND),
    "mixture": lambda x, s, draws: x + _error(x, s) * unit(draws.mean_D + draws.covariant_ND),
    "random_cosine": lambda x, s, draws: _norm(x) * at_cosine(x, cosines(x, s), draws.white_ND),
    "random_cosine_norm": lambda x, s, draws: _norm(s) * at_cosine(x, cosines(x, s), draws.white_ND),
    "norm_only": lambda x, s, draws: _norm(s) * unit(x),
    "sae_norm": lambda x, s, draws: _norm(x) * unit(s),
}
