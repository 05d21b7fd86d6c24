"""Choosing from products z = x W^T of R rows and F columns on a CPU, and nothing but what is chosen is kept.

z is made some rows at a time, each piece in the same room as the last.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from sae_sweep.kernels.entries import Entries, above, joined, largest_of_rows

PIECE_ROWS = 1024
"""Rows at a time. A library's product packs W anew for each piece, which a few hundred rows do not make up for."""


def products_above(x_RD: Tensor, W_FD: Tensor, floor_F: Tensor | float, bias_F: Tensor) -> Entries:
    """List the numbers z + bias above their column's floor, ordered by column in each row."""
    return _found(x_RD, W_FD, lambda z_RF: above(z_RF, floor_F, bias_F))


def largest_products(
    x_RD: Tensor, W_FD: Tensor, widths: Sequence[int], counts: Sequence[int], bias_F: Tensor
) -> Entries:
    """List the largest z + bias of each row, as `largest_of_rows` takes them."""
    return _found(x_RD, W_FD, lambda z_RF: largest_of_rows(z_RF, widths, counts, bias_F))


def _found(x_RD: Tensor, W_FD: Tensor, chosen: Callable[[Tensor], Entries]) -> Entries:
    """What `chosen` says of each piece of z, as entries of the whole."""
    return joined([chosen(z_rF) for z_rF in _pieces(x_RD, W_FD)])


def _pieces(x_RD: Tensor, W_FD: Tensor) -> Iterator[Tensor]:
    """z, some rows at a time; a piece is gone when the next one comes."""
    z_rF = x_RD.new_empty(min(PIECE_ROWS, len(x_RD)), len(W_FD))
    for x_rD in x_RD.split(PIECE_ROWS):
        yield torch.mm(x_rD, W_FD.T, out=z_rF[: len(x_rD)])
