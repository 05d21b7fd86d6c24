"""Which latents of a member fire together: counts, as a sparse matrix for other programs, and clusters."""

from io import BytesIO

import numpy as np
import torch
from torch import Tensor

from sae_sweep.analyses.matches.correlation import entries_matrix
from sae_sweep.analyses.session.kept import Kept
from sae_sweep.kernels.entries import Entries


class Together:
    """On how many tokens each two latents of one member fire."""

    def __init__(self, kept: Kept, label: str, width: int) -> None:
        self._count_FF = kept.zeros(f"together/{label}", width, width, dtype=torch.int32)

    def add(self, codes: Entries) -> None:
        """Take in the codes of some tokens."""
        fired = entries_matrix(codes._replace(value_N=torch.ones_like(codes.value_N)), len(self._count_FF))
        made = (fired.T @ fired).tocoo()
        flat_N = torch.from_numpy(made.row.astype(np.int64) * len(self._count_FF) + made.col)
        self._count_FF.view(-1).index_add_(0, flat_N, torch.from_numpy(made.data).int())

    def text(self, fewest: int) -> str:
        """The counts from `fewest` on, of each two latents once, as a Matrix Market file; a latent's own tokens are on
        the diagonal."""
        count_FF = self._count_FF.tril()
        row_N, column_N = (count_FF >= max(1, fewest)).nonzero(as_tuple=True)
        found = count_FF[row_N, column_N], row_N, column_N
        return matrix_text(found, tuple(count_FF.shape), "tokens on which both latents fire, each two once")


def matrix_text(entries: tuple[Tensor, Tensor, Tensor], shape: tuple[int, ...], comment: str) -> str:
    """Values with their rows and columns as a Matrix Market file, which scipy, Julia, R and MATLAB read; its rows and
    columns begin with 1."""
    from scipy.io import mmwrite
    from scipy.sparse import coo_array

    file = BytesIO()
    values_N, row_N, column_N = (each.cpu().numpy() for each in entries)
    mmwrite(file, coo_array((values_N, (row_N, column_N)), shape=shape), f" {comment}", precision=6, symmetry="general")
    return file.getvalue().decode()


def clustered(alike_AA: Tensor, clusters: int) -> Tensor:
    """[A] int64: the cluster of each latent, from 0 on, by average linkage (Sokal and Michener 1958) of what is alike;
    at most so many."""
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    if len(alike_AA) < 2:
        return torch.zeros(len(alike_AA), dtype=torch.int64)
    far_AA = (1 - alike_AA).clamp(min=0).fill_diagonal_(0)
    tree = linkage(squareform(((far_AA + far_AA.T) / 2).numpy(), checks=False), "average")
    return torch.from_numpy(fcluster(tree, clusters, "maxclust")).long() - 1


def within(alike_AA: Tensor, cluster_A: Tensor) -> Tensor:
    """[n]: of each latent that shares its cluster how alike it is, on average, to the others there."""
    same_AA = (cluster_A[:, None] == cluster_A) & ~torch.eye(len(cluster_A), dtype=torch.bool)
    others_A = same_AA.sum(1)
    return ((alike_AA * same_AA).sum(1) / others_A.clamp(min=1))[others_A > 0]
