"""Where compiled loops are kept, if at all; what is left of compiling them; and CPUs that pack no numbers."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sae_sweep.kernels.cpu import choosing, compiling

ROOT = Path(__file__).parents[2]


def test_without_a_folder_to_keep_them_in(monkeypatch: pytest.MonkeyPatch) -> None:
    real, asked = compiling.njit, []

    def njit(cache: bool = False, **options: Any) -> Callable[..., Any]:
        asked.append(cache)
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return real(**options)

    monkeypatch.setattr(compiling, "njit", njit)

    @compiling.compiled
    def total(values: compiling.Array) -> float:
        found = 0.0
        for value in values:
            found += value
        return found

    assert total(np.arange(5.0)) == 10
    assert asked == [True, False]
    assert total.nopython_signatures  # type: ignore[attr-defined]


def test_kept_by_what_all_files_say(tmp_path: Path) -> None:
    """A loop that has not changed may call one that has."""
    (tmp_path / "caller.py").write_text("from called import double")
    (tmp_path / "called.py").write_text("double = 2")
    before = compiling.kept_in(tmp_path, "")
    assert before.parent == tmp_path / "__pycache__"
    assert compiling.kept_in(tmp_path, "/elsewhere") == Path("/elsewhere", before.name)
    (tmp_path / "called.py").write_text("double = 3")
    assert compiling.kept_in(tmp_path, "").name != before.name
    (tmp_path / "called.py").write_text("double = 2")
    assert compiling.kept_in(tmp_path, "") == before


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


FIRST_CALL = """
import gc, weakref
import torch
from sae_sweep.kernels.entries import largest_of_rows

def caller():
    z_RF = torch.ones(4, 64)
    largest_of_rows(z_RF, [64], [2])
    return weakref.ref(z_RF)

gc.disable()
print("kept" if caller()() is not None else "gone")
"""


def test_compiling_keeps_nothing_of_its_callers(tmp_path: Path) -> None:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", FIRST_CALL]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, cwd=ROOT)
    assert any(tmp_path.glob("loops-*/**/*.nbc")), "nothing was kept there"
    assert done.stdout == "gone\n"
