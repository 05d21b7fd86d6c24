"""Loops where nothing can be kept on disk, and where the CPU does not pack sixteen numbers at once."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from sae_sweep.kernels import choosing, loops


def test_without_a_folder_to_keep_them_in(monkeypatch: pytest.MonkeyPatch) -> None:
    real, asked = loops.njit, []

    def njit(cache: bool = False, **options: Any) -> Callable[..., Any]:
        asked.append(cache)
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return real(**options)

    monkeypatch.setattr(loops, "njit", njit)

    @loops.compiled
    def total(values: loops.Array) -> float:
        found = 0.0
        for value in values:
            found += value
        return found

    assert total(np.arange(5.0)) == 10
    assert asked == [True, False]
    assert total.nopython_signatures  # type: ignore[attr-defined]


def test_one_number_at_a_time_as_sixteen(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    z_F, bias_F, floor_F = generator.normal(size=(3, 100)).astype(np.float32)
    z_F[[3, 64]] = np.nan, np.inf

    def appended(append: Callable[..., Any]) -> list[list[float]]:
        columns, values = np.full(110, -1, np.int32), np.full(110, np.nan, np.float32)
        count = int(append(z_F, bias_F, floor_F, columns, values, 7))
        return [columns[7:count].tolist(), values[7:count].tolist()]

    (chosen,) = np.nonzero(z_F + bias_F > floor_F)
    expected = [chosen.tolist(), (z_F + bias_F)[chosen].tolist()]
    assert appended(choosing._append) == expected
    monkeypatch.setattr(choosing, "SMALLEST_PACKED", 2**31 - 1)
    assert appended(choosing._append.py_func) == expected
