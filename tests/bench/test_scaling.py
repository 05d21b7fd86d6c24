"""scaling.py: a run at tiny sizes, and where its ratios and peaks come from."""

import json
from typing import Any

import pytest

from scripts.bench import scaling


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
