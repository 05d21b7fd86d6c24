"""Sums by held-out row, and paired errors, against a jackknife written out."""

import math
from pathlib import Path

import pytest
import torch

from sae_sweep.evaluation.rows import NAMES, Rows, paired_error, read_rows, write_rows


def rows(**sums: list[float]) -> Rows:
    whole = {name: [0.0] * 3 for name in NAMES} | sums
    return Rows({name: torch.tensor(values, dtype=torch.float64) for name, values in whole.items()})


SHARED = {"tokens": [10.0, 20.0, 10.0], "targets": [9.0, 18.0, 9.0], "ce_clean": [30.0, 40.0, 20.0]}


def jackknife(numerators: list[float], denominators: list[float]) -> float:
    n = len(numerators)
    left = [(sum(numerators) - a) / (sum(denominators) - b) for a, b in zip(numerators, denominators, strict=True)]
    mean = sum(left) / n
    return math.sqrt((n - 1) / n * sum((value - mean) ** 2 for value in left))


def test_a_paired_error_is_of_the_differences_row_by_row() -> None:
    one = rows(**SHARED, ce=[36.0, 50.0, 26.0], ce_zero=[90.0, 180.0, 95.0], l0=[80.0, 160.0, 85.0])
    other = rows(**SHARED, ce=[33.0, 45.0, 22.5], ce_zero=[90.0, 180.0, 95.0], l0=[81.0, 161.0, 85.0])
    pair = [(-1.0, one), (1.0, other)]
    assert paired_error("kl", pair) == 0.0, "none differs in KL"
    assert paired_error("ce_delta", pair) == pytest.approx(jackknife([-3.0, -5.0, -3.5], SHARED["targets"]))
    assert paired_error("ce_recovered", pair) == pytest.approx(jackknife([-3.0, -5.0, -3.5], [60.0, 140.0, 75.0]))
    assert paired_error("l0", pair) == pytest.approx(jackknife([1.0, 1.0, 0.0], SHARED["tokens"]))
    half = [(-1.0, one), (0.5, one), (0.5, other)]
    assert paired_error("ce_delta", half) == pytest.approx(jackknife([-3.0, -5.0, -3.5], SHARED["targets"]) / 2)
    assert paired_error("alive", pair) is None


def test_other_rows_are_not_the_same() -> None:
    one = rows(**SHARED)
    assert one.same(rows(**SHARED | {"ce_clean": [30.0 + 1e-5, 40.0, 20.0]}))
    assert not one.same(rows(**SHARED | {"ce_clean": [40.0, 30.0, 20.0]}))
    assert not one.same(rows(**SHARED | {"tokens": [10.0, 19.0, 11.0]}))


def test_rows_are_read_as_they_were_written(tmp_path: Path) -> None:
    written = rows(**SHARED)
    write_rows(tmp_path, written.sums)
    found = read_rows(tmp_path)
    assert found is not None
    assert all(torch.equal(found.sums[name], written.sums[name]) for name in NAMES)
    (tmp_path / "rows.safetensors").write_bytes(b"damaged")
    assert read_rows(tmp_path) is None
    write_rows(tmp_path / "none", {})
    assert read_rows(tmp_path / "none") is None
