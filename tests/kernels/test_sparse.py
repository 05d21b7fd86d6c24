"""Sums and products at chosen places, and what may change nothing in them: columns at a time, the number of cores."""

from collections.abc import Iterator

import pytest
import torch

from sae_sweep.kernels import sparse


@pytest.mark.parametrize("columns", [1, 64, 150])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_columns_at_a_time_change_no_bit(columns: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    table_KD = torch.randn(30, columns, generator=generator, dtype=dtype)
    counts_S = torch.tensor([0, 5, 90, 1, 0, 400])  # empty bags, and one longer than the table
    index_N = torch.randint(30, (int(counts_S.sum()),), generator=generator)
    weight_N = torch.randn(len(index_N), generator=generator, dtype=dtype)
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), counts_S.cumsum(0)])
    whole_SD = sparse.weighted_row_sums(table_KD, index_N, weight_N, offsets)
    monkeypatch.setattr(sparse, "CACHE_BYTES", 0)
    read = []
    bags = sparse._bags
    monkeypatch.setattr(sparse, "_bags", lambda part_Kc, *of: read.append(part_Kc.shape[1]) or bags(part_Kc, *of))
    parted_SD = sparse.weighted_row_sums(table_KD, index_N, weight_N, offsets)
    assert read == [min(64, columns - first) for first in range(0, columns, 64)]
    assert torch.equal(whole_SD, parted_SD)
    dense_SK = torch.zeros(len(counts_S), 30, dtype=dtype)
    row_N = torch.arange(len(counts_S)).repeat_interleave(counts_S)
    dense_SK.index_put_((row_N, index_N), weight_N, accumulate=True)
    torch.testing.assert_close(parted_SD, dense_SK @ table_KD, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("integer", [torch.int32, torch.int64])
@pytest.mark.parametrize("shape", [(1, 1), (7, 13), (40, 3), (3, 40)], ids=str)
def test_entries_by_column(shape: tuple[int, int], integer: torch.dtype) -> None:
    rows, columns = shape
    generator = torch.Generator().manual_seed(rows)
    chosen_RF = torch.rand(rows, columns, generator=generator) < 0.4
    chosen_RF[rows // 2] = chosen_RF[:, columns // 2] = False
    row_N, column_N = chosen_RF.nonzero().unbind(1)
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), chosen_RF.sum(1).cumsum(0)])
    by_column, order_N, row_of_each_N = sparse.transposed(offsets.to(integer), column_N.to(integer), columns)
    assert by_column.diff().tolist() == chosen_RF.sum(0).tolist()
    assert order_N.tolist() == column_N.sort(stable=True).indices.tolist()
    assert torch.equal(row_of_each_N.long(), row_N[order_N.long()])
    values_N = torch.randn(len(row_N), generator=generator, dtype=torch.float64)
    ordered_N, sums = sparse.ordered_sums(values_N.requires_grad_(), order_N, by_column)
    assert torch.equal(ordered_N, values_N.detach()[order_N.long()])
    expected = torch.zeros(columns, dtype=torch.float64).index_add_(0, column_N, values_N.detach())
    torch.testing.assert_close(sums, expected, rtol=1e-12, atol=1e-12)


@pytest.fixture(params=[1, 2], ids=["one core", "two cores"])
def cores(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("integer", [torch.int32, torch.int64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("width", [1, 16, 37])
@torch.no_grad()
def test_products_at_chosen_places(width: int, dtype: torch.dtype, integer: torch.dtype, cores: int) -> None:
    generator = torch.Generator().manual_seed(width)
    left_RD, other_DR = (torch.randn(*shape, generator=generator, dtype=dtype) for shape in ((6, width), (width, 6)))
    right_FD = torch.randn(9, width, generator=generator, dtype=dtype, requires_grad=True)
    chosen_RF = torch.rand(6, 9, generator=generator) < 0.4
    chosen_RF[0] = chosen_RF[3] = False
    row_N, column_N = chosen_RF.nonzero().unbind(1)
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), chosen_RF.sum(1).cumsum(0)]).to(integer)
    where = column_N.to(integer), offsets
    pairs = sparse.sampled_pairs(left_RD, other_DR.T, right_FD, *where)  # the second one's columns are far apart
    for left, found_N in zip((left_RD, other_DR.T), pairs, strict=True):
        expected_N = (left.double() @ right_FD.double().T)[row_N, column_N]
        for products_N in (found_N, sparse.sampled_products(left, right_FD, *where)):
            assert products_N.dtype == dtype
            torch.testing.assert_close(products_N.double(), expected_N, rtol=1e-5, atol=1e-5)


def test_no_products_at_no_places(cores: int) -> None:
    nothing, offsets = torch.empty(0, dtype=torch.int64), torch.zeros(3, dtype=torch.int64)
    for found_N in sparse.sampled_pairs(torch.ones(2, 4), torch.ones(2, 4), torch.ones(5, 4), nothing, offsets):
        assert found_N.shape == (0,)
