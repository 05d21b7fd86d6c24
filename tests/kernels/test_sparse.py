"""A table larger than a core's cache is read some columns at a time, to the same sums."""

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
