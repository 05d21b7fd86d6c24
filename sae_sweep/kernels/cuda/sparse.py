"""The sparse kernels of a training step in Triton, for CUDA; `sparse.py` says what they compute.

One program serves one bag, or one row, and goes through its entries in their order. Nothing is added atomically, so
the same entries give the same bits on every run. Sums are fp32 (fp64 for fp64) whatever the inputs are.
No function here has a gradient, and none waits for the device.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

ENTRIES = 16
"""Entries that a program takes at once."""
COLUMNS = 128
"""Columns that a program takes at once, at most."""


def weighted_row_sums(table_KD: Tensor, index_N: Tensor, weight_N: Tensor, offsets: Tensor) -> Tensor:
    """Row s is the sum of weight[n] * table[index[n]] over bag s, in the wider of both formats; 0 where it is empty."""
    bags, width = len(offsets) - 1, table_KD.shape[1]
    dtype = torch.promote_types(table_KD.dtype, weight_N.dtype)
    out = torch.empty(bags, width, dtype=dtype, device=table_KD.device)
    if out.numel():
        table_KD = _with_rows(table_KD)
        block = _column_block(width)
        with torch.cuda.device_of(table_KD):
            _row_sums[(bags, triton.cdiv(width, block))](
                table_KD,
                index_N.contiguous(),
                weight_N.contiguous(),
                offsets.contiguous(),
                out,
                table_KD.stride(0),
                width,
                ENTRIES=ENTRIES,
                COLUMNS=block,
                SUM=_sum_dtype(table_KD),
            )
    return out


def sampled_products(left_RD: Tensor, right_FD: Tensor, index_N: Tensor, offsets: Tensor) -> Tensor:
    """[N]: left[row of n] . right[index[n]], in the wider of both formats; 0 for entries after the last offset."""
    rows, width = left_RD.shape
    dtype = torch.promote_types(left_RD.dtype, right_FD.dtype)
    out = torch.zeros(index_N.shape, dtype=dtype, device=left_RD.device)
    if out.numel() and rows:
        left_RD, right_FD = _with_rows(left_RD), _with_rows(right_FD)
        with torch.cuda.device_of(left_RD):
            _products[(rows,)](
                left_RD,
                right_FD,
                index_N.contiguous(),
                offsets.contiguous(),
                out,
                left_RD.stride(0),
                right_FD.stride(0),
                width,
                ENTRIES=ENTRIES,
                COLUMNS=_column_block(width),
                SUM=_sum_dtype(left_RD),
            )
    return out


def sampled_pairs(
    left_RD: Tensor, other_RD: Tensor, right_FD: Tensor, index_N: Tensor, offsets: Tensor
) -> tuple[Tensor, Tensor]:
    """`sampled_products` of two left sides; each right row is read once."""
    (rows, width), left_RD, other_RD = left_RD.shape, left_RD.contiguous(), other_RD.contiguous()
    out_N, other_N = left_RD.new_zeros(index_N.shape), left_RD.new_zeros(index_N.shape)
    if out_N.numel() and rows:
        right_FD = _with_rows(right_FD)
        with torch.cuda.device_of(left_RD):
            _pairs[(rows,)](
                left_RD,
                other_RD,
                right_FD,
                index_N.contiguous(),
                offsets.contiguous(),
                out_N,
                other_N,
                right_FD.stride(0),
                width,
                ENTRIES=ENTRIES,
                COLUMNS=_column_block(width),
                SUM=_sum_dtype(left_RD),
            )
    return out_N, other_N


def row_sum_pairs(
    table_KD: Tensor, index_N: Tensor, weight_N: Tensor, other_N: Tensor, offsets: Tensor
) -> tuple[Tensor, Tensor]:
    """`weighted_row_sums` with two weights; each row of the table is read once."""
    bags, width = len(offsets) - 1, table_KD.shape[1]
    out, other = table_KD.new_empty(bags, width), table_KD.new_empty(bags, width)
    if out.numel():
        table_KD, block = _with_rows(table_KD), _column_block(width)
        with torch.cuda.device_of(table_KD):
            _row_sum_pairs[(bags, triton.cdiv(width, block))](
                table_KD,
                index_N.contiguous(),
                weight_N.contiguous(),
                other_N.contiguous(),
                offsets.contiguous(),
                out,
                other,
                table_KD.stride(0),
                width,
                ENTRIES=ENTRIES,
                COLUMNS=block,
                SUM=_sum_dtype(table_KD),
            )
    return out, other


@triton.jit
def _row_sums(
    table: tl.tensor,
    index: tl.tensor,
    weight: tl.tensor,
    offsets: tl.tensor,
    out: tl.tensor,
    row_stride: tl.int64,
    width: int,
    ENTRIES: tl.constexpr,
    COLUMNS: tl.constexpr,
    SUM: tl.constexpr,
) -> None:
    bag = tl.program_id(0).to(tl.int64)
    column_D = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    sums_D = bag_sum(table, index, weight, offsets, row_stride, width, bag, column_D, ENTRIES, COLUMNS, SUM)
    tl.store(out + bag * width + column_D, sums_D, mask=column_D < width)


@triton.jit
def bag_sum(
    table: tl.tensor, index: tl.tensor, weight: tl.tensor, offsets: tl.tensor, row_stride: tl.int64, width: int,
    bag: tl.tensor, column_D: tl.tensor, ENTRIES: tl.constexpr, COLUMNS: tl.constexpr, SUM: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    """[COLUMNS]: some columns of a bag's weighted sum of rows."""
    inside_D = column_D < width
    begin = tl.load(offsets + bag).to(tl.int64)
    end = tl.load(offsets + bag + 1).to(tl.int64)
    sums_ND = tl.zeros([ENTRIES, COLUMNS], SUM)
    for first in range(begin, end, ENTRIES):
        entry_N = first + tl.arange(0, ENTRIES)
        inside_N = entry_N < end
        row_N = tl.load(index + entry_N, mask=inside_N, other=0).to(tl.int64)  # times the stride it may pass 2^31
        weight_N = tl.load(weight + entry_N, mask=inside_N, other=0).to(SUM)
        inside_ND = inside_N[:, None] & inside_D[None, :]
        rows_ND = tl.load(table + (row_N[:, None] * row_stride + column_D[None, :]), mask=inside_ND, other=0)
        sums_ND += weight_N[:, None] * rows_ND.to(SUM)
    return tl.sum(sums_ND, axis=0)


@triton.jit
def _products(
    left: tl.tensor,
    right: tl.tensor,
    index: tl.tensor,
    offsets: tl.tensor,
    out: tl.tensor,
    left_stride: tl.int64,
    right_stride: tl.int64,
    width: int,
    ENTRIES: tl.constexpr,
    COLUMNS: tl.constexpr,
    SUM: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64)
    begin = tl.load(offsets + row).to(tl.int64)
    end = tl.load(offsets + row + 1).to(tl.int64)
    for first in range(begin, end, ENTRIES):
        entry_N = first + tl.arange(0, ENTRIES)
        inside_N = entry_N < end
        row_N = tl.load(index + entry_N, mask=inside_N, other=0).to(tl.int64)
        sums_ND = tl.zeros([ENTRIES, COLUMNS], SUM)
        for column in range(0, width, COLUMNS):
            column_D = column + tl.arange(0, COLUMNS)
            inside_D = column_D < width
            left_D = tl.load(left + row * left_stride + column_D, mask=inside_D, other=0).to(SUM)
            inside_ND = inside_N[:, None] & inside_D[None, :]
            right_ND = tl.load(right + (row_N[:, None] * right_stride + column_D[None, :]), mask=inside_ND, other=0)
            sums_ND += left_D[None, :] * right_ND.to(SUM)
        tl.store(out + entry_N, tl.sum(sums_ND, axis=1), mask=inside_N)


@triton.jit
def _row_sum_pairs(
    table: tl.tensor, index: tl.tensor, weight: tl.tensor, other: tl.tensor, offsets: tl.tensor,
    out: tl.tensor, out_of_other: tl.tensor, row_stride: tl.int64, width: int,
    ENTRIES: tl.constexpr, COLUMNS: tl.constexpr, SUM: tl.constexpr,
) -> None:  # fmt: skip
    bag = tl.program_id(0).to(tl.int64)
    column_D = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside_D = column_D < width
    begin = tl.load(offsets + bag).to(tl.int64)
    end = tl.load(offsets + bag + 1).to(tl.int64)
    sums_ND = tl.zeros([ENTRIES, COLUMNS], SUM)
    others_ND = tl.zeros([ENTRIES, COLUMNS], SUM)
    for first in range(begin, end, ENTRIES):
        entry_N = first + tl.arange(0, ENTRIES)
        inside_N = entry_N < end
        row_N = tl.load(index + entry_N, mask=inside_N, other=0).to(tl.int64)
        weight_N = tl.load(weight + entry_N, mask=inside_N, other=0).to(SUM)
        other_N = tl.load(other + entry_N, mask=inside_N, other=0).to(SUM)
        inside_ND = inside_N[:, None] & inside_D[None, :]
        rows_ND = tl.load(table + (row_N[:, None] * row_stride + column_D[None, :]), mask=inside_ND, other=0).to(SUM)
        sums_ND += weight_N[:, None] * rows_ND
        others_ND += other_N[:, None] * rows_ND
    tl.store(out + bag * width + column_D, tl.sum(sums_ND, axis=0), mask=inside_D)
    tl.store(out_of_other + bag * width + column_D, tl.sum(others_ND, axis=0), mask=inside_D)


@triton.jit
def _pairs(
    left: tl.tensor, other: tl.tensor, right: tl.tensor, index: tl.tensor, offsets: tl.tensor,
    out: tl.tensor, out_of_other: tl.tensor, right_stride: tl.int64, width: int,
    ENTRIES: tl.constexpr, COLUMNS: tl.constexpr, SUM: tl.constexpr,
) -> None:  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    begin = tl.load(offsets + row).to(tl.int64)
    end = tl.load(offsets + row + 1).to(tl.int64)
    for first in range(begin, end, ENTRIES):
        entry_N = first + tl.arange(0, ENTRIES)
        inside_N = entry_N < end
        row_N = tl.load(index + entry_N, mask=inside_N, other=0).to(tl.int64)
        sums_ND = tl.zeros([ENTRIES, COLUMNS], SUM)
        others_ND = tl.zeros([ENTRIES, COLUMNS], SUM)
        for column in range(0, width, COLUMNS):
            column_D = column + tl.arange(0, COLUMNS)
            inside_D = column_D < width
            left_D = tl.load(left + row * width + column_D, mask=inside_D, other=0).to(SUM)
            other_D = tl.load(other + row * width + column_D, mask=inside_D, other=0).to(SUM)
            inside_ND = inside_N[:, None] & inside_D[None, :]
            places_ND = row_N[:, None] * right_stride + column_D[None, :]
            right_ND = tl.load(right + places_ND, mask=inside_ND, other=0).to(SUM)
            sums_ND += left_D[None, :] * right_ND
            others_ND += other_D[None, :] * right_ND
        tl.store(out + entry_N, tl.sum(sums_ND, axis=1), mask=inside_N)
        tl.store(out_of_other + entry_N, tl.sum(others_ND, axis=1), mask=inside_N)


def _with_rows(matrix: Tensor) -> Tensor:
    """The same numbers, each row's next to each other; rows themselves may lie apart."""
    return matrix if matrix.stride(1) == 1 else matrix.contiguous()


def _column_block(width: int) -> int:
    return min(COLUMNS, triton.next_power_of_2(width))


def _sum_dtype(tensor: Tensor) -> tl.dtype:
    return tl.float64 if tensor.dtype == torch.float64 else tl.float32
