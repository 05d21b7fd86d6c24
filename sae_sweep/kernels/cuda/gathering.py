"""Decoding in Triton, for CUDA: errors in one pass over rows, and both gradients by latent, where each row of what came
back is read once for both.

For gradients one program has one latent, whose own row it keeps. Nothing is added atomically, and nothing waits for the
device. Sums are fp32 (fp64 for fp64).
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from sae_sweep.kernels.cuda.sparse import COLUMNS, ENTRIES, bag_sum
from sae_sweep.kernels.cuda.updating import warps


def errors(
    rows_FD: Tensor, index_N: Tensor, weight_N: Tensor, offsets: Tensor, bias_MD: Tensor, target_BMD: Tensor
) -> Tensor:
    """[B, M, D]: for each token and member the sum of weight[n] * rows[index[n]] over its bag of `offsets`, more the
    member's bias, less the target; targets may be the same for all members, [B, 1, D]."""
    (tokens, targets, width), members = target_BMD.shape, len(bias_MD)
    out_BMD = torch.empty(tokens, members, width, dtype=bias_MD.dtype, device=rows_FD.device)
    block = min(COLUMNS, triton.next_power_of_2(width))
    with torch.cuda.device_of(rows_FD):
        _errors[(tokens * members, triton.cdiv(width, block))](
            rows_FD.contiguous(),
            index_N.contiguous(),
            weight_N.contiguous(),
            offsets.contiguous(),
            bias_MD.detach().contiguous(),
            target_BMD.contiguous(),
            out_BMD,
            width,
            members,
            SHARED=targets == 1,
            ENTRIES=ENTRIES,
            COLUMNS=block,
            SUM=tl.float64 if bias_MD.dtype == torch.float64 else tl.float32,
        )
    return out_BMD


def products_and_sums(
    table_KD: Tensor, rows_FD: Tensor, index_N: Tensor, weight_N: Tensor, order_N: Tensor, offsets: Tensor
) -> tuple[Tensor, Tensor]:
    """[N]: at order[n] the product of table[index[n]] and the row of the latent, f, in whose bag of `offsets` n is; 0
    for entries after the last offset. [F, D]: the sum of weight[n] * table[index[n]] over the latent's bag."""
    latents, width = rows_FD.shape
    table_KD = table_KD if table_KD.stride(1) == 1 else table_KD.contiguous()
    products_N, sums_FD = rows_FD.new_zeros(index_N.shape), torch.empty_like(rows_FD)
    block = triton.next_power_of_2(width)
    with torch.cuda.device_of(rows_FD):
        _products_and_sums[(latents,)](
            table_KD,
            rows_FD.detach().contiguous(),
            index_N.contiguous(),
            weight_N.contiguous(),
            order_N.contiguous(),
            offsets,
            products_N,
            sums_FD,
            table_KD.stride(0),
            width,
            BLOCK=block,
            SUM=tl.float64 if rows_FD.dtype == torch.float64 else tl.float32,
            num_warps=warps(block),
        )
    return products_N, sums_FD


@triton.jit
def _errors(
    rows: tl.tensor, index: tl.tensor, weight: tl.tensor, offsets: tl.tensor, bias: tl.tensor, target: tl.tensor,
    out: tl.tensor, width: int, members: int, SHARED: tl.constexpr, ENTRIES: tl.constexpr, COLUMNS: tl.constexpr,
    SUM: tl.constexpr,
) -> None:  # fmt: skip
    bag = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = column < width
    sums = bag_sum(rows, index, weight, offsets, width, width, bag, column, ENTRIES, COLUMNS, SUM)
    token = bag // members
    sums += tl.load(bias + ((bag - token * members) * width + column), mask=inside, other=0).to(SUM)
    aim = token if SHARED else bag
    sums -= tl.load(target + (aim * width + column), mask=inside, other=0).to(SUM)
    tl.store(out + (bag * width + column), sums, mask=inside)


@triton.jit
def _products_and_sums(
    table: tl.tensor, rows: tl.tensor, index: tl.tensor, weight: tl.tensor, order: tl.tensor, offsets: tl.tensor,
    products: tl.tensor, out: tl.tensor, row_stride: tl.int64, width: int, BLOCK: tl.constexpr, SUM: tl.constexpr,
) -> None:  # fmt: skip
    latent = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < width
    begin = tl.load(offsets + latent).to(tl.int64)
    end = tl.load(offsets + latent + 1).to(tl.int64)
    row = tl.load(rows + (latent * width + column), mask=inside, other=0).to(SUM)
    sums = tl.zeros([BLOCK], SUM)
    for entry in range(begin, end):
        place = tl.load(index + entry).to(tl.int64)
        came = tl.load(table + (place * row_stride + column), mask=inside, other=0).to(SUM)
        sums += tl.load(weight + entry).to(SUM) * came
        tl.store(products + tl.load(order + entry), tl.sum(row * came))
    tl.store(out + (latent * width + column), sums, mask=inside)
