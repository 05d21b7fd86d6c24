"""frontiers.py: what is kept of several seeds, and what is made of them."""

import json
from pathlib import Path
from typing import Any

import pytest

from scripts.bench import frontiers as script
from scripts.bench.common_ground import Point
from scripts.bench.measure import ROOT
from scripts.bench.sweeps import OURS, SAELENS, Sweep


def points(*pairs: tuple[float, float]) -> list[Point]:
    return [{"member": f"{l0:g}", "l0": l0, "ce_recovered": recovered} for l0, recovered in pairs]


SEEDS = {
    "0": {OURS: points((4, 0.8), (64, 0.9)), SAELENS: points((4, 0.7), (64, 0.9))},
    "1": {OURS: points((4, 0.6), (64, 0.9)), SAELENS: points((4, 0.7), (64, 0.7))},
}


def test_each_seed_has_a_frontier_of_its_own() -> None:
    rows = script.matched(SEEDS)
    assert [row["l0"] for row in rows] == pytest.approx([4, 8, 16, 32, 64])
    assert rows[0] == {"l0": 4, OURS: [0.8, 0.6], SAELENS: [0.7, 0.7]}
    assert rows[2][OURS] == pytest.approx([0.85, 0.75])


def test_a_side_that_some_seed_lacks_is_not_compared() -> None:
    seeds = {**SEEDS, "2": {OURS: SEEDS["0"][OURS], "dictionary_learning": SEEDS["0"][SAELENS]}}
    assert all(set(row) == {"l0", OURS} for row in script.matched(seeds))


def test_the_table_has_means_and_the_lowest_and_highest(capsys: pytest.CaptureFixture[str]) -> None:
    script.print_frontiers({"topk": {"seeds": SEEDS, "matched": script.matched(SEEDS)}})
    first = next(line for line in capsys.readouterr().out.splitlines() if "0.7000 (0.6000 to 0.8000)" in line)
    assert "0.7000 (0.7000 to 0.7000)" in first
    assert "+0.0000" in first


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Which seeds were trained, in place of training them."""
    asked: list[tuple[str, int]] = []

    def points_of(sweep: Sweep, sides: list[str], work: Path) -> dict[str, list[Point]]:
        asked.append((sweep.architecture, sweep.seed))
        return {side: SEEDS["0"][side] for side in sides}

    monkeypatch.setattr(script, "points_of", points_of)
    return asked


def ask(out: Path, *arguments: str) -> dict[str, Any]:
    common = ("--only", "topk", "--model", "demo", "--peers", SAELENS, "--out", str(out))
    assert script.main([*common, *arguments]) == 0
    return dict(json.loads(out.read_text(encoding="utf-8"))["architectures"]["topk"])


def test_seeds_are_added_to_those_of_the_same_settings(tmp_path: Path, trained: list[tuple[str, int]]) -> None:
    out = tmp_path / "frontiers.json"
    ask(out, "--seeds", "0,1")
    assert list(ask(out, "--seeds", "5")["seeds"]) == ["0", "1", "5"]
    assert len(ask(out, "--seeds", "1")["matched"][0][OURS]) == 3
    assert list(ask(out, "--seeds", "1", "--tokens", "5e5")["seeds"]) == ["1"]
    assert trained == [("topk", seed) for seed in (0, 1, 5, 1, 1)]


@pytest.mark.evidence
def test_our_members_of_two_seeds_are_trained_and_judged(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    files = sorted((ROOT / "sae_sweep" / "training").glob("*.py"))
    text.write_text("\n".join(file.read_text(encoding="utf-8") for file in files), encoding="utf-8")
    out = tmp_path / "frontiers.json"
    arguments = ["--quick", "--no-peers", "--only", "topk", "--model", "demo", "--text", str(text), "--out", str(out)]
    assert script.main([*arguments, "--seeds", "0,1"]) == 0
    seeds = json.loads(out.read_text(encoding="utf-8"))["architectures"]["topk"]["seeds"]
    first, second = (seeds[seed][OURS] for seed in ("0", "1"))
    assert sorted(point["l0"] for point in first) == pytest.approx([6, 16])
    assert [point["member"] for point in first] == [point["member"] for point in second]
    assert [point["fvu"] for point in first] != [point["fvu"] for point in second]
