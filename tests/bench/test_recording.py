"""Recordings: lines with their times, and what a sweep said was left beside what was."""

import json
import os
import sys
from pathlib import Path

from scripts import recording


def test_lines_of_a_pipe_stand_behind_their_times(tmp_path: Path) -> None:
    out = tmp_path / "said.txt"
    assert (
        recording.main([str(out), "--", sys.executable, "-c", "print('one'); print('two'); raise SystemExit(3)"]) == 0
    )
    lines = out.read_text().splitlines()
    assert [line.partition("| ")[2] for line in lines[2:]] == ["one", "two", "(exit code 3)"]
    assert lines[-1].split()[2:4] == ["0.0", "left"]


def test_what_was_said_to_be_left_beside_what_was(tmp_path: Path) -> None:
    said = [{"time": 1000.0 + at, "eta_seconds": 110.0 - at} for at in range(100)]
    (tmp_path / "pace.jsonl").write_text("".join(json.dumps(line) + "\n" for line in said))
    (tmp_path / "report.html").touch()
    os.utime(tmp_path / "report.html", (1100.0, 1100.0))
    rows = [line.split() for line in recording.left(tmp_path).splitlines()[2:]]
    assert rows[0] == ["0", "110", "100"]
    assert rows[3] == ["30", "80", "70"]
