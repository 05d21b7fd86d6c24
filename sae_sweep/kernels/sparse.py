"""The sparse kernels of a training step: torch's own on a CPU, `triton_sparse.py` on CUDA, never
differentiated through.

N entries, R rows, F latents, D model width. "Bags" are consecutive runs of entries given by their offsets.
Measured on 2 cores (d = 512, F = 4096, batch 4096, L0 = 33): 1.5 ms for a weighted sum of rows and 2.7 ms for
the sampled product, where the dense encoder product takes 103 ms and a gathered `(a * b).sum` 246 ms.
"""

import warnings
from functools import lru_cache

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor
from torch.nn.functional import embedding_bag

from sae_sweep.kernels.device import on_triton

CACHE_BYTES = 2**20
"""A core's own cache, about. A larger table is read some columns at a time, in the same order and so to the same sums:
at the sizes above and L0 64 that takes 10 ms on one core instead of 22."""
COLUMNS = 64
READS_PER_COPY = 16
"""How often each row has to be read for copying its columns side by side to pay."""

# torch announces on first use that CSR tensors are in beta; the two calls here are tested against dense products.
warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta state")
warnings.filterwarnings("ignore", message="Sparse invariant checks are implicitly disabled")


def weighted_row_sums(table_KD: Tensor, index_N: Tensor, weight_N: Tensor, offsets: Tensor) -> Tensor:
    """Row s is the sum of weight[n] * table[index[n]] over bag s; offsets has one more entry than bags."""
    if on_triton(table_KD):
        from sae_sweep.kernels import triton_sparse

        return triton_sparse.weighted_row_sums(table_KD, index_N, weight_N, offsets)
    if table_KD.numel() * table_KD.itemsize <= CACHE_BYTES or len(index_N) < READS_PER_COPY * len(table_KD):
        return _bags(table_KD, index_N, weight_N, offsets)
    parts = [_bags(part_Kc.contiguous(), index_N, weight_N, offsets) for part_Kc in table_KD.split(COLUMNS, dim=1)]
    return torch.cat(parts, dim=1)


def _bags(table_KD: Tensor, index_N: Tensor, weight_N: Tensor, offsets: Tensor) -> Tensor:
    return embedding_bag(index_N, table_KD, offsets, mode="sum", per_sample_weights=weight_N, include_last_offset=True)


def sampled_products(left_RD: Tensor, right_FD: Tensor, index_N: Tensor, offsets: Tensor) -> Tensor:
    """[N]: left[row of n] . right[index[n]], where bag r of `offsets` holds the entries of row r."""
    if on_triton(left_RD):
        from sae_sweep.kernels import triton_sparse

        return triton_sparse.sampled_products(left_RD, right_FD, index_N, offsets)
    zeros_N = left_RD.new_zeros(index_N.shape)
    size = (left_RD.shape[0], right_FD.shape[0])
    pattern = torch.sparse_csr_tensor(offsets, index_N, zeros_N, size=size, check_invariants=False)
    return torch.sparse.sampled_addmm(pattern, left_RD, right_FD.T, beta=0.0).values()


def bag_sums(values_N: Tensor, offsets: Tensor) -> Tensor:
    """[bags]: the sum of each bag's values, 0 for an empty one; in the order of the entries, on any device."""
    sums: Tensor = torch.segment_reduce(values_N, "sum", offsets=offsets, initial=0, unsafe=True)
    return sums


def sorted_offsets(bag_N: Tensor, bags: int, step: int = 1) -> Tensor:
    """[bags + 1]: where bags 0, step, 2 step... begin among sorted entries, in their dtype."""
    begins = _begins(bags, step, bag_N.dtype, bag_N.device)
    return torch.searchsorted(bag_N, begins, out_int32=bag_N.dtype == torch.int32)


@lru_cache(256)
def _begins(bags: int, step: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    return step * torch.arange(bags + 1, dtype=dtype, device=device)


def located(flat_N: Tensor, rows: int, columns: int) -> tuple[Tensor, Tensor, Tensor]:
    """Where each row of a flattened matrix begins [rows + 1] among entries ordered by row, and the row [N] and column
    [N] of each."""
    offsets = sorted_offsets(flat_N, rows, columns)
    # Many times faster than dividing.
    row_N = torch.repeat_interleave(offsets.diff(), output_size=len(flat_N))
    return offsets, row_N, torch.sub(flat_N, row_N, alpha=columns)


def transposed(offsets: Tensor, column_N: Tensor, row_N: Tensor, columns: int) -> tuple[Tensor, Tensor, Tensor]:
    """A matrix's entries by column instead of row: where each column begins [columns + 1], and which entries [N] those
    are, and their rows [N]; by row within a column.

    scipy counts instead of sorting: 0.3 ms for 67k entries of 1024 columns on one core, half as long as a stable sort.
    """
    if column_N.is_cuda or on_triton(column_N):
        ordered_N, order_N = torch.sort(column_N.to(torch.int32), stable=True)
        return sorted_offsets(ordered_N, columns), order_N, row_N.index_select(0, order_N)
    entries = np.arange(len(column_N), dtype=column_N.numpy().dtype)
    shape = (len(offsets) - 1, columns)
    found = csr_array((entries, column_N.numpy(), offsets.numpy()), shape).tocsc()
    return torch.from_numpy(found.indptr), torch.from_numpy(found.data), torch.from_numpy(found.indices)
