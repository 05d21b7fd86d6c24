"""The numbers that are chosen of a matrix, against masks of it and sorting its rows."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from sae_sweep.kernels import entries as entries_module
from sae_sweep.kernels.entries import (
    Entries,
    above,
    joined,
    kept,
    largest_of_entries,
    largest_of_rows,
    rows_where,
    where,
)

SHAPES = [(1, 1), (3, 5), (4, 8), (7, 64), (0, 8), (64, 99)]
WIDTHS = (33, 5, 26)
DTYPES = [torch.float32, torch.float64]


def numbers(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=dtype)


def matrix(found: Entries, columns: int) -> Tensor:
    """The entries at their places, 0 elsewhere; they are in order, and no place has two."""
    rows = len(found.offsets) - 1
    row_N = torch.repeat_interleave(found.offsets.diff().long())
    flat_N = row_N * columns + found.column_N
    assert found.offsets[0] == 0
    assert found.offsets[-1] == len(found.column_N) == len(found.value_N)
    assert (flat_N.diff() > 0).all()
    return found.value_N.new_zeros(rows * columns).index_put_((flat_N,), found.value_N).view(rows, columns)


def sorted_largest(z_RF: Tensor, widths: Sequence[int], counts: Sequence[int]) -> Tensor:
    """0 but at the largest of each part of each row; of equal ones the first, by a stable sort."""
    parts = []
    for part_RF, count in zip(z_RF.split(list(widths), dim=1), counts, strict=True):
        order_RF = part_RF.sort(dim=1, descending=True, stable=True).indices[:, :count]
        mask_RF = torch.zeros_like(part_RF, dtype=torch.bool).scatter_(1, order_RF, True) & (part_RF > 0)
        parts.append(torch.where(mask_RF, part_RF, 0))
    return torch.cat(parts, dim=1)


@pytest.mark.parametrize("dtype", [*DTYPES, torch.int16, torch.int8])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_above_a_floor(shape: tuple[int, int], dtype: torch.dtype) -> None:
    z_RF = (10 * numbers(*shape)).to(dtype)
    bias_F = (10 * numbers(shape[1] + 1)[1:]).clamp(-60, 60).to(dtype)
    for floor in (-100.0, 0.0, 1.5, 100.0):
        floor_F = (10 * (floor + numbers(shape[1]))).clamp(-127, 127).to(dtype)
        chosen_RF = z_RF > floor_F
        assert torch.equal(matrix(above(z_RF, floor_F), shape[1]), torch.where(chosen_RF, z_RF, 0))
        assert all(map(torch.equal, above(z_RF, floor_F), where(chosen_RF, z_RF)))
        biased = above(z_RF.clamp(-60, 60), floor_F, bias_F)  # whose sums eight bits can hold
        assert all(map(torch.equal, biased, above(z_RF.clamp(-60, 60) + bias_F, floor_F)))
    half = shape[1] // 2  # rows that lie apart
    assert torch.equal(matrix(above(z_RF[:, :half]), half), z_RF[:, :half].clamp(min=0))


def test_what_is_no_number_is_above_nothing() -> None:
    z_RF = torch.tensor([[torch.nan, torch.inf, -torch.inf, 1.0]])
    assert above(z_RF).column_N.tolist() == [1, 3]
    assert largest_of_rows(z_RF, (4,), (1,)).column_N.tolist() == [1]
    assert largest_of_rows(z_RF, (4,), (3,)).column_N.tolist() == [1, 3]


def test_a_row_after_infinities() -> None:
    z_RF = torch.tensor([[torch.inf, torch.inf, -1.0], [2.0, 1.0, 3.0], [torch.inf, 5.0, 4.0]])
    found = largest_of_rows(z_RF, (3,), (2,))
    assert torch.equal(matrix(found, 3), sorted_largest(z_RF, (3,), (2,)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("counts", [(1, 1, 1), (3, 5, 2), (17, 0, 25), WIDTHS])
@pytest.mark.parametrize("kind", ["normal", "whole", "uneven", "negative"])
def test_the_largest_of_each_row(kind: str, counts: tuple[int, ...], dtype: torch.dtype) -> None:
    """Where the row before is no guide too: rows of very different size, and rows with hardly any above 0."""
    z_RF = numbers(40, sum(WIDTHS), dtype=dtype)
    if kind == "whole":
        z_RF = z_RF.round()
    elif kind == "uneven":
        z_RF *= 10.0 ** torch.arange(-20, 20)[:, None][torch.randperm(40, generator=torch.Generator().manual_seed(0))]
    elif kind == "negative":
        z_RF[::2] = -z_RF[::2].abs()
        z_RF[::4, 3] = 1e-30
    expected_RF = sorted_largest(z_RF, WIDTHS, counts)
    assert torch.equal(matrix(largest_of_rows(z_RF, WIDTHS, counts), z_RF.shape[1]), expected_RF)
    bias_F = numbers(sum(WIDTHS), dtype=dtype)
    biased = largest_of_rows(z_RF, WIDTHS, counts, bias_F)
    assert all(map(torch.equal, biased, largest_of_rows(z_RF + bias_F, WIDTHS, counts)))
    everything = where(torch.ones_like(z_RF, dtype=torch.bool), z_RF)
    assert torch.equal(matrix(largest_of_entries(everything, WIDTHS, counts), z_RF.shape[1]), expected_RF)


@pytest.mark.parametrize("listed_share", [0.0, 0.02, 0.3])
def test_the_largest_among_some_entries(listed_share: float) -> None:
    z_RF = numbers(40, sum(WIDTHS))
    listed_RF = torch.rand(z_RF.shape, generator=torch.Generator().manual_seed(1)) < listed_share
    found = largest_of_entries(where(listed_RF, z_RF), WIDTHS, (4, 2, 1))
    expected_RF = sorted_largest(torch.where(listed_RF, z_RF, -torch.inf), WIDTHS, (4, 2, 1))
    assert torch.equal(matrix(found, z_RF.shape[1]), expected_RF)


@pytest.mark.parametrize("inclusive", [False, True])
def test_entries_that_are_kept(inclusive: bool) -> None:
    z_RF, floor_F = numbers(9, 12).round(), numbers(12).round()
    entries = above(z_RF, -100.0)
    chosen_RF = z_RF >= floor_F if inclusive else z_RF > floor_F
    before = [each.clone() for each in entries]
    assert all(map(torch.equal, kept(entries, floor_F, inclusive), where(chosen_RF, z_RF)))
    assert all(map(torch.equal, entries, before))


@pytest.mark.parametrize("rows", ["none", "some", "all"])
def test_some_of_the_rows(rows: str) -> None:
    z_RF = numbers(7, 64)
    z_RF[2] = -1  # a row without entries
    chosen_R = {"none": torch.zeros(7), "some": torch.arange(7) % 3 != 1, "all": torch.ones(7)}[rows].bool()
    found = rows_where(chosen_R, above(z_RF))
    assert found.offsets.dtype == above(z_RF).offsets.dtype
    assert torch.equal(matrix(found, 64), z_RF[chosen_R].relu())


@pytest.mark.parametrize("narrow", [2**31 - 1, 50])
def test_pieces_are_joined(narrow: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With more entries than int32 counts, in int64."""
    monkeypatch.setattr(entries_module, "NARROW", narrow)
    z_RF = numbers(23, 10)
    whole = joined([above(piece_RF) for piece_RF in z_RF.split(5)])
    assert torch.equal(matrix(whole, 10), z_RF.clamp(min=0))
    assert whole.offsets.dtype == whole.column_N.dtype == (torch.int32 if len(whole.value_N) <= narrow else torch.int64)
