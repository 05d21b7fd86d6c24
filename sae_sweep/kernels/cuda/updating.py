"""Updates of weights by row in Triton, for CUDA: a row's gradient is summed from its entries, freed of its part along
the row where rows are of unit norm, scaled, given to Adam, and the row normalised, in one pass over weight and moments.

One program has one row. Nothing is added atomically, and nothing waits for the device. Sums are fp32 (fp64 for fp64).
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from sae_sweep.kernels.rows import AdamStep, RowSums

TINY = tl.constexpr(1.1754943508222875e-38)


def squared_norms(sums: RowSums, rows_FD: Tensor, unit: bool) -> Tensor:
    """[F]: of each row's gradient, without its part along the row where rows are at unit norm. Sums are contiguous."""
    latents, width = rows_FD.shape
    out_F = torch.empty(latents, dtype=rows_FD.dtype, device=rows_FD.device)
    with torch.cuda.device_of(rows_FD):
        _row_norms[(latents,)](*_given(sums, rows_FD), rows_FD, out_F, **_sizes(sums, rows_FD, width), UNIT=unit)
    return out_F


def update(
    sums: RowSums,
    rows_FD: Tensor,
    moments: tuple[Tensor, Tensor],
    numbers: AdamStep,
    scale: Tensor,
    lost: Tensor,
    unit: bool,
) -> None:
    """Update rows and both moments, in place, with gradients times `scale` []; nothing where the step is `lost` [].
    Sums are contiguous: it takes no memory."""
    latents, width = rows_FD.shape
    assert rows_FD.is_contiguous()
    with torch.cuda.device_of(rows_FD):
        _update_row[(latents,)](
            *_given(sums, rows_FD),
            rows_FD,
            *moments,
            scale,
            lost.view(torch.int8),
            numbers.rate,
            numbers.beta1,
            numbers.beta2,
            numbers.eps,
            numbers.root,
            **_sizes(sums, rows_FD, width),
            UNIT=unit,
        )


def _given(sums: RowSums, rows_FD: Tensor) -> tuple[Any, ...]:
    """The gradient's arguments; what it has not is never read."""
    assert sums.table_KD.is_contiguous() or sums.table_KD.stride(1) == 1
    lists = (sums.table_KD, sums.index_N, sums.weight_N, sums.offsets)
    others = (sums.factor_F, sums.subtracted_MD, sums.added_FD)
    given = (rows_FD if each is None else each for each in others)
    return (*lists, *given, sums.table_KD.stride(0), rows_FD.shape[1])


def _sizes(sums: RowSums, rows_FD: Tensor, width: int) -> dict[str, Any]:
    block = triton.next_power_of_2(width)
    return {
        "SUBTRACTS": sums.subtracted_MD is not None,
        "ADDS": sums.added_FD is not None,
        "BLOCK": block,
        "SUM": tl.float64 if rows_FD.dtype == torch.float64 else tl.float32,
        "num_warps": warps(block),
    }


def warps(block: int) -> int:
    """Of a program that holds so many numbers of each tensor: 16 of each in a thread."""
    return max(1, min(16, block // 512))


@triton.jit
def _gradient(
    table: tl.tensor,
    index: tl.tensor,
    weight: tl.tensor,
    offsets: tl.tensor,
    factor: tl.tensor,
    subtracted: tl.tensor,
    added: tl.tensor,
    row_stride: tl.int64,
    width: int,
    latent: tl.tensor,
    column: tl.tensor,
    inside: tl.tensor,
    SUBTRACTS: tl.constexpr,
    ADDS: tl.constexpr,
    BLOCK: tl.constexpr,
    SUM: tl.constexpr,
) -> tl.tensor:
    """[BLOCK]: a latent's gradient."""
    begin = tl.load(offsets + latent).to(tl.int64)
    end = tl.load(offsets + latent + 1).to(tl.int64)
    gradient = tl.zeros([BLOCK], SUM)
    for entry in range(begin, end):
        place = tl.load(index + entry).to(tl.int64)
        share = tl.load(weight + entry).to(SUM)
        gradient += share * tl.load(table + (place * row_stride + column), mask=inside, other=0).to(SUM)
    if SUBTRACTS:
        share = tl.load(factor + latent).to(SUM)
        gradient -= share * tl.load(subtracted + column, mask=inside, other=0).to(SUM)
    if ADDS:
        gradient += tl.load(added + (latent * width + column), mask=inside, other=0).to(SUM)
    return gradient


@triton.jit
def _row_norms(
    table: tl.tensor,
    index: tl.tensor,
    weight: tl.tensor,
    offsets: tl.tensor,
    factor: tl.tensor,
    subtracted: tl.tensor,
    added: tl.tensor,
    row_stride: tl.int64,
    width: int,
    rows: tl.tensor,
    out: tl.tensor,
    SUBTRACTS: tl.constexpr,
    ADDS: tl.constexpr,
    BLOCK: tl.constexpr,
    SUM: tl.constexpr,
    UNIT: tl.constexpr,
) -> None:
    latent = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < width
    gradient = _gradient(
        table, index, weight, offsets, factor, subtracted, added, row_stride, width,
        latent, column, inside, SUBTRACTS, ADDS, BLOCK, SUM,
    )  # fmt: skip
    if UNIT:
        row = tl.load(rows + (latent * width + column), mask=inside, other=0).to(SUM)
        gradient -= tl.sum(gradient * row) * row
    tl.store(out + latent, tl.sum(gradient * gradient))


@triton.jit
def _update_row(
    table: tl.tensor, index: tl.tensor, weight: tl.tensor, offsets: tl.tensor,
    factor: tl.tensor, subtracted: tl.tensor, added: tl.tensor, row_stride: tl.int64, width: int,
    rows: tl.tensor, first: tl.tensor, second: tl.tensor, scale: tl.tensor, lost: tl.tensor,
    rate: float, beta1: float, beta2: float, eps: float, root: float,
    SUBTRACTS: tl.constexpr, ADDS: tl.constexpr, BLOCK: tl.constexpr, SUM: tl.constexpr, UNIT: tl.constexpr,
) -> None:  # fmt: skip
    latent = tl.program_id(0).to(tl.int64)
    if tl.load(lost) == 0:
        column = tl.arange(0, BLOCK)
        inside = column < width
        own = latent * width + column
        gradient = _gradient(
            table, index, weight, offsets, factor, subtracted, added, row_stride, width,
            latent, column, inside, SUBTRACTS, ADDS, BLOCK, SUM,
        )  # fmt: skip
        row = tl.load(rows + own, mask=inside, other=0).to(SUM)
        if UNIT:
            gradient -= tl.sum(gradient * row) * row
        gradient *= tl.load(scale).to(SUM)
        moment = tl.load(first + own, mask=inside, other=0).to(SUM)
        moment += (1 - beta1) * (gradient - moment)
        square = tl.load(second + own, mask=inside, other=0).to(SUM)
        square = beta2 * square + (1 - beta2) * gradient * gradient
        row -= rate * moment / (tl.sqrt(square) / root + eps)
        if UNIT:
            row /= tl.maximum(tl.sqrt(tl.sum(row * row)), TINY)
        tl.store(rows + own, row, mask=inside)
        tl.store(first + own, moment, mask=inside)
        tl.store(second + own, square, mask=inside)
