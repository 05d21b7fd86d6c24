"""Listing the numbers of a matrix that are above a floor, or the entries of a list that are kept, in Triton, for CUDA:
counted by row, then written where the rows before end. Nothing is added atomically, and the lists are in order: by row,
and by column in each."""

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 4096
"""Numbers that a program takes at once, at most."""
LISTED = 256
"""Entries of a list that a program takes at once."""


def counts_above(values_RF: Tensor, floor: Tensor) -> Tensor:
    """[R] int64: how many numbers of each row are above their floor, which is [], [F] or [R, 1]; NaN is above none."""
    rows, width = values_RF.shape
    counts_R = torch.empty(rows, dtype=torch.int64, device=values_RF.device)
    values_RF, block = _with_rows(values_RF), min(BLOCK, triton.next_power_of_2(width))
    with torch.cuda.device_of(values_RF):
        _count_above[(rows,)](
            values_RF, floor, counts_R, values_RF.stride(0), *floor.expand(rows, width).stride(), width, BLOCK=block
        )
    return counts_R


def write_above(values_RF: Tensor, floor: Tensor, offsets: Tensor, room: int) -> tuple[Tensor, Tensor]:
    """The columns [room] int32 and values [room] of the numbers above their floor, each row's from its offset on; what
    is left of the room is the last column, and 0. What does not fit is left out."""
    rows, width = values_RF.shape
    columns_N = torch.full((room,), width - 1, dtype=torch.int32, device=values_RF.device)
    value_N = values_RF.new_zeros(room)
    values_RF, block = _with_rows(values_RF), min(BLOCK, triton.next_power_of_2(width))
    with torch.cuda.device_of(values_RF):
        _write_above[(rows,)](
            values_RF,
            floor,
            offsets,
            columns_N,
            value_N,
            values_RF.stride(0),
            *floor.expand(rows, width).stride(),
            width,
            room,
            BLOCK=block,
        )
    return columns_N, value_N


def counts_kept(offsets: Tensor, kept_N: Tensor) -> Tensor:
    """[R] int64: how many entries of each row are kept."""
    rows = len(offsets) - 1
    counts_R = torch.empty(rows, dtype=torch.int64, device=kept_N.device)
    with torch.cuda.device_of(kept_N):
        _count_kept[(rows,)](offsets, kept_N.view(torch.int8), counts_R, BLOCK=LISTED)
    return counts_R


def write_kept(
    offsets: Tensor, column_N: Tensor, value_N: Tensor, kept_N: Tensor, ends: Tensor, room: int, last: int
) -> tuple[Tensor, Tensor]:
    """The columns [room] int32 and values [room] of the entries that are kept, each row's from its place in `ends` on;
    what is left of the room is the `last` column, and 0. What does not fit is left out."""
    columns_N = torch.full((room,), last, dtype=torch.int32, device=kept_N.device)
    out_N = value_N.new_zeros(room)
    with torch.cuda.device_of(kept_N):
        _write_kept[(len(offsets) - 1,)](
            offsets, column_N, value_N, kept_N.view(torch.int8), ends, columns_N, out_N, room, BLOCK=LISTED
        )
    return columns_N, out_N


@triton.jit
def _count_kept(offsets: tl.tensor, kept: tl.tensor, counts: tl.tensor, BLOCK: tl.constexpr) -> None:
    row = tl.program_id(0).to(tl.int64)
    begin = tl.load(offsets + row).to(tl.int64)
    end = tl.load(offsets + row + 1).to(tl.int64)
    found = tl.zeros([BLOCK], tl.int32)
    for first in range(begin, end, BLOCK):
        entry = first + tl.arange(0, BLOCK)
        found += tl.load(kept + entry, mask=entry < end, other=0).to(tl.int32)
    tl.store(counts + row, tl.sum(found).to(tl.int64))


@triton.jit(do_not_specialize=["room"])
def _write_kept(
    offsets: tl.tensor, column: tl.tensor, value: tl.tensor, kept: tl.tensor, ends: tl.tensor,
    columns: tl.tensor, out: tl.tensor, room: int, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    begin = tl.load(offsets + row).to(tl.int64)
    end = tl.load(offsets + row + 1).to(tl.int64)
    place = tl.load(ends + row).to(tl.int64)
    for first in range(begin, end, BLOCK):
        entry = first + tl.arange(0, BLOCK)
        chosen = tl.load(kept + entry, mask=entry < end, other=0).to(tl.int32)
        places = place + tl.cumsum(chosen, 0) - chosen
        written = (chosen != 0) & (places < room)
        tl.store(columns + places, tl.load(column + entry, mask=written, other=0).to(tl.int32), mask=written)
        tl.store(out + places, tl.load(value + entry, mask=written, other=0), mask=written)
        place += tl.sum(chosen)


@triton.jit
def _count_above(
    values: tl.tensor,
    floor: tl.tensor,
    counts: tl.tensor,
    row_stride: tl.int64,
    floor_row: tl.int64,
    floor_column: tl.int64,
    width: int,
    BLOCK: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64)
    values += row * row_stride
    floor += row * floor_row
    found = tl.zeros([BLOCK], tl.int32)
    for first in range(0, width, BLOCK):
        column = first + tl.arange(0, BLOCK)
        inside = column < width
        value = tl.load(values + column, mask=inside, other=0)
        least = tl.load(floor + column * floor_column, mask=inside, other=0)
        found += (inside & (value > least)).to(tl.int32)
    tl.store(counts + row, tl.sum(found).to(tl.int64))


@triton.jit(do_not_specialize=["room"])
def _write_above(
    values: tl.tensor,
    floor: tl.tensor,
    offsets: tl.tensor,
    columns: tl.tensor,
    out: tl.tensor,
    row_stride: tl.int64,
    floor_row: tl.int64,
    floor_column: tl.int64,
    width: int,
    room: int,
    BLOCK: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64)
    values += row * row_stride
    floor += row * floor_row
    place = tl.load(offsets + row).to(tl.int64)
    for first in range(0, width, BLOCK):
        column = first + tl.arange(0, BLOCK)
        inside = column < width
        value = tl.load(values + column, mask=inside, other=0)
        least = tl.load(floor + column * floor_column, mask=inside, other=0)
        chosen = (inside & (value > least)).to(tl.int32)
        places = place + tl.cumsum(chosen, 0) - chosen
        written = (chosen != 0) & (places < room)
        tl.store(columns + places, column, mask=written)
        tl.store(out + places, value, mask=written)
        place += tl.sum(chosen)


def _with_rows(matrix: Tensor) -> Tensor:
    """The same numbers, each row's next to each other; rows themselves may lie apart."""
    return matrix.detach() if matrix.stride(1) == 1 else matrix.detach().contiguous()
