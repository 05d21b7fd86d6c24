"""The n-th largest of many numbers is what sorting says, also where the sample it guesses from misleads."""

import pytest
import torch
from torch import Tensor

from sae_sweep.kernels import selection
from sae_sweep.kernels.selection import smallest_of_largest


def numbers(kind: str, rows: int, columns: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(rows, columns, generator=generator)
    if kind == "many ties":
        return (2 * values).round()
    if kind == "all the same":
        return torch.ones(rows, columns)
    if kind == "ascending":
        return torch.arange(rows * columns, dtype=torch.float32).view(rows, columns)
    if kind == "misleading":  # what the sample meets is larger than all else, or smaller
        flat = values.view(-1)
        flat[:: len(flat) // selection.SAMPLE | 1] += 100
        return values
    return values


@pytest.mark.parametrize("share", [1e-4, 0.01, 0.5, 0.999])
@pytest.mark.parametrize("kind", ["normal", "many ties", "all the same", "ascending", "misleading"])
@pytest.mark.parametrize(("rows", "columns"), [(7, 11), (300, 700)])
def test_as_by_sorting(kind: str, rows: int, columns: int, share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "SAMPLE", 2**12)
    for values in (numbers(kind, rows, columns), -numbers(kind, rows, columns)):
        count = max(1, round(share * rows * columns))
        expected = values.flatten().sort(descending=True).values[count - 1]
        assert smallest_of_largest(values, count) == expected
        assert smallest_of_largest(values[:, : columns // 2], 1) == values[:, : columns // 2].max()


def test_as_many_as_there_are_and_more() -> None:
    values = numbers("normal", 3, 4)
    assert smallest_of_largest(values, 12) == values.min()
    assert smallest_of_largest(values, 13) == -torch.inf
