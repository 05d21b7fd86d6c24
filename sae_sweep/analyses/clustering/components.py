"""PCA + k-means: a reconstruction from the first components, and the centroid that is nearest to what they leave."""

from dataclasses import dataclass

import torch
from torch import Tensor

from sae_sweep.saes.fitted import centroids, nearest, principal_rows

POINTS = 8
"""Activations for each centroid, at least: with fewer a centroid is what it was fitted on."""


@dataclass(frozen=True)
class Components:
    """About their mean, activations are a sum of n - 1 components and one centroid: n directions for each, as an SAE of
    L0 n has."""

    mean_D: Tensor
    component_CD: Tensor
    """Unit rows, those of the largest variance first."""
    centroid_KD: Tensor
    """Of what the components leave; none where nothing but components is wanted."""

    def reconstructed(self, x_ND: Tensor) -> Tensor:
        """[N, D]: activations as these have them."""
        centred_ND, component_CD = x_ND - self.mean_D.to(x_ND), self.component_CD.to(x_ND)
        low_ND = (centred_ND @ component_CD.T) @ component_CD
        made_ND = self.mean_D.to(x_ND) + low_ND
        if len(self.centroid_KD):
            centroid_KD = self.centroid_KD.to(x_ND)
            made_ND = made_ND + centroid_KD[nearest(centred_ND - low_ND, centroid_KD)[1]]
        return made_ND

    def clusters(self, x_ND: Tensor) -> Tensor:
        """[N]: the number of each one's centroid."""
        centred_ND, component_CD = x_ND - self.mean_D.to(x_ND), self.component_CD.to(x_ND)
        return nearest(centred_ND - (centred_ND @ component_CD.T) @ component_CD, self.centroid_KD.to(x_ND))[1]


def components(x_ND: Tensor, count: int) -> Tensor:
    """[C, D]: as many principal components of activations about their mean, at most D."""
    x_ND = x_ND.cpu().float()
    return principal_rows(x_ND - x_ND.mean(0), 2 * min(count, x_ND.shape[1]))[::2]


def residual_centroids(x_ND: Tensor, component_CD: Tensor, count: int, seed: int) -> Tensor:
    """[K, D]: as many centroids of what components leave of activations about their mean; fewer where there are too few
    of these."""
    x_ND = x_ND.cpu().float()
    centred_ND = x_ND - x_ND.mean(0)
    rest_ND = centred_ND - (centred_ND @ component_CD.T) @ component_CD
    count = max(1, min(count, len(x_ND) // POINTS))
    return centroids(rest_ND, count, torch.Generator().manual_seed(seed))
