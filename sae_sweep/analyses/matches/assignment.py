"""Which latents of two dictionaries belong together if each is taken once: the assignment of the largest total.

Up to `EXACT` latents it is exact (Jonker and Volgenant, in scipy). Beyond, each latent can be given only those of its
`candidates` nearest, both ways; one that none of them is left for counts 0, as a latent does that has no like.

Measured on one core: 10,000 random directions with as many others, exactly, 11 s and 1.9 GB; 32,768 with their noisy
copies among 32 candidates 17 s and 0.5 GB. 131,072 have 16 times as many cosines and four times as many candidates:
some five minutes, and 0.5 GB beside the dictionaries (`held_bytes`).
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sae_sweep.plan.constants import COSINE_ELEMENTS

EXACT = 10_000
"""Latents of the larger dictionary: 10^8 numbers of 8 bytes."""
EXACT_BYTES = 16
"""Of a pair of latents where all are weighed: the cosine in float64, and its negative."""
CANDIDATE_BYTES = 56
"""Of a candidate, of which each latent of both dictionaries has as many: as measured."""


def held_bytes(F: int, G: int, candidates: int, exact: int = EXACT) -> int:
    """What an assignment of F latents to G holds at its fullest, beside the dictionaries and their unit rows."""
    if max(F, G) <= exact:
        return EXACT_BYTES * F * G
    return CANDIDATE_BYTES * min(candidates, F, G) * (F + G) + 4 * COSINE_ELEMENTS


def assigned(rows_FD: Tensor, others_GD: Tensor, candidates: int, exact: int = EXACT) -> Tensor:
    """[min(F, G)] float64: the cosines of the pairs, in the order of the smaller dictionary's rows."""
    if len(rows_FD) > len(others_GD):
        rows_FD, others_GD = others_GD, rows_FD
    rows_FD, others_GD = _unit(rows_FD), _unit(others_GD)
    if len(others_GD) <= exact:
        return assigned_of((rows_FD @ others_GD.T).double())
    return _of_candidates(rows_FD, others_GD, min(candidates, len(rows_FD)))


def assigned_of(similarity_FG: Tensor) -> Tensor:
    """[min(F, G)]: the similarities of the pairs whose total is the largest; exact."""
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(similarity_FG.cpu().numpy(), maximize=True)
    return similarity_FG[torch.from_numpy(rows), torch.from_numpy(columns)]


def partners(similarity_FG: Tensor) -> Tensor:
    """[F] int64: which column each row has in the pairs whose total is the largest; -1 where it has none. Exact."""
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(similarity_FG.cpu().numpy(), maximize=True)
    partner_F = torch.full((len(similarity_FG),), -1)
    partner_F[torch.from_numpy(rows)] = torch.from_numpy(columns)
    return partner_F


def _of_candidates(rows_FD: Tensor, others_GD: Tensor, candidates: int) -> Tensor:
    """The same among the nearest alone. A row may also go to a column of its own, with similarity 0."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import min_weight_full_bipartite_matching

    F, G = len(rows_FD), len(others_GD)
    near_FC, cosine_FC = nearest(rows_FD, others_GD, candidates)
    back_GC, back_cosine_GC = nearest(others_GD, rows_FD, candidates)
    row_FC = np.broadcast_to(np.arange(F)[:, None], near_FC.shape)
    column_GC = np.broadcast_to(np.arange(G)[:, None], back_GC.shape)
    flat_E = np.concatenate([(row_FC * G + near_FC).ravel(), (back_GC * G + column_GC).ravel()])
    flat_E, first_E = np.unique(flat_E, return_index=True)
    cosine_E = np.concatenate([cosine_FC.ravel(), back_cosine_GC.ravel()])[first_E]
    row_E, column_E = np.divmod(flat_E, G)
    row_E = np.concatenate([row_E, np.arange(F)])
    column_E = np.concatenate([column_E, G + np.arange(F)])
    cost_E = 2 - np.concatenate([cosine_E, np.zeros(F)])  # above 0: scipy takes 0 for no edge
    graph = coo_array((cost_E, (row_E, column_E)), shape=(F, G + F)).tocsr()
    rows, columns = min_weight_full_bipartite_matching(graph)
    cosine_F = torch.zeros(F, dtype=torch.float64)
    cosine_F[torch.from_numpy(rows.astype(np.int64))] = torch.from_numpy(2 - graph[rows, columns])
    return cosine_F


def nearest(rows_FD: Tensor, others_GD: Tensor, count: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """[F, C] twice: each row's nearest rows of the other matrix, and their cosines; both have rows of length 1."""
    step, count = max(1, COSINE_ELEMENTS // len(others_GD)), min(count, len(others_GD))
    found = [(part_bD @ others_GD.T).topk(count, dim=1) for part_bD in rows_FD.split(step)]
    cosine_FC, near_FC = (torch.cat([each[i] for each in found]).cpu() for i in (0, 1))
    return near_FC.numpy(), cosine_FC.double().numpy()


def _unit(rows_FD: Tensor) -> Tensor:
    norms_F = rows_FD.norm(dim=1, keepdim=True)
    return torch.where(norms_F > 0, rows_FD / norms_F, 0.0)
