"""Selecting the largest of many numbers in Triton, for CUDA, by their digits (radix selection: Alabi et al. 2012,
"Fast k-selection algorithms for graphics processing units").

A float's bits, the sign bit flipped or all of them where it is negative, are an unsigned *key* ordered as the numbers
are. The key at a rank is found eight bits at a time from the top: count the next digit among the keys that agree so
far, and see in which of its 256 values the rank falls. Counts are integers, so the answer is exact and the same on
every run. Both zeros are one number, and NaN is above all others, as in torch. No function here waits for the device.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 4096
"""Numbers that a program takes at once, at most."""
PROGRAMS = 1024
"""Programs that count the digits of a whole matrix, at most."""


class _Format(NamedTuple):
    """How a dtype's bits are read: as which integers, in keys of which type, how many, and those of infinity."""

    integer: torch.dtype
    key: tl.dtype
    bits: int
    infinity: int


_FORMATS = {
    torch.float16: _Format(torch.int16, tl.uint32, 16, 0x7C00),
    torch.bfloat16: _Format(torch.int16, tl.uint32, 16, 0x7F80),
    torch.float32: _Format(torch.int32, tl.uint32, 32, 0x7F800000),
    torch.float64: _Format(torch.int64, tl.uint64, 64, 0x7FF0000000000000),
}


def row_top(values_BF: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Each row's k largest: their columns [B, k], ascending, and the smallest of them [B].

    Of the numbers equal to the smallest those with the lowest columns are taken. ValueError unless 1 <= k <= F.
    """
    rows, width = values_BF.shape
    if not 1 <= k <= width:
        raise ValueError(f"k = {k} of {width} columns")
    columns_BK = torch.empty(rows, k, dtype=torch.int64, device=values_BF.device)
    smallest_B = values_BF.new_empty(rows)
    if rows:
        values_BF = values_BF if values_BF.stride(1) == 1 else values_BF.contiguous()
        layout = _FORMATS[values_BF.dtype]
        block = min(BLOCK, triton.next_power_of_2(width))
        with torch.cuda.device_of(values_BF):
            _row_top[(rows,)](
                values_BF.detach().view(layout.integer),
                columns_BK,
                smallest_B.view(layout.integer),
                values_BF.stride(0),
                width,
                k,
                KEY=layout.key,
                BITS=layout.bits,
                INFINITY=layout.infinity,
                BLOCK=block,
                num_warps=_warps(block),
            )
    return columns_BK, smallest_B


def smallest_of_largest(values: Tensor, count: int) -> Tensor:
    """The `count`-th largest of all values, []. ValueError unless there are so many."""
    if not 1 <= count <= values.numel():
        raise ValueError(f"the {count}-th largest of {values.numel()} numbers")
    # A slice of columns, as a member's of its bank is, is read where it lies.
    sliced = values.dim() == 2 and values.stride(1) == 1 and not values.is_contiguous()
    matrix = values if sliced else values.reshape(1, -1)
    layout = _FORMATS[values.dtype]
    bits = matrix.detach().view(layout.integer)
    shifts = range(layout.bits - 8, -1, -8)
    counts = torch.zeros(len(shifts), 256, dtype=torch.int64, device=values.device)
    cut = torch.zeros((), dtype=torch.int64, device=values.device)
    rank = torch.full((), count, dtype=torch.int64, device=values.device)
    answer = values.new_empty(())
    rows, width = matrix.shape
    block = min(BLOCK, triton.next_power_of_2(width))
    programs = min(PROGRAMS, rows * triton.cdiv(width, block))
    constants = {"KEY": layout.key, "BITS": layout.bits}
    with torch.cuda.device_of(values):
        for counts_256, shift in zip(counts, shifts, strict=True):
            _count_digits[(programs,)](
                bits,
                counts_256,
                cut,
                matrix.stride(0),
                rows,
                width,
                **constants,
                INFINITY=layout.infinity,
                SHIFT=shift,
                BLOCK=block,
                num_warps=_warps(block),
            )
            _pick_digit[(1,)](counts_256, cut, rank, answer.view(layout.integer), **constants, SHIFT=shift, num_warps=1)
    return answer


@triton.jit(do_not_specialize=["k"])
def _row_top(
    bits: tl.tensor,
    columns: tl.tensor,
    smallest: tl.tensor,
    row_stride: tl.int64,
    width: int,
    k: int,
    KEY: tl.constexpr,
    BITS: tl.constexpr,
    INFINITY: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64)
    bits += row * row_stride
    columns += row * k
    cut = tl.full([], 0, KEY)
    rank = k
    for SHIFT in tl.static_range(BITS - 8, -1, -8):
        counts = tl.zeros([256], tl.int32)
        for first in range(0, width, BLOCK):
            column = first + tl.arange(0, BLOCK)
            inside = column < width
            key = _keys(tl.load(bits + column, mask=inside, other=0), KEY, BITS, INFINITY)
            counts += _digit_counts(key, inside, cut, BITS, SHIFT, BLOCK)
        digit, rank = _digit_at(counts, rank)
        cut |= digit.to(KEY) << SHIFT
    tl.store(smallest + row, _bits(cut, BITS).to(smallest.dtype.element_ty))

    # `rank` is now how many of those equal to the cut belong to the k largest.
    taken_before = 0
    equal_before = 0
    for first in range(0, width, BLOCK):
        column = first + tl.arange(0, BLOCK)
        inside = column < width
        key = _keys(tl.load(bits + column, mask=inside, other=0), KEY, BITS, INFINITY)
        equal = (inside & (key == cut)).to(tl.int32)
        early = equal_before + tl.cumsum(equal, 0) <= rank
        taken = (inside & (key > cut)) | ((equal != 0) & early)
        ones = taken.to(tl.int32)
        tl.store(columns + (taken_before + tl.cumsum(ones, 0) - 1), column, mask=taken)
        taken_before += tl.sum(ones)
        equal_before += tl.sum(equal)


@triton.jit
def _count_digits(
    bits: tl.tensor,
    counts: tl.tensor,
    cut: tl.tensor,
    row_stride: tl.int64,
    rows: tl.int64,
    width: tl.int64,
    KEY: tl.constexpr,
    BITS: tl.constexpr,
    INFINITY: tl.constexpr,
    SHIFT: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """Add to counts [256] how many keys that agree with the cut above SHIFT have each digit there."""
    agreed = tl.load(cut).to(KEY)
    blocks = tl.cdiv(width, BLOCK)
    own = tl.zeros([256], tl.int32)
    for task in range(tl.program_id(0).to(tl.int64), rows * blocks, tl.num_programs(0)):
        row = task // blocks
        column = (task - row * blocks) * BLOCK + tl.arange(0, BLOCK)
        inside = column < width
        key = _keys(tl.load(bits + (row * row_stride + column), mask=inside, other=0), KEY, BITS, INFINITY)
        own += _digit_counts(key, inside, agreed, BITS, SHIFT, BLOCK)
    tl.atomic_add(counts + tl.arange(0, 256), own.to(tl.int64), mask=own != 0)


@triton.jit
def _pick_digit(
    counts: tl.tensor,
    cut: tl.tensor,
    rank: tl.tensor,
    answer: tl.tensor,
    KEY: tl.constexpr,
    BITS: tl.constexpr,
    SHIFT: tl.constexpr,
) -> None:
    """Write the digit at the rank into the cut, and the rank among the keys that have it; at the end the number."""
    digit, rank_within = _digit_at(tl.load(counts + tl.arange(0, 256)), tl.load(rank))
    key = tl.load(cut).to(KEY) | (digit.to(KEY) << SHIFT)
    tl.store(cut, key.to(tl.int64))
    tl.store(rank, rank_within)
    if SHIFT == 0:
        tl.store(answer, _bits(key, BITS).to(answer.dtype.element_ty))


@triton.jit
def _keys(integers: tl.tensor, KEY: tl.constexpr, BITS: tl.constexpr, INFINITY: tl.constexpr) -> tl.tensor:
    """Keys of floats whose bits are given as signed integers."""
    TOP: tl.constexpr = 1 << (BITS - 1)
    ONES: tl.constexpr = (1 << BITS) - 1
    bits = integers.to(KEY) & ONES  # without the sign that widening repeats
    magnitude = bits & (TOP - 1)
    key = tl.where((bits & TOP) != 0, bits ^ ONES, bits | TOP)
    key = tl.where(magnitude == 0, tl.full([], TOP, KEY), key)
    return tl.where(magnitude > INFINITY, tl.full([], ONES, KEY), key)


@triton.jit
def _bits(key: tl.tensor, BITS: tl.constexpr) -> tl.tensor:
    """The bits of the float with this key."""
    TOP: tl.constexpr = 1 << (BITS - 1)
    ONES: tl.constexpr = (1 << BITS) - 1
    return tl.where((key & TOP) != 0, key ^ TOP, key ^ ONES)


@triton.jit
def _digit_counts(
    key: tl.tensor, inside: tl.tensor, cut: tl.tensor, BITS: tl.constexpr, SHIFT: tl.constexpr, BLOCK: tl.constexpr
) -> tl.tensor:
    """[256]: how many of the keys that agree with the cut above this digit have each value of it."""
    ABOVE: tl.constexpr = ((1 << BITS) - 1) ^ ((1 << (SHIFT + 8)) - 1)
    agrees = inside & ((key & ABOVE) == cut)
    digits = tl.where(agrees, (key >> SHIFT) & 255, 0).to(tl.int32)
    others = BLOCK - tl.sum(agrees.to(tl.int32))  # counted as 0: the histogram takes no mask before Triton 3.3
    return tl.histogram(digits, 256) - tl.where(tl.arange(0, 256) == 0, others, 0)


@triton.jit
def _digit_at(counts: tl.tensor, rank: tl.tensor) -> tuple[tl.tensor, tl.tensor]:
    """The digit of the rank-th largest key, and its rank among those with this digit."""
    from_here_up = tl.sum(counts) - tl.cumsum(counts, 0) + counts
    digit = tl.sum((from_here_up >= rank).to(tl.int32)) - 1
    return digit, rank - tl.sum(tl.where(tl.arange(0, 256) > digit, counts, 0))


def _warps(block: int) -> int:
    return 8 if block >= 2048 else 4
