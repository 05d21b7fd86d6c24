"""Loops are compiled also where nothing can be kept on disk."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from sae_sweep.kernels import loops


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
