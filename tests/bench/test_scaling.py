"""scaling.py: a run at tiny sizes, and where its ratios and peaks come from."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from scripts.bench import scaling
from scripts.bench.measure import ROOT


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("scaling") / "scaling.json"
    assert scaling.main(["--quick", "--only", "topk", "--out", str(out)]) == 0
    return dict(json.loads(out.read_text(encoding="utf-8"))["architectures"]["topk"])


@pytest.mark.evidence
def test_each_table_varies_one_thing(found: dict[str, Any]) -> None:
    base = {"members": 2, "width": 64, "d": 16, "l0": 4}
    for axis in base:
        first, second = found[axis]
        assert {name: first[name] for name in base} == base
        assert {name: second[name] for name in base} == {**base, axis: 2 * base[axis]}
        assert second["l0_reached"] == second["l0"]
    assert [row["tokens"] for row in found["tokens"]] == [128, 256]


@pytest.mark.evidence
def test_costs_are_per_token_and_member(found: dict[str, Any]) -> None:
    for row in found["members"]:
        middle = sum(row["rounds_seconds"]) / 2
        assert len(row["rounds_seconds"]) == 2
        assert row["us_per_token_and_sae"] == pytest.approx(1e6 * middle / (4 * 64 * row["members"]))
    for row in found["tokens"]:
        middle = sum(row["rounds_seconds"]) / 2
        assert row["us_per_token_and_sae"] == pytest.approx(1e6 * middle / (row["tokens"] * 2))


@pytest.mark.evidence
def test_memory_is_measured_beside_what_is_predicted(found: dict[str, Any]) -> None:
    first, second = found["memory"]
    assert (first["members"], second["members"]) == (1, 2)
    assert first["on"] == "cpu"
    assert min(first["peak_bytes"], second["peak_bytes"]) > 0
    assert second["predicted_bytes"] > first["predicted_bytes"] > 0
    ratio = second["peak_bytes"] / second["predicted_bytes"]
    assert second["measured_per_predicted"] == pytest.approx(ratio)


def test_what_rows_add_to_the_first_is_compared() -> None:
    sizes = [(100, 10), (160, 40), (130, 40)]
    rows = [{"peak_bytes": peak, "predicted_bytes": predicted} for peak, predicted in sizes]
    ratios = [row["measured_per_predicted_beyond_first"] for row in scaling.beyond_first(rows)]
    assert ratios == [None, 2, 1]


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux alone tells a peak from then on")
def test_the_peak_is_what_was_held_since_it_was_reset() -> None:
    """200 MB before the reset are not counted, 100 MB after it are, though both are gone when it is read."""
    lines = [
        "from scripts.bench.measured_command import peak, reset_peak, resident",
        "before = b'x' * 200_000_000",
        "del before",
        "reset_peak()",
        "start = resident('VmRSS')",
        "after = b'x' * 100_000_000",
        "del after",
        "print(peak() - start)",
    ]
    command = [sys.executable, "-c", "\n".join(lines)]
    done = subprocess.run(command, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True)
    assert int(done.stdout) == pytest.approx(100e6, rel=0.05)
