"""Choosing from products z = x W^T of R rows and F columns on a CPU, and nothing but what is chosen is kept.

Where a core is by itself and W stays in its cache, a loop makes z a few rows at a time and looks at them at once
(`tiling.py`). Else torch makes z, some rows at a time, in the same room as the last.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from sae_sweep.kernels.cpu import instructions, tiling
from sae_sweep.kernels.cpu.compiling import Array
from sae_sweep.kernels.entries import Entries, above, joined, largest_of_rows, listed, parts_of, room_for
from sae_sweep.kernels.facts import CACHE_BYTES

PIECE_ROWS = 1024
"""Rows at a time. A library's product packs W anew for each piece, which a few hundred rows do not make up for."""


def products_above(x_RD: Tensor, W_FD: Tensor, floor_F: Tensor | float, bias_F: Tensor) -> Entries:
    """The numbers z + bias above their column's floor, ordered by column in each row."""
    if not tiled(x_RD, W_FD):
        return _found(x_RD, W_FD, lambda z_RF: above(z_RF, floor_F, bias_F))
    floor_F = torch.as_tensor(floor_F, dtype=x_RD.dtype).expand(len(W_FD)).contiguous()
    room = room_for(len(x_RD), len(x_RD) * len(W_FD), x_RD.dtype)
    numbers = x_RD.contiguous().numpy(), _panels(W_FD), bias_F.numpy(), floor_F.numpy()
    return listed(room, tiling.products_above(*numbers, room))


def largest_products(
    x_RD: Tensor, W_FD: Tensor, widths: Sequence[int], counts: Sequence[int], bias_F: Tensor
) -> Entries:
    """The largest z + bias of each row, as `largest_of_rows` takes them."""
    if not tiled(x_RD, W_FD):
        return _found(x_RD, W_FD, lambda z_RF: largest_of_rows(z_RF, widths, counts, bias_F))
    room = room_for(len(x_RD), len(x_RD) * len(W_FD), x_RD.dtype)
    numbers = x_RD.contiguous().numpy(), _panels(W_FD), bias_F.numpy()
    return listed(room, tiling.largest_products(*numbers, parts_of(x_RD, widths, counts), room))


def tiled(x_RD: Tensor, W_FD: Tensor) -> bool:
    """Whether the loop is faster: two thirds of the time at d 64 and F 1024, as fast at 1 MB, slower beyond."""
    fits = W_FD.numel() * W_FD.itemsize <= CACHE_BYTES and len(W_FD) * W_FD.itemsize % instructions.PANEL_BYTES == 0
    return instructions.WIDE and fits and torch.get_num_threads() == 1


def _panels(W_FD: Tensor) -> Array:
    width = instructions.PANEL_BYTES // W_FD.itemsize
    panels = torch.empty(len(W_FD) // width, W_FD.shape[1], width, dtype=W_FD.dtype).numpy()
    tiling.fill_panels(W_FD.numpy(), panels)
    return panels


def _found(x_RD: Tensor, W_FD: Tensor, chosen: Callable[[Tensor], Entries]) -> Entries:
    """What `chosen` says of each piece of z, as entries of the whole."""
    return joined([chosen(z_rF) for z_rF in _pieces(x_RD, W_FD)])


def _pieces(x_RD: Tensor, W_FD: Tensor) -> Iterator[Tensor]:
    """z, some rows at a time; a piece is gone when the next one comes."""
    z_rF = x_RD.new_empty(min(PIECE_ROWS, len(x_RD)), len(W_FD))
    for x_rD in x_RD.split(PIECE_ROWS):
        yield torch.mm(x_rD, W_FD.T, out=z_rF[: len(x_rD)])
