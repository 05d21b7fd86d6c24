"""What a process holds of memory together with those it starts, at most. Linux only.

    python scripts/bench/held.py PID     to each line on standard input: the bytes held at most since the line before

It is looked at from outside, some hundred times a second. What these processes share counts once: their own pages in
proportional sizes, those of libraries as the process has them that has most. What the process itself held at most,
however short, is the system's own number.
"""

import os
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

SECONDS = 0.005
"""Between two looks."""
RESET_PEAK = "5"
"""For /proc/PID/clear_refs."""


class Held:
    """This process and those it starts, watched while the context lasts."""

    def __enter__(self) -> "Held":
        command = [sys.executable, __file__, str(os.getpid())]
        self._watcher = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._watcher.kill()  # a process that was forked may hold its input open
        self._watcher.communicate()

    def most(self) -> int:
        """Bytes held at most since this was last asked."""
        asked, answers = self._watcher.stdin, self._watcher.stdout
        assert asked is not None
        assert answers is not None
        print(file=asked, flush=True)
        return int(answers.readline())


def tree(pid: int) -> Iterator[int]:
    """The process and all below it, but for the one that asks."""
    if pid == os.getpid():
        return
    yield pid
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in children.read_text(encoding="utf-8").split():
            yield from tree(int(child))


def together(pid: int) -> int:
    """Bytes of a process and all below it; a look during which one came or went counts nothing.

    The youngest is read first: as it maps what it shares, its parent's proportion falls, and never counts twice.
    """
    own, libraries = 0, 0
    try:
        processes = list(tree(pid))
        for each in reversed(processes):
            own += _bytes(Path(f"/proc/{each}/smaps_rollup"), "Pss_Anon:", "Pss_Shmem:")
            libraries = max(libraries, _bytes(Path(f"/proc/{each}/status"), "RssFile:"))
        return own + libraries if list(tree(pid)) == processes else 0
    except (FileNotFoundError, ProcessLookupError):
        return 0


def _bytes(file: Path, *fields: str) -> int:
    """Of a file's fields together."""
    lines = file.read_text(encoding="utf-8").splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(fields))


def watch(pid: int) -> None:
    """Answer each line of standard input until it ends."""
    status, clear = Path(f"/proc/{pid}/status"), Path(f"/proc/{pid}/clear_refs")
    most = 0
    while True:
        most = max(most, together(pid))
        if not select.select([sys.stdin], [], [], SECONDS)[0]:
            continue
        if not sys.stdin.readline():
            return
        print(max(most, together(pid), _bytes(status, "VmHWM:")), flush=True)
        clear.write_text(RESET_PEAK, encoding="utf-8")
        most = 0


if __name__ == "__main__":
    watch(int(sys.argv[1]))
