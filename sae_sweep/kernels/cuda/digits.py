"""The digits of floats in Triton, for selecting by them (`selection.py`)."""

from typing import NamedTuple

import torch
import triton
import triton.language as tl


class Format(NamedTuple):
    """How a dtype's bits are read: as which integers, in keys of which type, how many, and those of infinity."""

    integer: torch.dtype
    key: tl.dtype
    bits: int
    infinity: int


FORMATS = {
    torch.float16: Format(torch.int16, tl.uint32, 16, 0x7C00),
    torch.bfloat16: Format(torch.int16, tl.uint32, 16, 0x7F80),
    torch.float32: Format(torch.int32, tl.uint32, 32, 0x7F800000),
    torch.float64: Format(torch.int64, tl.uint64, 64, 0x7FF0000000000000),
}


@triton.jit
def keys_of(integers: tl.tensor, KEY: tl.constexpr, BITS: tl.constexpr, INFINITY: tl.constexpr) -> tl.tensor:
    """Keys of floats whose bits are given as signed integers."""
    TOP: tl.constexpr = 1 << (BITS - 1)
    ONES: tl.constexpr = (1 << BITS) - 1
    bits = integers.to(KEY) & ONES  # without the sign that widening repeats
    magnitude = bits & (TOP - 1)
    key = tl.where((bits & TOP) != 0, bits ^ ONES, bits | TOP)
    key = tl.where(magnitude == 0, tl.full([], TOP, KEY), key)
    return tl.where(magnitude > INFINITY, tl.full([], ONES, KEY), key)


@triton.jit
def bits_of(key: tl.tensor, BITS: tl.constexpr) -> tl.tensor:
    """The bits of the float with this key."""
    TOP: tl.constexpr = 1 << (BITS - 1)
    ONES: tl.constexpr = (1 << BITS) - 1
    return tl.where((key & TOP) != 0, key ^ TOP, key ^ ONES)


@triton.jit
def digit_counts(
    key: tl.tensor, inside: tl.tensor, cut: tl.tensor, BITS: tl.constexpr, SHIFT: tl.constexpr, BLOCK: tl.constexpr
) -> tl.tensor:
    """[256]: how many of the keys that agree with the cut above this digit have each value of it."""
    ABOVE: tl.constexpr = ((1 << BITS) - 1) ^ ((1 << (SHIFT + 8)) - 1)
    agrees = inside & ((key & ABOVE) == cut)
    digits = tl.where(agrees, (key >> SHIFT) & 255, 0).to(tl.int32)
    others = BLOCK - tl.sum(agrees.to(tl.int32))  # counted as 0: the histogram takes no mask before Triton 3.3
    return tl.histogram(digits, 256) - tl.where(tl.arange(0, 256) == 0, others, 0)


@triton.jit
def digit_at(counts: tl.tensor, rank: tl.tensor) -> tuple[tl.tensor, tl.tensor]:
    """The digit of the rank-th largest key, and its rank among those with this digit."""
    from_here_up = tl.sum(counts) - tl.cumsum(counts, 0) + counts
    digit = tl.sum((from_here_up >= rank).to(tl.int32)) - 1
    return digit, rank - tl.sum(tl.where(tl.arange(0, 256) > digit, counts, 0))


def warps(block: int) -> int:
    """Of a program that takes so many numbers at once."""
    return 8 if block >= 2048 else 4
