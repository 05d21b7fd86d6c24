"""Clusters by the token that is most frequent in them: how pure they are is how often that guess is right elsewhere."""

import torch
from torch import Tensor

from sae_sweep.kernels.entries import Entries
from sae_sweep.kernels.sparse import bag_of_each


def strongest(codes: Entries, width: int) -> Tensor:
    """[B]: the latent with the largest activation at each token, the first of equal ones; `width` where none fires."""
    row_N = bag_of_each(codes.offsets, len(codes.value_N)).long()
    rows = len(codes.offsets) - 1
    best_B = codes.value_N.new_full((rows,), -torch.inf).scatter_reduce_(0, row_N, codes.value_N, "amax")
    column_N = torch.where(codes.value_N == best_B[row_N], codes.column_N.long(), width)
    return torch.full((rows,), width, device=row_N.device).scatter_reduce_(0, row_N, column_N, "amin")


def names(cluster_N: Tensor, token_N: Tensor, clusters: int) -> Tensor:
    """[clusters + 1]: the most frequent token of each cluster, of equal ones the first; of one that has none, and the
    last, that of all."""
    vocabulary = int(token_N.max()) + 1
    pair_P, count_P = (cluster_N * vocabulary + token_N).unique(return_counts=True)
    order_P = count_P.argsort(descending=True, stable=True)
    order_P = order_P[(pair_P[order_P] // vocabulary).argsort(stable=True)]
    cluster_P = pair_P[order_P] // vocabulary
    first_P = torch.ones_like(cluster_P, dtype=torch.bool)
    first_P[1:] = cluster_P[1:] != cluster_P[:-1]
    named = torch.full((clusters + 1,), int(torch.bincount(token_N).argmax()), device=token_N.device)
    named[cluster_P[first_P]] = pair_P[order_P][first_P] % vocabulary
    return named
