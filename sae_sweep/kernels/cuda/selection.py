"""Selecting the largest of many numbers in Triton, for CUDA, by their digits (radix selection: Alabi et al. 2012,
"Fast k-selection algorithms for graphics processing units").

A float's bits, the sign bit flipped or all of them where it is negative, are an unsigned *key* ordered as the numbers
are. The key at a rank is found eight bits at a time from the top: count the next digit among the keys that agree so
far, and see in which of its 256 values the rank falls. Counts are integers, so the answer is exact and the same on
every run. Both zeros are one number, and NaN is above all others, as in torch. No function here waits for the device.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from sae_sweep.kernels.cuda.digits import FORMATS, bits_of, digit_at, digit_counts, keys_of, warps

BLOCK = 4096
"""Numbers that a program takes at once, at most."""
PROGRAMS = 1024
"""Programs that count the digits of a whole matrix, at most."""


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
        layout = FORMATS[values_BF.dtype]
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
                num_warps=warps(block),
            )
    return columns_BK, smallest_B


def smallest_of_largest(values: Tensor, count: int) -> Tensor:
    """The `count`-th largest of all values, []. ValueError unless there are so many."""
    if not 1 <= count <= values.numel():
        raise ValueError(f"the {count}-th largest of {values.numel()} numbers")
    # A slice of columns, as a member's of its bank is, is read where it lies.
    sliced = values.dim() == 2 and values.stride(1) == 1 and not values.is_contiguous()
    matrix = values if sliced else values.reshape(1, -1)
    layout = FORMATS[values.dtype]
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
                num_warps=warps(block),
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
            key = keys_of(tl.load(bits + column, mask=inside, other=0), KEY, BITS, INFINITY)
            counts += digit_counts(key, inside, cut, BITS, SHIFT, BLOCK)
        digit, rank = digit_at(counts, rank)
        cut |= digit.to(KEY) << SHIFT
    tl.store(smallest + row, bits_of(cut, BITS).to(smallest.dtype.element_ty))

    # `rank` is now how many of those equal to the cut belong to the k largest.
    taken_before = 0
    equal_before = 0
    for first in range(0, width, BLOCK):
        column = first + tl.arange(0, BLOCK)
        inside = column < width
        key = keys_of(tl.load(bits + column, mask=inside, other=0), KEY, BITS, INFINITY)
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
        key = keys_of(tl.load(bits + (row * row_stride + column), mask=inside, other=0), KEY, BITS, INFINITY)
        own += digit_counts(key, inside, agreed, BITS, SHIFT, BLOCK)
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
    digit, rank_within = digit_at(tl.load(counts + tl.arange(0, 256)), tl.load(rank))
    key = tl.load(cut).to(KEY) | (digit.to(KEY) << SHIFT)
    tl.store(cut, key.to(tl.int64))
    tl.store(rank, rank_within)
    if SHIFT == 0:
        tl.store(answer, bits_of(key, BITS).to(answer.dtype.element_ty))
