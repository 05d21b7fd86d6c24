"""Lists with padding on a CPU, whose loops read all that they are given."""

import pytest
import torch
from torch import Tensor

from sae_sweep.kernels import sparse
from sae_sweep.saes import decoding, sparse_codes


def padded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loops of a CPU read no padding, as kernels of a GPU do not."""

    def sums(table_KD: Tensor, index_N: Tensor, weight_N: Tensor, offsets: Tensor) -> Tensor:
        count = int(offsets[-1])
        return sparse.weighted_row_sums(table_KD, index_N[:count], weight_N[:count], offsets)

    def products(left_RD: Tensor, right_FD: Tensor, index_N: Tensor, offsets: Tensor) -> Tensor:
        found = right_FD.new_zeros(index_N.shape)
        count = int(offsets[-1])
        found[:count] = sparse.sampled_products(left_RD, right_FD, index_N[:count], offsets)
        return found

    def pairs(left: Tensor, other: Tensor, right: Tensor, index: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
        return products(left, right, index, offsets), products(other, right, index, offsets)

    def transposed(offsets: Tensor, column_N: Tensor, columns: int) -> tuple[Tensor, Tensor, Tensor]:
        count = int(offsets[-1])
        begins, order_N, row_N = sparse.transposed(offsets, column_N[:count], columns)
        rest = torch.arange(count, len(column_N), dtype=order_N.dtype)
        return begins, torch.cat([order_N, rest]), torch.cat([row_N, torch.zeros_like(rest)])

    names = ("weighted_row_sums", "sampled_products", "sampled_pairs", "transposed")
    for name, function in zip(names, (sums, products, pairs, transposed), strict=True):
        for owner in (sparse_codes, decoding):
            if hasattr(owner, name):
                monkeypatch.setattr(owner, name, function)
