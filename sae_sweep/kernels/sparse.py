"""The sparse kernels of a training step, never differentiated through: torch's own and, where it has none or is
slower on one core, loops (`cpu/loops.py`) on a CPU; `cuda/sparse.py` and torch's on CUDA.

N entries, R rows, F latents, D model width. "Bags" are consecutive runs of entries given by their offsets.
Measured on 2 cores (d = 512, F = 4096, batch 4096, L0 = 33): 1.5 ms for a weighted sum of rows and 2.7 ms for
the sampled product, where the dense encoder product takes 103 ms and a gathered `(a * b).sum` 246 ms.
"""

import warnings
from functools import lru_cache
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import embedding_bag

from sae_sweep.kernels import cpu
from sae_sweep.kernels.device import on_triton
from sae_sweep.kernels.facts import CACHE_BYTES

COLUMNS = 64
"""Of a table larger than a core\'s cache that are read at a time, in the same order and so to the same sums: at the
sizes above and L0 64 that takes 10 ms on one core instead of 22."""
READS_PER_COPY = 16
"""How often each row has to be read for copying its columns side by side to pay."""

# torch announces on first use that CSR tensors are in beta; the two calls here are tested against dense products.
warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta state")
warnings.filterwarnings("ignore", message="Sparse invariant checks are implicitly disabled")


def weighted_row_sums(table_KD: Tensor, index_N: Tensor, weight_N: Tensor, offsets: Tensor) -> Tensor:
    """Row s is the sum of weight[n] * table[index[n]] over bag s; offsets has one more entry than bags."""
    if on_triton(table_KD):
        from sae_sweep.kernels.cuda import sparse as triton_sparse

        return triton_sparse.weighted_row_sums(table_KD, index_N, weight_N, offsets)
    table_KD = table_KD.to(weight_N.dtype)
    if table_KD.numel() * table_KD.itemsize <= CACHE_BYTES or len(index_N) < READS_PER_COPY * len(table_KD):
        return _bags(table_KD, index_N, weight_N, offsets)
    parts = [_bags(part_Kc.contiguous(), index_N, weight_N, offsets) for part_Kc in table_KD.split(COLUMNS, dim=1)]
    return torch.cat(parts, dim=1)


def row_sum_pairs(
    table_KD: Tensor, index_N: Tensor, weight_N: Tensor, other_N: Tensor, offsets: Tensor
) -> tuple[Tensor, Tensor]:
    """`weighted_row_sums` with two weights at the same places."""
    if on_triton(table_KD):
        from sae_sweep.kernels.cuda import sparse as triton_sparse

        return triton_sparse.row_sum_pairs(table_KD, index_N, weight_N, other_N, offsets)
    one, two = (weighted_row_sums(table_KD, index_N, each_N, offsets) for each_N in (weight_N, other_N))
    return one, two


def _bags(table_KD: Tensor, index_N: Tensor, weight_N: Tensor, offsets: Tensor) -> Tensor:
    return embedding_bag(index_N, table_KD, offsets, mode="sum", per_sample_weights=weight_N, include_last_offset=True)


def sampled_products(left_RD: Tensor, right_FD: Tensor, index_N: Tensor, offsets: Tensor) -> Tensor:
    """[N]: left[row of n] . right[index[n]], where bag r of `offsets` holds the entries of row r."""
    if on_triton(left_RD):
        from sae_sweep.kernels.cuda import sparse as triton_sparse

        return triton_sparse.sampled_products(left_RD, right_FD, index_N, offsets)
    left_RD = left_RD.to(right_FD.dtype)
    if not _on_one_core(left_RD):
        zeros_N = left_RD.new_zeros(index_N.shape)
        size = (left_RD.shape[0], right_FD.shape[0])
        pattern = torch.sparse_csr_tensor(offsets, index_N, zeros_N, size=size, check_invariants=False)
        return torch.sparse.sampled_addmm(pattern, left_RD, right_FD.T, beta=0.0).values()
    products_N = left_RD.new_empty(index_N.shape)
    cpu.loops.sampled_products(*map(_array, (offsets, index_N, left_RD, right_FD, products_N)))
    return products_N


def sampled_pairs(
    left_RD: Tensor, other_RD: Tensor, right_FD: Tensor, index_N: Tensor, offsets: Tensor
) -> tuple[Tensor, Tensor]:
    """`sampled_products` of two left sides at the same places."""
    if on_triton(left_RD):
        from sae_sweep.kernels.cuda import sparse as triton_sparse

        return triton_sparse.sampled_pairs(left_RD, other_RD, right_FD, index_N, offsets)
    if not _on_one_core(left_RD):
        left_N, other_N = (sampled_products(each, right_FD, index_N, offsets) for each in (left_RD, other_RD))
        return left_N, other_N
    left_N, other_N = left_RD.new_empty(index_N.shape), left_RD.new_empty(index_N.shape)
    lefts, products = (_array(left_RD), _array(other_RD)), (_array(left_N), _array(other_N))
    cpu.loops.sampled_pairs(_array(offsets), _array(index_N), lefts, _array(right_FD), products)
    return left_N, other_N


def _on_one_core(tensor: Tensor) -> bool:
    """Whether a loop of ours is faster than torch's own, which several cores share."""
    return tensor.device.type == "cpu" and not on_triton(tensor) and torch.get_num_threads() == 1


def _array(tensor: Tensor) -> NDArray[Any]:
    return tensor.detach().contiguous().numpy()


def bag_sums(values_N: Tensor, offsets: Tensor) -> Tensor:
    """[bags]: the sum of each bag's values, 0 for an empty one; in the order of the entries, on any device."""
    sums: Tensor = torch.segment_reduce(values_N, "sum", offsets=offsets, initial=0, unsafe=True)
    return sums


def add_at(sums_R: Tensor, index_N: Tensor, values_N: Tensor) -> None:
    """Add each value, in place, to the sum that its index says: in the order of the values, so that sums have the same
    bits each time. No device is waited for."""
    if sums_R.device.type == "cpu":
        sums_R.index_add_(0, index_N, values_N)
    else:
        sums_R += _sums_at(index_N, values_N, len(sums_R))


def _sums_at(index_N: Tensor, values_N: Tensor, sums: int) -> Tensor:
    ordered_N, order_N = torch.sort(index_N, stable=True)
    return bag_sums(values_N.index_select(0, order_N), sorted_offsets(ordered_N, sums))


def sorted_offsets(bag_N: Tensor, bags: int, step: int = 1) -> Tensor:
    """[bags + 1]: where bags 0, step, 2 step... begin among sorted entries, in their dtype."""
    begins = _begins(bags, step, bag_N.dtype, bag_N.device)
    return torch.searchsorted(bag_N, begins, out_int32=bag_N.dtype == torch.int32)


@lru_cache(256)
def _begins(bags: int, step: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    return step * torch.arange(bags + 1, dtype=dtype, device=device)


def located(flat_N: Tensor, rows: int, columns: int) -> tuple[Tensor, Tensor]:
    """Where each row of a flattened matrix begins [rows + 1] among entries ordered by row, and the column [N] of
    each."""
    offsets = sorted_offsets(flat_N, rows, columns)
    # Many times faster than dividing.
    return offsets, torch.sub(flat_N, bag_of_each(offsets, len(flat_N)), alpha=columns)


def bag_of_each(offsets: Tensor, entries: int, padded: bool = False) -> Tensor:
    """[N]: the bag that each of so many entries is in. Padding, after the last offset, is in the last one."""
    if padded:
        offsets = torch.cat([offsets[:-1], torch.full_like(offsets[:1], entries)])
    return torch.repeat_interleave(offsets.diff(), output_size=entries)


def ordered_sums(values_N: Tensor, order_N: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
    """Values in another order [N], and each bag's sum in that order [bags]."""
    if values_N.device.type != "cpu" or on_triton(values_N):
        ordered_N = values_N.index_select(0, order_N)
        return ordered_N, bag_sums(ordered_N, offsets)
    values_N = values_N.detach()
    ordered_N, sums = torch.empty_like(values_N), values_N.new_empty(len(offsets) - 1)
    cpu.loops.ordered_sums(*(each.numpy() for each in (values_N, order_N, offsets, ordered_N, sums)))
    return ordered_N, sums


def positive_counts(values_N: Tensor, column_N: Tensor, columns: int) -> Tensor:
    """[columns] int64: how many of each column's values are above 0."""
    counts = torch.zeros(columns, dtype=torch.int64, device=values_N.device)
    if values_N.device.type != "cpu" or on_triton(values_N):
        return counts.index_add_(0, column_N, (values_N > 0).long())
    cpu.loops.count_positive(values_N.numpy(), column_N.numpy(), counts.numpy())
    return counts


def transposed(offsets: Tensor, column_N: Tensor, columns: int) -> tuple[Tensor, Tensor, Tensor]:
    """A matrix's entries by column instead of row: where each column begins [columns + 1], and which entries [N] those
    are, and their rows [N]; by row within a column."""
    if column_N.device.type != "cpu" or on_triton(column_N):
        ordered_N, order_N = torch.sort(column_N.to(torch.int32), stable=True)
        row_N = bag_of_each(offsets, len(column_N), padded=True)
        return sorted_offsets(ordered_N, columns), order_N, row_N.index_select(0, order_N)
    found = column_N.new_empty(columns + 1), torch.empty_like(column_N), torch.empty_like(column_N)
    cpu.loops.transpose(offsets.numpy(), column_N.numpy(), *(each.numpy() for each in found))
    return found
