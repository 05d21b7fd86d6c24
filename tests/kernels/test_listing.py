"""Lists in a room of fixed length, and updates by row, by Triton's interpreter against torch."""

from typing import Any

import pytest
import torch
from torch import Tensor

from sae_sweep.kernels import entries
from sae_sweep.kernels.entries import Room, above_within
from tests.kernels.conftest import Interpret

LISTING = "sae_sweep.kernels.cuda.listing"


def floors(z_RF: Tensor, kind: str) -> Tensor:
    rows, width = z_RF.shape
    shape = {"one": (), "columns": (width,), "rows": (rows, 1)}[kind]
    return torch.randn(shape, generator=torch.Generator().manual_seed(3)).to(z_RF.dtype)


@pytest.mark.parametrize("kind", ["one", "columns", "rows"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.int16])
@pytest.mark.parametrize("shape", [(1, 1), (5, 70), (3, 4500)], ids=str)
def test_what_is_above(interpret: Interpret, kind: str, dtype: torch.dtype, shape: tuple[int, int]) -> None:
    z_RF = (3 * torch.randn(shape, generator=torch.Generator().manual_seed(1))).to(dtype)
    if dtype.is_floating_point:
        z_RF[0, 0] = torch.nan
    floor = floors(z_RF, kind)
    counts_R = interpret(f"{LISTING}:counts_above", z_RF, floor)
    chosen_RF = z_RF > floor
    assert torch.equal(counts_R, chosen_RF.sum(1))
    for room in (int(counts_R.sum()) + 9, max(1, int(counts_R.sum()) - 3), 1):
        theirs = Room(room, torch.tensor(False))
        expected = above_within(z_RF, floor, theirs)
        columns_N, value_N = interpret(f"{LISTING}:write_above", z_RF, floor, expected.offsets, room)
        assert torch.equal(columns_N, expected.column_N)
        assert torch.equal(value_N, expected.value_N)
        places_N = chosen_RF.nonzero()[:room]
        assert torch.equal(columns_N[: len(places_N)].long(), places_N[:, 1])
        assert (columns_N[len(places_N) :] == shape[1] - 1).all()
        assert not value_N[len(places_N) :].any()
        assert int(expected.offsets[-1]) == len(places_N)
        assert bool(theirs.lost) == (int(counts_R.sum()) > room)


def test_rows_that_lie_apart(interpret: Interpret) -> None:
    z_RF = torch.randn(6, 40)[:, 7:30]
    assert torch.equal(interpret(f"{LISTING}:counts_above", z_RF, torch.zeros(())), (z_RF > 0).sum(1))


def test_cuda_lists_are_tritons(monkeypatch: pytest.MonkeyPatch) -> None:
    from sae_sweep.kernels.cuda import listing

    asked: list[Any] = []
    monkeypatch.setattr(entries, "on_triton", lambda tensor: True)
    monkeypatch.setattr(listing, "counts_above", lambda z, floor: asked.append("counted") or (z > floor).sum(1))
    monkeypatch.setattr(listing, "write_above", lambda *given: asked.append("written") or (given[3], None))
    assert above_within(torch.ones(2, 3), torch.zeros(()), Room(6, torch.tensor(False))).column_N == 6
    assert asked == ["counted", "written"]
