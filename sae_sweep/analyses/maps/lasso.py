"""Sparse linear maps from standardised inputs to standardised targets, of their correlations alone.

A map W minimises for each target 1/2 E(target - W . inputs)^2 + l1 |W|_1, by FISTA (Beck and Teboulle 2009); no token
is needed beside the correlations of inputs with each other [F, F] and with targets [F, G].
"""

from math import sqrt

import torch
from torch import Tensor

STEPS = 300
"""At most."""
SETTLED = 1e-4
"""No weight changes by more in a last step."""


def sparse_map(inputs_FF: Tensor, both_FG: Tensor, l1: float, start_FG: Tensor | None = None) -> Tensor:
    """[F, G]: the map; from another, that of a similar l1 best, it takes fewer steps."""
    W = torch.zeros_like(both_FG) if start_FG is None else start_FG.to(both_FG)
    if not W.numel():
        return W
    rate, ahead, momentum = 1 / largest_eigenvalue(inputs_FF), W, 1.0
    for _ in range(STEPS):
        stepped = ahead - rate * (inputs_FF @ ahead - both_FG)
        new = stepped.sign() * (stepped.abs() - rate * l1).clamp(min=0)
        if (new - W).abs().max() < SETTLED:
            return new
        following = (1 + sqrt(1 + 4 * momentum**2)) / 2
        ahead = new + (momentum - 1) / following * (new - W)
        W, momentum = new, following
    return W


def largest_eigenvalue(inputs_FF: Tensor) -> float:
    """Of a correlation matrix, from above: that by powers, and a twentieth more."""
    # At random: equal numbers have nothing of it where inputs exclude each other.
    vector_F = torch.randn(len(inputs_FF), generator=torch.Generator().manual_seed(0)).to(inputs_FF)
    for _ in range(50):
        vector_F = inputs_FF @ vector_F
        vector_F = vector_F / vector_F.norm().clamp(min=1e-30)
    return max(1e-12, 1.05 * (inputs_FF @ vector_F).norm().item())


def explained(W: Tensor, inputs_FF: Tensor, both_FG: Tensor) -> Tensor:
    """[G]: of each target the share of its variance that a map explains where these are the correlations; below 0
    where it is worse than the mean."""
    return 2 * (W * both_FG).sum(0) - (W * (inputs_FF @ W)).sum(0)
