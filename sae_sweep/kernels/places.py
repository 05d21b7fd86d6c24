"""Where a few of many numbers are: what `nonzero` answers, several times faster on a CPU.

Numbers are looked at eight bytes at a time first, and one at a time only where that found something. numpy lists the
places: of 2M booleans, 3% of them true, in 0.5 ms on one core where torch takes 1.8 (0.2 and 1.3 for 0.4%).
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

_SIGNS = 0x8000_8000_8000_8000 - 2**64
"""The signs of four 16-bit integers, as one of 64."""


def true_places(mask: Tensor) -> Tensor:
    """[N] int64: where a mask is true, in the flattened matrix, ascending."""
    flat = mask.reshape(-1)
    if mask.device.type != "cpu" or len(flat) % 8:
        return _listed(flat)
    return _in_words(flat.view(torch.int64), lambda words: words != 0, torch.bool, lambda part: part)


def positive_places(bits: Tensor) -> Tensor:
    """[N] int64: where 16-bit integers have no sign, in the flattened matrix, ascending."""
    flat = bits.reshape(-1)
    if bits.device.type != "cpu" or len(flat) % 4:
        return _listed(flat >= 0)
    words, some = flat.view(torch.int64), lambda words: words & _SIGNS != _SIGNS
    return _in_words(words, some, torch.int16, lambda part: part >= 0)


def _in_words(
    words: Tensor, some: Callable[[Tensor], Tensor], dtype: torch.dtype, chosen: Callable[[Tensor], Tensor]
) -> Tensor:
    """The places of the parts that are chosen, in words of which `some` says whether any of their parts is."""
    word_K = _listed(some(words))
    parts = words.index_select(0, word_K).view(dtype)
    place_N = _listed(chosen(parts))
    shift = (8 // dtype.itemsize).bit_length() - 1
    return (word_K.index_select(0, place_N >> shift) << shift) + (place_N & ((1 << shift) - 1))


def _listed(mask_N: Tensor) -> Tensor:
    if mask_N.device.type == "cpu":
        return torch.from_numpy(np.flatnonzero(mask_N.numpy()))
    return mask_N.nonzero().squeeze(1)
