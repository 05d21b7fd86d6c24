"""How alike latents of two members fire: the correlation of their activations over tokens, all of one with all of
another.

What fires together is counted in a sparse product, so a token costs the pairs that fire on it. The correlations of all
pairs are held: 8 bytes each.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from sae_sweep.analyses.session.kept import Kept
from sae_sweep.errors import ConfigError
from sae_sweep.kernels.entries import Entries

MOST = 2**28
"""Pairs of latents whose products are held: 2 GiB."""


class Correlation:
    """Sums of one pair of members over tokens."""

    def __init__(self, kept: Kept, name: str, widths: tuple[int, int]) -> None:
        """`name` is that of these sums among what the analysis keeps. Raises ConfigError for members too wide."""
        if widths[0] * widths[1] > MOST:
            raise ConfigError(
                f"analysis.matching.by=activation: {widths[0]} x {widths[1]} latents have more than 2^28 pairs; ask by"
                " decoder, or --member narrower ones"
            )
        self._products = kept.zeros(f"products/{name}", *widths)
        self._one = kept.zeros(f"one/{name}", 2, widths[0])
        self._other = kept.zeros(f"other/{name}", 2, widths[1])
        self._tokens = kept.zeros(f"tokens/{name}", 1)

    def add(self, one: Entries, other: Entries) -> None:
        """The codes of both at the same tokens."""
        products = entries_matrix(one, self._one.shape[1]).T @ entries_matrix(other, self._other.shape[1])
        made = products.tocoo()
        flat_N = torch.from_numpy(made.row.astype(np.int64) * self._other.shape[1] + made.col)
        self._products.view(-1).index_add_(0, flat_N, torch.from_numpy(made.data))
        for sums_2F, codes in ((self._one, one), (self._other, other)):
            value_N, column_N = codes.value_N.cpu().double(), codes.column_N.cpu().long()
            sums_2F[0].index_add_(0, column_N, value_N)
            sums_2F[1].index_add_(0, column_N, value_N.square())
        self._tokens += len(one.offsets) - 1

    def matrix(self) -> Tensor:
        """[F, G]: Pearson's, 0 where a latent never varies."""
        tokens = self._tokens.clamp(min=1)
        mean_F, mean_G = self._one[0] / tokens, self._other[0] / tokens
        spread_F, spread_G = (
            (sums_2F[1] / tokens - (sums_2F[0] / tokens).square()).clamp(min=0).sqrt()
            for sums_2F in (self._one, self._other)
        )
        covariance_FG = self._products / tokens - mean_F[:, None] * mean_G
        scale_FG = spread_F[:, None] * spread_G
        return torch.where(scale_FG > 0, covariance_FG / scale_FG, 0.0)


def shifted(codes: Entries, by: int) -> Entries:
    """The codes of other tokens: each row's are those of the row `by` places before, the last ones' of the first."""
    lengths_B = codes.offsets.diff()
    cut = int(codes.offsets[len(lengths_B) - by % max(1, len(lengths_B))])
    ends = torch.roll(lengths_B, by).cumsum(0, dtype=codes.offsets.dtype)
    column_N = torch.cat([codes.column_N[cut:], codes.column_N[:cut]])
    value_N = torch.cat([codes.value_N[cut:], codes.value_N[:cut]])
    return Entries(torch.cat([codes.offsets[:1], ends]), column_N, value_N)


def entries_matrix(codes: Entries, width: int) -> Any:
    """Codes as scipy's sparse matrix, which comes in when it is needed."""
    from scipy.sparse import csr_array

    parts = (codes.value_N.cpu().double().numpy(), codes.column_N.cpu().numpy(), codes.offsets.cpu().numpy())
    return csr_array(parts, shape=(len(codes.offsets) - 1, width))
