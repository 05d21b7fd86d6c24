"""What is measured of a GPU, tried on a CPU with a small case; and what is predicted, against the file that is kept."""

import json
from pathlib import Path

import pytest
import torch

from scripts.bench import gpu, gpu_parts
from scripts.bench.fake import costs
from scripts.bench.fake.costs import CASES, Case
from scripts.bench.fake.paging import DEVICES, paging, seconds

ROOT = Path(__file__).parents[2]
SMALL = (
    Case("standard", "standard_paper", 256, 32, (("sae_l1", 0.1),)),
    Case("topk", "topk_paper", 256, 32, (("sae_k", 8),)),
)


def test_every_part_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_parts, "BATCH", 64)
    monkeypatch.setattr(gpu_parts, "L0", 8)
    monkeypatch.setattr(gpu_parts, "DENSITIES", (0.02, 0.1))
    monkeypatch.setattr(gpu_parts, "PRECISIONS", ("auto", "fp32"))
    found = gpu.measured(torch.device("cpu"), SMALL)
    assert not [part for part, said in found.items() if str(said).startswith("failed")]
    assert max(found["kernels"].values()) < 1e-5
    assert found["repeated"] == {"standard": [], "topk": []}
    assert all(of["ms"] > 0 for case in found["steps"].values() for of in case.values())
    assert set(found["densities"]) == {"0.02", "0.1"}
    assert gpu.measured(torch.device("cpu"), SMALL, budget=0)["waits"] == "not measured"


def test_a_part_that_fails_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("CUDA error:\nno kernel image")

    monkeypatch.setattr(gpu, "PARTS", {"broken": broken, "paging": gpu_parts.paging})
    found = gpu.measured(torch.device("cpu"), SMALL)
    assert found["broken"].startswith("failed: ")
    assert found["paging"]["in"] > 0


def test_no_prediction_has_grown() -> None:
    """Of the largest and the smallest case; a number that falls is to be written down: python scripts/bench/gpu.py."""
    said = json.loads((ROOT / "tests/evidence/bench/cuda_model.json").read_text())["steps"]
    found = costs.table((CASES[0], CASES[3]), ("auto",)) | costs.table((CASES[2],), ("bf16",))
    for name, numbers in found.items():
        for key, value in numbers.items():
            assert value <= said[name][key] * 1.01 + 0.01, f"{name}: {key}"
    for case in CASES[:2]:
        assert said[case.name]["floors"] <= 1.8
    assert all(numbers["waits"] == 0 for numbers in said.values())


def test_what_turns_cost_follows_from_steps_and_the_plan() -> None:
    kept = json.loads((ROOT / "tests/evidence/bench/cuda_model.json").read_text())
    assert kept["paging"] == [paging(kept["steps"], gigabytes) for gigabytes in DEVICES]
    for turns in kept["paging"]:
        assert turns["in_turn_seconds"] == pytest.approx(turns["steps_seconds"] + turns["copies_seconds"], abs=0.02)
        assert turns["ahead_seconds"] < turns["in_turn_seconds"]


@pytest.mark.parametrize(
    ("copies", "steps", "ahead", "expected"),
    [
        ([1, 1, 1], [10, 10, 10], [False] * 3, 36.0),  # in, steps, out, three times
        ([1, 1, 1], [10, 10, 10], [True, True, False], 32.0),  # the first in, the last out
        # In at 4 and 8; steps from 4 to 5; out from 8 to 12, in to 16; steps of the second from 8 to 9, of the third
        # from 16 to 17; out from 16 to 20, and to 24.
        ([4, 4, 4], [1, 1, 1], [True, True, False], 24.0),
        ([1, 1, 1], [10, 10, 10], [True, False, False], 34.0),  # the third waits for the second to be out
    ],
)
def test_what_is_hidden(copies: list[float], steps: list[float], ahead: list[bool], expected: float) -> None:
    assert seconds(copies, steps, ahead) == expected
