"""A recording of what a command says while it runs, and of how right it is about when it will end.

    python scripts/recording.py OUT -- sae-sweep +experiment=smollm2 ...                through a pipe, by line
    python scripts/recording.py --terminal 80x24 OUT -- sae-sweep +experiment=smollm2 ...   in tmux, at tenths
    python scripts/recording.py --sweep outputs/smollm2 OUT     what a finished sweep said was left, beside what was

Each line, or screen, stands behind the seconds since the command began and those until it ended.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from io import StringIO
from pathlib import Path
from time import monotonic, sleep
from typing import TypeVar

from sae_sweep.folder.names import PACE, REPORT
from sae_sweep.launch.tables import print_table

SOCKET = "sae-sweep-recording"
SECONDS = 0.5
"""Between two looks at a terminal."""
PARTS = 10
"""Of the whole time: what is said at the ends of each is kept."""

What = TypeVar("What")


def piped(command: Sequence[str]) -> Iterator[tuple[float, str]]:
    """Each line, and when it came."""
    start = monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as running:
        assert running.stdout is not None
        for line in running.stdout:
            yield monotonic() - start, line.rstrip("\n")
    yield monotonic() - start, f"(exit code {running.returncode})"


def screens(command: Sequence[str], width: int, height: int) -> Iterator[tuple[float, str]]:
    """Each screen that differs from the one before, and when it was seen."""
    start, last, over = monotonic(), "", "(the command has ended)"
    line = f"{shlex.join(command)}; echo; echo '{over}'; sleep 5"
    _tmux("new-session", "-d", "-x", str(width), "-y", str(height), "-c", os.getcwd(), line)
    while over not in last:
        sleep(SECONDS)
        screen = _tmux("capture-pane", "-p").rstrip()
        if screen != last:
            yield monotonic() - start, screen
        last = screen
    _tmux("kill-server")


def _tmux(*words: str) -> str:
    return subprocess.run(["tmux", "-L", SOCKET, *words], capture_output=True, text=True, check=False).stdout


def spread(moments: Sequence[tuple[float, What]], end: float) -> list[tuple[float, What]]:
    """Of what came at some seconds, in order: the nearest to each end of the parts of the time."""
    wanted = [end * part / PARTS for part in range(PARTS + 1)]
    nearest = [min(range(len(moments)), key=lambda i, at=at: abs(moments[i][0] - at)) for at in wanted]  # type: ignore[misc]
    return [moments[index] for index in sorted(set(nearest))]


def left(sweep: Path) -> str:
    """What a sweep's pace said was left since its first step, until its report was written."""
    lines = [json.loads(line) for line in (sweep / PACE).read_text(encoding="utf-8").splitlines()]
    start, written = lines[0]["time"], (sweep / REPORT).stat().st_mtime
    said = [(line["time"] - start, line["eta_seconds"]) for line in lines if "eta_seconds" in line]
    end, table = written - start, StringIO()
    rows = [[f"{at:.0f}", f"{eta:.0f}", f"{end - at:.0f}"] for at, eta in spread(said, end)]
    print_table("seconds", ["since the first step", "said to be left", "that were left"], rows, table)
    return table.getvalue()


def recorded(command: Sequence[str], terminal: str | None) -> str:
    """What the command said on a pipe, or showed on a terminal of columns x rows."""
    if terminal is None:
        lines = list(piped(command))
        end = lines[-1][0]
        said = "".join(f"{at:7.1f} s, {end - at:7.1f} left | {line}\n" for at, line in lines)
    else:
        width, height = map(int, terminal.split("x"))
        seen = list(screens(command, width, height))
        end = seen[-1][0]
        said = "\n\n".join(f"--- {at:.1f} s, {end - at:.1f} left\n{screen}" for at, screen in spread(seen, end)) + "\n"
    return f"$ {shlex.join(command)}\n\n{said}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--terminal", metavar="80x24", help="a terminal of so many columns and rows; a pipe without")
    parser.add_argument("--sweep", type=Path, help="a finished sweep's folder, in place of a command")
    parser.add_argument("command", nargs="*")
    asked = parser.parse_args(arguments)
    if bool(asked.sweep) == bool(asked.command):
        parser.error("either a command or --sweep")
    text = left(asked.sweep) if asked.sweep else recorded(asked.command, asked.terminal)
    asked.out.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
