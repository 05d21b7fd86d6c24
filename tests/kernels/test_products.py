"""What is chosen of products is what is chosen of all of them."""

import pytest
import torch

from sae_sweep.kernels.cpu import instructions, products
from sae_sweep.kernels.cpu.products import largest_products, products_above, tiled
from sae_sweep.kernels.entries import above, largest_of_rows
from tests.kernels.test_entries import DTYPES, matrix, numbers

SHAPES = [(700, 7, 256), (6, 1, 64), (2, 30, 128), (0, 3, 64)]
"""Rows, depth and columns. Tiles are of 6 rows, and a piece of tiles is of 252 where there are 256 columns."""


@pytest.fixture(params=[True, False], ids=["tiles", "pieces"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "tiled", lambda x_RD, W_FD: request.param)
    monkeypatch.setattr(products, "PIECE_ROWS", 100)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_as_of_the_whole_product(shape: tuple[int, int, int], dtype: torch.dtype, transposed: bool) -> None:
    """In whole numbers, of which every order of adding makes the same."""
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


def test_where_tiles_are_faster() -> None:
    """On one core with AVX-512, where W fits its cache and is whole panels."""
    x_RD, before = torch.ones(8, 64), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        assert tiled(x_RD, torch.ones(1024, 64)) is instructions.WIDE
        assert not tiled(x_RD, torch.ones(1000, 64))
        assert not tiled(x_RD, torch.ones(8192, 64))
        torch.set_num_threads(2)
        assert not tiled(x_RD, torch.ones(1024, 64))
    finally:
        torch.set_num_threads(before)
