"""One process against several in `scripts/bench/ranks.py`: what it counts, not how fast it is."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.evidence
def test_ranks_receive_what_is_planned(tmp_path: Path) -> None:
    out = tmp_path / "ranks.json"
    command = [sys.executable, str(ROOT / "scripts" / "bench" / "ranks.py"), "--quick", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (entry,) = json.loads(out.read_text())["architectures"].values()
    assert [row["processes"] for row in entry["rows"]] == [1, 2, 4]
    assert [row["received_bytes"] > 0 for row in entry["rows"]] == [False, True, True]
    for row in entry["rows"]:
        # Special tokens, which are not counted, are not sent.
        assert row["received_bytes"] == pytest.approx(row["planned"], rel=0.05)
    assert "of it" in done.stdout
