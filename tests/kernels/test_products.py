"""What is chosen of products is what is chosen of all of them."""

import pytest
import torch

from sae_sweep.kernels.cpu import products
from sae_sweep.kernels.cpu.products import largest_products, products_above
from sae_sweep.kernels.entries import above, largest_of_rows
from tests.kernels.test_entries import DTYPES, matrix, numbers

SHAPES = [(250, 7, 256), (6, 1, 64), (0, 3, 64)]
"""Rows, depth and columns."""


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_as_of_the_whole_product(
    shape: tuple[int, int, int], dtype: torch.dtype, transposed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In whole numbers, of which every order of adding makes the same; in three pieces where rows are many."""
    monkeypatch.setattr(products, "PIECE_ROWS", 100)
    rows, depth, columns = shape
    x_RD, W_FD = ((2 * numbers(size, depth, dtype=dtype)).round() for size in (rows, columns))
    if transposed:
        x_RD, W_FD = x_RD.T.contiguous().T, W_FD.T.contiguous().T
    bias_F, floor_F = (numbers(columns + more, dtype=dtype)[more:].round() for more in (1, 2))
    z_RF = x_RD @ W_FD.T
    found = products_above(x_RD, W_FD, floor_F, bias_F)
    assert torch.equal(matrix(found, columns), matrix(above(z_RF, floor_F, bias_F), columns))
    widths, counts = (24, columns - 24), (5, 20)
    found = largest_products(x_RD, W_FD, widths, counts, bias_F)
    assert torch.equal(matrix(found, columns), matrix(largest_of_rows(z_RF, widths, counts, bias_F), columns))
