"""Means and spreads over seeds, by hand: in pareto.json, in the table, and in what is called better."""

import json
from math import hypot, sqrt
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from sae_sweep.evaluation.metrics import METRICS
from sae_sweep.reporting.paired import matched_frontiers
from sae_sweep.reporting.pareto import cells
from sae_sweep.reporting.points import Point, SweepRecord, read_sweep
from sae_sweep.reporting.report import write_report
from sae_sweep.reporting.seeds import averaged, seed_error, seed_means
from tests.reporting.synthetic import write_many


def point(member: str, twin: str, l0: float, ce: float, **others: Any) -> Point:
    facts = {"architecture": "topk", "variant": None, "width": 64, "knob": "k", "knob_value": 8, "lr": 1e-3, "seed": 0}
    own = {"member": member, "twin": twin, "l0": l0, "ce_recovered": ce, "ce_recovered_se": 0.003, "cell": CELL}
    baselines = {"ce_clean": 3.0, "ce_zero": 9.0, "ce_mean": 8.0}
    return dict.fromkeys(METRICS) | facts | baselines | own | others


CELL: dict[str, Any] = {
    "model": "mine",
    "revision": None,
    "site": {"in": "blocks.1.hook_resid_post", "out": "blocks.1.hook_resid_post"},
    "evaluation": {"data": {"kind": "text"}},
}


def test_means_and_deviations_by_hand() -> None:
    points = [point("a-s0", "a", 8.0, 0.90), point("b-s0", "b", 8.0, 0.7), point("a-s1", "a", 10.0, 0.94)]
    points[2]["kl"] = 0.1
    (told,) = seed_means(points)
    assert told["members"] == ["a-s0", "a-s1"]
    assert "seed" not in told
    assert (told["means"]["l0"], told["means"]["ce_recovered"]) == pytest.approx((9.0, 0.92))
    assert told["deviations"]["ce_recovered"] == pytest.approx(0.02 * sqrt(2))
    assert told["means"]["kl"] is told["deviations"]["kl"] is None, "one seed has none"
    assert seed_error(points[::2], "ce_recovered") == pytest.approx(0.02)
    assert seed_error(points[:1], "ce_recovered") == 0


def test_a_curve_takes_seeds_as_one() -> None:
    points = [point("a-s0", "a", 8.0, 0.90), point("a-s1", "a", 10.0, 0.94), point("b", "b", 32.0, 0.96, trimmed=True)]
    found = averaged([*points, point("c", "c", 2.0, None)], "ce_recovered")  # type: ignore[arg-type]
    assert [(one["member"], one["l0"], one["trimmed"]) for one in found] == [("a-s0", 9.0, False), ("b", 32.0, True)]
    assert found[0]["ce_recovered"] == pytest.approx(0.92)


def test_a_difference_has_the_errors_of_rows_and_of_seeds(tmp_path: Path) -> None:
    one = [point("a-s0", "a", 8.0, 0.90), point("a-s1", "a", 8.0, 0.94)]
    other = [point("b-s0", "b", 8.0, 0.95, ce_recovered_se=0.004), point("b-s1", "b", 8.0, 0.96, ce_recovered_se=0.004)]
    records = [SweepRecord("x", some, [], [], folders={p["member"]: tmp_path for p in some}) for some in (one, other)]
    ((_, y, rows),) = matched_frontiers(records[0], one, records[1], other)
    assert y == "ce_recovered"
    for name, level, mine, theirs, (difference, error) in rows:
        assert (name, level) in (("topk", 8), ("all", 8))
        assert (mine, theirs, difference) == pytest.approx((0.92, 0.955, 0.035))
        of_rows = hypot(0.003 / 2, 0.003 / 2, 0.004 / 2, 0.004 / 2)
        assert error == pytest.approx(hypot(of_rows, 0.02, 0.005))


def test_a_sweep_over_seeds(tmp_path: Path) -> None:
    folder = write_many(tmp_path / "it", architectures=("topk",), seeds=(0, 1, 2), values=(0, 1), lines=3, latents=0)
    console = Console(width=200, record=True)
    write_report(folder, console)
    (cell,) = json.loads((folder / "pareto.json").read_text())["cells"]
    assert [len(group["members"]) for group in cell["seeds"]] == [3, 3]
    assert all("twin" not in point for point in cell["points"])
    values = [point["ce_recovered"] for point in cell["points"] if point["member"] in cell["seeds"][0]["members"]]
    mean = sum(values) / 3
    spread = sqrt(sum((value - mean) ** 2 for value in values) / 2)
    assert cell["seeds"][0]["means"]["ce_recovered"] == pytest.approx(mean)
    said = console.export_text()
    (line,) = [line for line in said.splitlines() if line.startswith("topk-k_12-x16-L6-lr_0.0003 ")]
    assert line.split()[1] == "3"
    assert f"{mean:.4f} ±{spread:.4f}" in line


def test_members_of_one_seed_have_no_means(sweep: Path) -> None:
    assert cells(read_sweep(sweep).points)[0]["seeds"] == []
