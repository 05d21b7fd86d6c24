"""The table of scripts/bench/recipes.py, from points by hand."""

from typing import Any

import pytest

from scripts.bench.recipes import summary, text


def point(seed: int, l0: float | None, ce: float, **own: Any) -> dict[str, Any]:
    facts = {"architecture": "gated", "lr": 0.012, "knob_value": 16.0, "seed": seed, **own}
    return {**facts, "l0_untrimmed": l0, "ce_recovered": ce, "fvu": 0.1, "gamma": 1.0, "dead_fraction": 0.0}


def test_seeds_are_one_row_with_their_spread() -> None:
    points = [point(0, 15.0, 0.94), point(1, 17.0, 0.96), point(0, None, 0.95, architecture="topk")]
    gated, topk = summary(points)
    assert (gated["architecture"], gated["seeds"], gated["l0"], gated["l0_untrimmed"]) == ("gated", 2, 16.0, 16.0)
    assert gated["ce_recovered"] == pytest.approx(0.95)
    assert gated["ce_recovered_sd"] == pytest.approx(0.02 / 2**0.5)
    assert (topk["l0_untrimmed"], topk["ce_recovered_sd"]) == (None, None)
    assert text(gated) == "| gated | 0.012 | 16 | 16.00 | 0.9500 ±0.0141 | 0.100 | 1.00 | 0.000 |"
    assert text(topk) == "| topk | 0.012 | 16 | - | 0.9500 | 0.100 | 1.00 | 0.000 |"
