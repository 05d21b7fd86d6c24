"""Directions that are fitted to activations without a gradient: principal components, draws, and centroids."""

import torch
from torch import Tensor

ROUNDS = 20
"""Of k-means; it ends before where no point changes its centroid."""
DISTANCES = 2**24
"""Held at a time, points x centroids."""


def principal_rows(x_ND: Tensor, width: int) -> Tensor:
    """[F, D]: the principal components of centred activations, each and its negative, those of the largest variance
    first; F is at most 2 D."""
    components_FD = _components(x_ND)[0][: (width + 1) // 2]
    return torch.stack([components_FD, -components_FD], dim=1).flatten(0, 1)[:width].float()


def drawn_rows(x_ND: Tensor, width: int, generator: torch.Generator) -> Tensor:
    """[F, D]: draws of a normal distribution about 0 that has the covariance of centred activations (arXiv
    2602.14111)."""
    components_DD, variance_D = _components(x_ND)
    noise_FD = torch.randn(width, len(variance_D), generator=generator, dtype=torch.float64)
    return (noise_FD * variance_D.sqrt() @ components_DD).float()


def _components(x_ND: Tensor) -> tuple[Tensor, Tensor]:
    """[D, D] and [D] float64: the principal components of centred activations, a row each, and their variances, the
    largest first."""
    x_ND = x_ND.double()
    values_D, vectors_DD = torch.linalg.eigh(x_ND.T @ x_ND / len(x_ND))
    components_DD = vectors_DD.flip(1).T
    largest_D1 = components_DD.gather(1, components_DD.abs().argmax(1, keepdim=True))
    return components_DD * largest_D1.sign(), values_D.flip(0).clamp(min=0)  # no sign is an accident of the solver's


def centroids(x_ND: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """[K, D]: centroids of activations by Lloyd's iteration, from points that are drawn; fewer where there are fewer
    points, and none that is 0. A centroid that loses all its points begins anew at the point farthest from its own."""
    x_ND = x_ND[x_ND.norm(dim=1) > 0]
    if len(x_ND) == 0:
        return x_ND
    centroid_KD = x_ND[torch.randperm(len(x_ND), generator=generator)[:count]].clone()
    nearest_N = torch.full((len(x_ND),), -1)
    for _ in range(ROUNDS):
        distance_N, found_N = nearest(x_ND, centroid_KD)
        if found_N.equal(nearest_N):
            break
        nearest_N = found_N
        points_K = torch.bincount(nearest_N, minlength=len(centroid_KD))
        sums_KD = torch.zeros_like(centroid_KD).index_add_(0, nearest_N, x_ND)
        centroid_KD = sums_KD / points_K.clamp(min=1)[:, None]
        empty_E = (points_K == 0).nonzero().squeeze(1)
        centroid_KD[empty_E] = x_ND[distance_N.topk(len(empty_E)).indices]
    return centroid_KD[centroid_KD.norm(dim=1) > 0]


def nearest(x_ND: Tensor, centroid_KD: Tensor) -> tuple[Tensor, Tensor]:
    """The squared distance [N] of each point to its nearest centroid, and which that is [N]."""
    least = []
    for x_BD in x_ND.split(max(1, DISTANCES // len(centroid_KD))):
        distance_BK = centroid_KD.square().sum(1) - 2 * x_BD @ centroid_KD.T
        least.append(distance_BK.min(1))
    values_N = torch.cat([one.values for one in least]) + x_ND.square().sum(1)
    return values_N, torch.cat([one.indices for one in least])
