"""Both gradients of a decoding at once, by Triton's interpreter against torch."""

import pytest
import torch

from sae_sweep.kernels.rows import RowSums
from tests.kernels.conftest import Interpret

SIZES = [0, 3, 1, 17, 0, 5]
"""Entries of each latent."""


@pytest.mark.parametrize(
    ("width", "dtype", "table"),
    [(1, torch.float64, torch.float64), (70, torch.float32, torch.float32), (70, torch.float32, torch.bfloat16)],
)
def test_products_and_sums(interpret: Interpret, width: int, dtype: torch.dtype, table: torch.dtype) -> None:
    torch.manual_seed(width)
    entries, spare = sum(SIZES), 4
    came_RD, rows_FD = torch.randn(9, width).to(table), torch.randn(len(SIZES), width, dtype=dtype)
    index_N = torch.cat([torch.randint(9, (entries,)), torch.full((spare,), 10**6)]).int()  # padding is never read
    weight_N = torch.cat([torch.randn(entries, dtype=dtype), torch.full((spare,), torch.nan, dtype=dtype)])
    order_N = torch.cat([torch.randperm(entries), torch.arange(entries, entries + spare)])
    offsets = torch.tensor([0, *SIZES]).cumsum(0).int()
    found = interpret(
        "sae_sweep.kernels.cuda.gathering:products_and_sums", came_RD, rows_FD, index_N, weight_N, order_N, offsets
    )
    latent_N = torch.repeat_interleave(torch.arange(len(SIZES)), torch.tensor(SIZES))
    taken_ND = came_RD.double()[index_N[:entries].long()]
    sums_FD = torch.zeros(len(SIZES), width, dtype=torch.float64)
    sums_FD.index_add_(0, latent_N, weight_N[:entries, None].double() * taken_ND)
    products_N = torch.zeros(entries + spare, dtype=torch.float64)
    products_N[order_N[:entries]] = (taken_ND * rows_FD.double()[latent_N]).sum(1)
    for own, theirs in zip(found, (products_N, sums_FD), strict=True):
        torch.testing.assert_close(own.double(), theirs, rtol=1e-5, atol=1e-5)


def test_a_gradient_that_is_made_joins_another() -> None:
    """Of a member: its rows, and what came another way added to them."""
    made_FD, other_FD = torch.randn(5, 3), torch.randn(5, 3)
    sums, rows = RowSums.made(made_FD), slice(1, 4)
    assert torch.equal(sums.of(0, rows, None).added_FD, made_FD[rows])  # type: ignore[arg-type]
    torch.testing.assert_close(sums.of(0, rows, other_FD).added_FD, made_FD[rows] + other_FD[rows])
    assert sums.of(0, rows, None).offsets.tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("table", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("shared", [True, False])
def test_errors(interpret: Interpret, table: torch.dtype, shared: bool) -> None:
    """Of three tokens and two members."""
    torch.manual_seed(3)
    entries = sum(SIZES)
    rows_FD, bias_MD = torch.randn(9, 140).to(table), torch.randn(2, 140, dtype=torch.float64)
    index_N, weight_N = torch.randint(9, (entries,)).int(), torch.randn(entries, dtype=torch.float64)
    offsets, target_BMD = torch.tensor([0, *SIZES]).cumsum(0).int(), torch.randn(3, 2, 140, dtype=torch.float64)
    target_BMD = target_BMD[:, :1] if shared else target_BMD
    given = (rows_FD, index_N, weight_N, offsets, bias_MD, target_BMD)
    found_BMD = interpret("sae_sweep.kernels.cuda.gathering:errors", *given)
    sums_RD = torch.zeros(6, 140, dtype=torch.float64)
    row_N = torch.repeat_interleave(torch.arange(6), torch.tensor(SIZES))
    sums_RD.index_add_(0, row_N, weight_N[:, None] * rows_FD.double()[index_N.long()])
    torch.testing.assert_close(found_BMD, sums_RD.view(3, 2, 140) + bias_MD - target_BMD)
