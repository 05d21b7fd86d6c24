"""Lists in a room of fixed length, and updates by row, by Triton's interpreter against torch."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from sae_sweep.kernels import entries
from sae_sweep.kernels.entries import Entries, Room, above_within, kept_within
from sae_sweep.kernels.selection import largest_of_lists
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


def listed(sizes: list[int], last: int) -> tuple[Entries, Tensor]:
    """Entries of rows of these sizes and padding after them, and which are kept."""
    generator = torch.Generator().manual_seed(5)
    offsets = torch.tensor([0, *sizes]).cumsum(0).int()
    count, spare = int(offsets[-1]), 6
    rows = [torch.randperm(last + 1, generator=generator)[:size].sort().values for size in sizes]
    column_N = torch.cat([*rows, torch.full((spare,), last)]).int()
    value_N = torch.randn(count + spare, generator=generator).round(decimals=1)
    return Entries(offsets, column_N, value_N), torch.rand(count + spare, generator=generator) < 0.4


SIZES = [0, 3, 300, 0, 1, 40, 0]


@pytest.mark.parametrize("room", [400, 100, 1])
def test_what_is_kept(interpret: Interpret, room: int) -> None:
    entries, kept_N = listed(SIZES, 399)
    theirs = Room(room, torch.tensor(False))
    expected = kept_within(entries, kept_N, theirs, 399)
    rows = entries.offsets.tolist()
    wanted = [int(kept_N[a:b].sum()) for a, b in itertools.pairwise(rows)]
    assert interpret(f"{LISTING}:counts_kept", entries.offsets, kept_N).tolist() == wanted
    assert expected.offsets.tolist() == [min(room, sum(wanted[:i])) for i in range(len(wanted) + 1)]
    assert bool(theirs.lost) == (sum(wanted) > room)
    found = interpret(f"{LISTING}:write_kept", *entries, kept_N, expected.offsets, room, 399)
    assert all(map(torch.equal, found, expected[1:]))
    count = rows[-1]
    places_N = kept_N[:count].nonzero().squeeze(1)[:room]
    assert torch.equal(found[1][: len(places_N)], entries.value_N[places_N])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_largest_of_lists(interpret: Interpret, dtype: torch.dtype) -> None:
    """Against a sort of each row, with equal numbers, parts of the columns, and rows with fewer than are wanted."""
    entries, _ = listed(SIZES, 399)
    entries = entries._replace(value_N=entries.value_N.to(dtype))
    parts, counts = [slice(0, 150), slice(150, 400)], [4, 2]
    expected = torch.zeros(len(entries.value_N), dtype=torch.bool)
    for begin, end in itertools.pairwise(entries.offsets.tolist()):
        for part, count in zip(parts, counts, strict=True):
            own = [n for n in range(begin, end) if part.start <= entries.column_N[n] < part.stop]
            own.sort(key=lambda n: (-float(entries.value_N[n]), n))
            expected[[n for n in own[:count] if entries.value_N[n] > 0]] = True
    there_N = torch.arange(len(expected)) < entries.offsets[-1]
    assert torch.equal(largest_of_lists(entries, parts, counts) & there_N, expected)
    found = interpret("tests.kernels.interpreted:kept_largest", entries, parts, counts)
    assert torch.equal(found & there_N, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("width", [1, 70, 4500])
def test_the_smallest_of_the_largest(interpret: Interpret, dtype: torch.dtype, width: int) -> None:
    z_RF = (5 * torch.randn(3, width, generator=torch.Generator().manual_seed(2))).round(decimals=1).to(dtype)
    for k in {1, (width + 1) // 2, width}:
        expected = z_RF.float().topk(k, dim=1).values[:, -1].to(dtype)
        for whole in (2**15, 32):  # in one piece, or in several
            assert torch.equal(interpret("sae_sweep.kernels.cuda.ranking:row_smallest", z_RF, k, WHOLE=whole), expected)
