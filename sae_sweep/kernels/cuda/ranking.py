"""Selecting the largest of each row in Triton, for CUDA, by their digits as `selection.py` does: the smallest of them,
with each row read once where a program can hold it, and which they are among the entries of a list."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from sae_sweep.kernels.cuda.digits import FORMATS, bits_of, digit_at, digit_counts, keys_of, warps
from sae_sweep.kernels.cuda.listing import LISTED
from sae_sweep.kernels.cuda.selection import BLOCK
from sae_sweep.kernels.entries import Entries

LEAST = 64
"""Numbers of a row that a program has room for, at least."""
WHOLE = 2**15
"""Bytes of a row that a program keeps, at most, to read them once."""


def row_smallest(values_BF: Tensor, k: int) -> Tensor:
    """The smallest of each row's k largest [B]. ValueError unless 1 <= k <= F."""
    rows, width = values_BF.shape
    if not 1 <= k <= width:
        raise ValueError(f"k = {k} of {width} columns")
    values_BF = values_BF if values_BF.stride(1) == 1 else values_BF.contiguous()
    smallest_B, layout = values_BF.new_empty(rows), FORMATS[values_BF.dtype]
    block = max(LEAST, triton.next_power_of_2(width))
    whole = block * values_BF.itemsize <= WHOLE
    block = block if whole else BLOCK
    with torch.cuda.device_of(values_BF):
        _row_smallest[(rows,)](
            values_BF.detach().view(layout.integer),
            smallest_B.view(layout.integer),
            values_BF.stride(0),
            width,
            k,
            KEY=layout.key,
            BITS=layout.bits,
            INFINITY=layout.infinity,
            WHOLE=whole,
            BLOCK=block,
            num_warps=16 if block > BLOCK else warps(block),
        )
    return smallest_B


def keep_largest(entries: Entries, columns: slice, k: int, kept_N: Tensor) -> None:
    """Set [N] int8 to 1 at the k largest numbers of each row among the entries of some columns, as far as they are
    above 0, and to 0 at their others; of equal ones the first are taken. Padding stays as it is."""
    offsets, column_N, value_N = entries
    layout = FORMATS[value_N.dtype]
    with torch.cuda.device_of(value_N):
        _keep_largest[(len(offsets) - 1,)](
            offsets, column_N, value_N.view(layout.integer), kept_N, columns.start, columns.stop, k,
            KEY=layout.key, BITS=layout.bits, INFINITY=layout.infinity, BLOCK=LISTED,
        )  # fmt: skip


@triton.jit(do_not_specialize=["k"])
def _row_smallest(
    bits: tl.tensor, smallest: tl.tensor, row_stride: tl.int64, width: int, k: int, KEY: tl.constexpr,
    BITS: tl.constexpr, INFINITY: tl.constexpr, WHOLE: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    bits += row * row_stride
    cut = tl.full([], 0, KEY)
    rank = k
    if WHOLE:
        inside = tl.arange(0, BLOCK) < width
        key = keys_of(tl.load(bits + tl.arange(0, BLOCK), mask=inside, other=0), KEY, BITS, INFINITY)
    for SHIFT in tl.static_range(BITS - 8, -1, -8):
        if WHOLE:
            counts = digit_counts(key, inside, cut, BITS, SHIFT, BLOCK)
        else:
            counts = tl.zeros([256], tl.int32)
            for first in range(0, width, BLOCK):
                there = first + tl.arange(0, BLOCK) < width
                own = keys_of(tl.load(bits + first + tl.arange(0, BLOCK), mask=there, other=0), KEY, BITS, INFINITY)
                counts += digit_counts(own, there, cut, BITS, SHIFT, BLOCK)
        digit, rank = digit_at(counts, rank)
        cut |= digit.to(KEY) << SHIFT
    tl.store(smallest + row, bits_of(cut, BITS).to(smallest.dtype.element_ty))


@triton.jit(do_not_specialize=["start", "stop", "k"])
def _keep_largest(
    offsets: tl.tensor, columns: tl.tensor, bits: tl.tensor, kept: tl.tensor, start: int, stop: int, k: int,
    KEY: tl.constexpr, BITS: tl.constexpr, INFINITY: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    zero = tl.full([], 1 << (BITS - 1), KEY)
    row = tl.program_id(0).to(tl.int64)
    begin = tl.load(offsets + row).to(tl.int64)
    end = tl.load(offsets + row + 1).to(tl.int64)
    cut = tl.full([], 0, KEY)
    rank = k
    for SHIFT in tl.static_range(BITS - 8, -1, -8):
        counts = tl.zeros([256], tl.int32)
        for first in range(begin, end, BLOCK):
            key, own = _listed_keys(columns, bits, first, end, start, stop, KEY, BITS, INFINITY, BLOCK)
            counts += digit_counts(key, own, cut, BITS, SHIFT, BLOCK)
        rank = tl.minimum(rank, tl.sum(counts))  # where there are fewer
        digit, rank = digit_at(counts, rank)
        cut |= digit.to(KEY) << SHIFT
    equal_before = 0
    for first in range(begin, end, BLOCK):
        key, own = _listed_keys(columns, bits, first, end, start, stop, KEY, BITS, INFINITY, BLOCK)
        equal = (own & (key == cut)).to(tl.int32)
        early = equal_before + tl.cumsum(equal, 0) <= rank
        taken = ((key > cut) | ((equal != 0) & early)) & (key > zero)
        tl.store(kept + first + tl.arange(0, BLOCK), taken.to(tl.int8), mask=own)
        equal_before += tl.sum(equal)


@triton.jit
def _listed_keys(
    columns: tl.tensor, bits: tl.tensor, first: tl.tensor, end: tl.tensor, start: int, stop: int, KEY: tl.constexpr,
    BITS: tl.constexpr, INFINITY: tl.constexpr, BLOCK: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor]:  # fmt: skip
    """The keys of the next entries, and which of them are of the columns from start to stop."""
    entry = first + tl.arange(0, BLOCK)
    column = tl.load(columns + entry, mask=entry < end, other=-1)
    own = (column >= start) & (column < stop)
    return keys_of(tl.load(bits + entry, mask=own, other=0), KEY, BITS, INFINITY), own
