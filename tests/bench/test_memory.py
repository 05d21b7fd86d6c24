"""memory.py: its table and its JSON; test_scaling.py measures with it."""

import json
from pathlib import Path
from typing import Any

import pytest

from scripts.bench import memory


def test_a_case_is_printed_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    phases = {"training": {"measured": 200_000_000, "estimated": 230_000_000}}
    asked: list[str] = []

    def in_child(overrides: str) -> dict[str, Any]:
        asked.append(overrides)
        return {"on": "cpu", "measured": 200_000_000, "estimated": 230_000_000, "phases": phases}

    monkeypatch.setattr(memory, "in_child", in_child)
    memory.main(["sae=topk", "+", "sae.k=8", "+", "sae.k=9", "--out", str(tmp_path / "memory.json")])
    (line,) = capsys.readouterr().out.splitlines()[1:]
    assert " ".join(line.split()) == "sae=topk + sae.k=8 + sae.k=9 200 230 +15.0% training 200/230"
    written = json.loads((tmp_path / "memory.json").read_text())
    assert written["cases"][asked[0]]["phases"] == phases
    assert written["machine"]["device"] == "cpu"
