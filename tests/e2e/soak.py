"""Looking at the processes of a soak from outside: what they hold, and whether one is left."""

from pathlib import Path
from threading import Event, Thread
from types import TracebackType

import psutil

EVERY_SECONDS = 0.1


class Watch:
    """The largest resident size of a process and its children, in bytes, while the block lasts."""

    def __init__(self, pid: int) -> None:
        self.peak = 0
        self._pid, self._over = pid, Event()
        self._thread = Thread(target=self._look, daemon=True)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(EVERY_SECONDS):
            try:
                process = psutil.Process(self._pid)
                every = [process, *process.children(recursive=True)]
                self.peak = max(self.peak, sum(one.memory_info().rss for one in every))
            except psutil.Error:
                continue


def strays(folder: Path) -> list[str]:
    """The command lines of processes that still work in a folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if Path(process.cwd()).is_relative_to(folder) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(" ".join(process.cmdline()))
        except (psutil.Error, OSError):
            continue
    return found
