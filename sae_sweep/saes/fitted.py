"""Directions that are fitted to activations without a gradient: principal components and centroids."""

import torch
from torch import Tensor

ROUNDS = 20
"""Of k-means; it ends before where no point changes its centroid."""
DISTANCES = 2**24
"""Held at a time, points x centroids."""


def principal_rows(x_ND: Tensor, width: int) -> Tensor:
    """[F, D]: the principal components of centred activations, each and its negative, those of the largest variance
    first; F is at most 2 D."""
    x_ND = x_ND.double()
    _, vectors_DD = torch.linalg.eigh(x_ND.T @ x_ND)
    components_FD = vectors_DD.flip(1).T[: (width + 1) // 2]
    largest_F1 = components_FD.gather(1, components_FD.abs().argmax(1, keepdim=True))
    components_FD = components_FD * largest_F1.sign()  # which of the two comes first is no accident of the solver's
    return torch.stack([components_FD, -components_FD], dim=1).flatten(0, 1)[:width].float()


def centroids(x_ND: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """[K, D]: centroids of activations by Lloyd's iteration, from points that are drawn; fewer where there are fewer
    points, and none that is 0. A centroid that loses all its points begins anew at the point farthest from its own."""
    x_ND = x_ND[x_ND.norm(dim=1) > 0]
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
