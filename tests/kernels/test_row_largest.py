"""The largest of each row of a sparse matrix, against sorting the row."""

import pytest
import torch
from torch import Tensor

from sae_sweep.kernels.places import true_places
from sae_sweep.kernels.selection import row_largest

ROWS, COLUMNS = 40, 64


def sorted_largest(z_BF: Tensor, count: int) -> Tensor:
    """[B, F] bool, by a stable sort of each row."""
    order_BF = z_BF.sort(dim=1, descending=True, stable=True).indices[:, :count]
    return torch.zeros_like(z_BF, dtype=torch.bool).scatter_(1, order_BF, True) & (z_BF > 0)


def listed(z_BF: Tensor, chosen_BF: Tensor) -> tuple[Tensor, Tensor]:
    flat_N = true_places(chosen_BF)
    return flat_N, z_BF.view(-1).index_select(0, flat_N)


@pytest.mark.parametrize("count", [1, 3, 17, COLUMNS])
@pytest.mark.parametrize("listed_share", [0.0, 0.02, 0.3, 1.0])
def test_the_largest_of_each_row_are_found_among_its_entries(count: int, listed_share: float) -> None:
    generator = torch.Generator().manual_seed(count)
    z_BF = torch.randn(ROWS, COLUMNS, generator=generator)
    chosen_BF = torch.rand(ROWS, COLUMNS, generator=generator) < listed_share  # of some rows fewer than count
    flat_N, z_N = listed(z_BF, chosen_BF)
    expected_BF = sorted_largest(torch.where(chosen_BF, z_BF, -torch.inf), count)
    found_N = row_largest(flat_N, COLUMNS, z_N, count, ROWS)
    assert torch.equal(found_N, expected_BF.view(-1).index_select(0, flat_N))


@pytest.mark.parametrize("count", [2, 5])
def test_of_equal_numbers_no_more_are_taken_than_there_is_room_for(count: int) -> None:
    z_BF = torch.randint(-1, 3, (ROWS, COLUMNS), generator=torch.Generator().manual_seed(0)).float()
    flat_N, z_N = listed(z_BF, torch.ones_like(z_BF, dtype=torch.bool))
    found_BF = row_largest(flat_N, COLUMNS, z_N, count, ROWS).view(ROWS, COLUMNS)
    assert torch.equal(found_BF.sum(1), (z_BF > 0).sum(1).clamp(max=count))
    for row_F, found_F in zip(z_BF, found_BF, strict=True):
        assert torch.equal(row_F[found_F].sort().values, row_F.sort().values[-count:])
